"""What is worth telling once: the difference between the last status and the new one."""

from collections.abc import Iterator
from typing import Final

from swarm_api.status import JobState, JobStatus
from swarm_operator.plan import words
from swarm_operator.plan.conditions import resumption
from swarm_operator.plan.facts import Event, Role
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.view import NOT_SUSPENDED, View

MOST_ALIKE: Final = 8
"""Events of one kind that one plan tells of single children; beyond that one event counts them."""
LONGEST: Final = 1000
"""Characters of a message."""


def events(view: View, swarm: Swarm, status: JobStatus) -> tuple[Event, ...]:
    """All news of this plan: of children first, then of the job."""
    of_children: dict[str, list[Event]] = {}
    for each in swarm.all:
        for event in _of_child(view, each):
            of_children.setdefault(event.reason, []).append(event)
    return tuple(event for alike in (*map(_bounded, of_children.values()), _of_job(view, status)) for event in alike)


def _bounded(alike: list[Event]) -> list[Event]:
    if len(alike) <= MOST_ALIKE:
        return alike
    first = alike[0]
    return [Event(reason=first.reason, warning=first.warning, message=f"{len(alike)} particles; {first.message}")]


def _of_child(view: View, each: Lineage) -> Iterator[Event]:
    kind = "Particle" if each.role is Role.PARTICLE else "Synchronizer"
    old, new, end = each.before, each.attempt, each.end
    if 0 < old.incarnation < new.incarnation:
        message = f"{each.who} starts again as incarnation {new.incarnation}"
        yield _event(f"{kind}Replaced", message, each)
    if end is None or end.intended:
        return
    told = f"{each.who} {words.ending(each)}{words.last_words(each)}"
    if end.finished and each.role is Role.PARTICLE:
        yield _event("ParticleFinished", f"{each.who} finished", each)
    elif end.charged:
        yield _event(f"{kind}Failed", told, each, warning=True)
    elif not end.finished:
        yield _event(f"{kind}Lost", told, each)
    if new.quarantined and each.role is Role.PARTICLE:
        message = f"{words.budget_spent(view, each)}: it is given up{words.last_words(each)}"
        yield _event("ParticleQuarantined", message, each, warning=True)


def _of_job(view: View, status: JobStatus) -> Iterator[Event]:
    before = view.job.status.condition("Suspended")
    if before and before.reason != NOT_SUSPENDED and not view.job.spec.suspend:
        yield _event("JobResumed", _resumed(view))
    for kind in ("NothingKept", "CheckpointFailing", "OutputFailing"):
        known, found = view.job.status.condition(kind), status.condition(kind)
        if found and found.status == "True" and (known is None or known.status != "True"):
            yield _event(kind, found.message, warning=True)
    if status.state is view.job.status.state:
        return
    match status.state:
        case JobState.RUNNING:
            yield _event("JobRunning", _why(status, "Running"))
        case JobState.DEGRADED:
            yield _event("JobDegraded", _why(status, "Degraded"), warning=True)
        case JobState.WAITING:
            yield _event("JobWaiting", _why(status, "Running"), warning=True)
        case JobState.SUSPENDED:
            begun = view.job.status.start_time is not None
            yield _event("JobSuspended", f"nothing runs; {resumption(view)}" if begun else "nothing was started")
        case JobState.COMPLETE:
            yield _event("JobComplete", _why(status, "Complete"))
        case JobState.FAILED:
            yield _event("JobFailed", _why(status, "Failed"), warning=True)


def _resumed(view: View) -> str:
    if not view.resumed:
        return "training goes on"
    if view.job.status.start_time is None:
        return "training starts"
    if view.keeps_checkpoints:
        return "training goes on from the last checkpoint"
    return "training starts from the beginning, since no checkpoint is kept"


def _why(status: JobStatus, kind: str) -> str:
    condition = status.condition(kind)
    return condition.message if condition else ""


def _event(reason: str, message: str, each: Lineage | None = None, *, warning: bool = False) -> Event:
    return Event(
        reason=reason,
        message=message if len(message) <= LONGEST else f"{message[: LONGEST - 2]} …",
        warning=warning,
        regarding=each.name if each else "",
    )
