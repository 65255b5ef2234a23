"""What has to be done to the children: whom to end, whom to start, whose remains to clear away."""

from collections.abc import Iterator
from typing import Final

from swarm_api.status import JobState
from swarm_operator.plan.actions import Action, Create, Delete
from swarm_operator.plan.ends import INTENDED, Reason
from swarm_operator.plan.facts import Member
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.outcome import Outcome
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.view import View

KEPT: Final = 2
"""Ended members that are kept of each lineage, for their logs."""
FAREWELL: Final = 30.0
"""Seconds after a job's completion in which whoever still runs may end by itself, such as scripts that save a plot."""
_WHY: Final[dict[str, str]] = {
    Reason.UNRESPONSIVE: "nothing is heard of it",
    Reason.SUSPENDED: "the job is suspended",
    Reason.SCALED_DOWN: "replicas was lowered",
}


def steps(view: View, swarm: Swarm, outcome: Outcome | None) -> tuple[Action, ...]:
    """All actions: those that make room first, then the starts, then the rest."""
    if outcome is not None:
        return leftovers(swarm, outcome.state, ended_for=0.0)[0]
    kills = [step for each in swarm.all for step in _ends(each)]
    starts = [step for each in wanted(view, swarm) for step in _start(view, each)]
    cleaning = [step for each in swarm.all for step in _clean(each)]
    return (*kills, *starts, *cleaning)


def wanted(view: View, swarm: Swarm) -> tuple[Lineage, ...]:
    """The lineages that should have a living member."""
    return () if view.job.spec.suspend else (swarm.synchronizer, *swarm.desired)


def leftovers(swarm: Swarm, state: JobState, *, ended_for: float) -> tuple[tuple[Action, ...], float | None]:
    """Of a job at its end nothing lives on; what is dead keeps its logs.

    Args:
        swarm: As it is now.
        state: In which the job ended.
        ended_for: Seconds since then.

    Returns:
        Whom to end now, or nobody yet and the seconds until then.
    """
    still = [member for each in swarm.all for member in each.lingering if not member.deleting]
    left = FAREWELL - ended_for if still and state is JobState.COMPLETE else 0.0
    if left > 0:
        return (), left
    return tuple(_delete(member, f"the job is {state.value.lower()}") for member in still), None


def withheld(view: View, swarm: Swarm) -> bool:
    """Whether a deletion may have to wait until the status holds what this plan saw first."""
    return any(
        each.attempt.incarnation > each.before.incarnation
        and (view.job.spec.suspend or each.index >= swarm.replicas or len(each.members) > 1)
        for each in swarm.all
    )


def _start(view: View, each: Lineage) -> Iterator[Action]:
    if each.replaceable and each.wait(view.now) == 0:
        yield Create(role=each.role, index=each.index, incarnation=each.next_incarnation)


def _ends(each: Lineage) -> Iterator[Action]:
    """Ends of what lives and should not: fenced off by a newer incarnation, told to stop, or counted as lost."""
    for member in each.lingering:
        if member.deleting or member.incarnation > each.before.incarnation:
            continue
        if member.incarnation < each.attempt.incarnation:
            yield _delete(member, "a newer incarnation took its place", graceful=False)
        elif each.over:
            reason = each.attempt.last_reason
            yield _delete(member, _WHY.get(reason, "it was counted as lost"), graceful=reason in INTENDED)


def _clean(each: Lineage) -> Iterator[Action]:
    dead = [member for member in each.members if member.ended_phase]
    for member in dead[:-KEPT]:
        if member.incarnation <= each.before.incarnation:
            yield _delete(member, f"only the last {KEPT} that ended are kept")


def _delete(member: Member, why: str, *, graceful: bool = True) -> Delete:
    return Delete(
        role=member.role,
        index=member.index,
        incarnation=member.incarnation,
        uid=member.uid,
        graceful=graceful,
        why=why,
    )
