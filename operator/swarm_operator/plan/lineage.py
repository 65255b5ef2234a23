"""The incarnations of one particle, or of the synchronizer, and what is remembered of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from swarm_api.names import particle_name, synchronizer_name
from swarm_api.report import ParticleReport, Presence
from swarm_api.status import Attempt
from swarm_operator.plan.backoff import backoff
from swarm_operator.plan.ends import (
    INTENDED,
    End,
    Reason,
    judge_particle,
    judge_synchronizer,
    judge_vanished,
    unsettled,
)
from swarm_operator.plan.facts import Member, Role
from swarm_operator.plan.times import stamp, unix
from swarm_operator.plan.view import SYNCHRONIZER, View

SHORT_LIFE: Final = 60.0
"""Seconds: a life shorter than this is a setback."""
STOP_PATIENCE: Final = 60.0
"""Seconds that one that was told to stop may take before its successor starts anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """All incarnations of one index. At most the newest one counts; the older ones are fenced off."""

    job: str
    uid: str
    role: Role
    index: int = 0
    before: Attempt
    """As the status holds it."""
    attempt: Attempt
    """With what was learnt now."""
    members: tuple[Member, ...] = ()
    """Oldest incarnation first."""
    reported: ParticleReport | None = None
    """What the report says of the newest incarnation."""
    reported_incarnation: int = 0
    """Highest that the report knows."""
    end: End | None = None
    """Of the newest incarnation, if it was learnt now."""
    unsettled: float | None = None
    """Seconds until its end can be judged."""

    @property
    def key(self) -> str:
        """In `status.attempts`."""
        return str(self.index) if self.role is Role.PARTICLE else SYNCHRONIZER

    @property
    def who(self) -> str:
        """For a person."""
        return f"particle {self.index}" if self.role is Role.PARTICLE else "the synchronizer"

    @property
    def name(self) -> str:
        """Of the newest incarnation's pod or process."""
        if self.role is Role.PARTICLE:
            return particle_name(self.job, self.index, self.attempt.incarnation)
        return synchronizer_name(self.job, self.attempt.incarnation)

    @property
    def newest(self) -> Member | None:
        """The member that counts, dead or alive."""
        found = self.members[-1] if self.members else None
        return found if found is not None and found.incarnation == self.attempt.incarnation else None

    @property
    def live(self) -> Member | None:
        """The member that counts, if it lives and nobody wants its end."""
        return None if self.over or self.newest is None or self.newest.ended_phase else self.newest

    @property
    def over(self) -> bool:
        """Whether the newest incarnation ended, or nobody counts on it any more."""
        return self.attempt.ended_at is not None

    @property
    def unseen(self) -> bool:
        """Whether the report knows an incarnation newer than any that was seen: it will come into sight."""
        return self.reported_incarnation > self.attempt.incarnation

    @property
    def next_incarnation(self) -> int:
        """Higher than any that status, report or backend know, for one that is replaceable."""
        return self.attempt.incarnation + 1

    @property
    def replaceable(self) -> bool:
        """Whether a new incarnation may follow, now or later."""
        over = self.over or self.attempt.incarnation == 0
        return over and not (self.unseen or self.attempt.finished or self.attempt.quarantined)

    @property
    def pause(self) -> float:
        """Seconds between the newest incarnation's end and the next one's start."""
        attempt = self.attempt
        if not self.over:
            return 0.0
        if attempt.last_reason in INTENDED:
            stops = self.newest is not None and not self.newest.ended_phase
            return STOP_PATIENCE if stops else 0.0
        return backoff(attempt.setbacks, self.uid, self.key, attempt.incarnation)

    def wait(self, now: float) -> float:
        """Seconds until the next incarnation may start, for one that is replaceable."""
        pause = self.pause
        if pause == 0 or self.attempt.ended_at is None:
            return 0.0
        left = unix(self.attempt.ended_at) + pause - now
        return left if left > 0.001 else 0.0

    @property
    def lingering(self) -> Iterator[Member]:
        """Every member that may still run, whether it counts or not."""
        return (member for member in self.members if not member.ended_phase)

    def stopped(self, reason: Reason, now: float) -> "Lineage":
        """The same, after the newest incarnation was told to stop by the user's wish."""
        attempt = self.attempt.model_copy(
            update={"ended_at": stamp(now), "last_reason": str(reason), "last_exit_code": None, "detect_seconds": None}
        )
        return replace(self, attempt=attempt, end=End(reason=reason, intended=True))


def particle(view: View, index: int) -> Lineage:
    """What is known of one particle now."""
    reported = view.particles.get(index)
    highest = reported.incarnation if reported else 0
    awaited = reported is not None and reported.presence is not Presence.DETACHED
    lineage = _learn(view, Role.PARTICLE, index, reported_incarnation=highest, awaited=awaited)
    if reported is not None and highest == lineage.attempt.incarnation:
        attempt = lineage.attempt
        if reported.contributions > 0 and not attempt.contributed:
            attempt = attempt.model_copy(update={"contributed": True})
        lineage = replace(lineage, reported=reported, attempt=attempt)
    newest = lineage.newest
    if lineage.over or lineage.attempt.incarnation == 0:
        return lineage
    if newest is None:
        return _after(view, lineage, judge_vanished(view, index, lineage.attempt.incarnation))
    end = judge_particle(view, newest)
    if end is not None:
        return _after(view, lineage, end)
    return replace(lineage, unsettled=unsettled(view, newest)) if newest.ended_phase else lineage


def synchronizer(view: View) -> Lineage:
    """What is known of the synchronizer now."""
    report = view.report
    highest = report.incarnation if report else 0
    lineage = _learn(view, Role.SYNCHRONIZER, 0, reported_incarnation=highest, awaited=True)
    newest, attempt = lineage.newest, lineage.attempt
    if lineage.over or attempt.incarnation == 0:
        return lineage
    if newest is None:
        return _after(view, lineage, judge_vanished(view, None, attempt.incarnation))
    committed = report.last_sync_time if report and report.incarnation == newest.incarnation else None
    if committed is not None and committed >= newest.created and not attempt.contributed:
        lineage = replace(lineage, attempt=attempt.model_copy(update={"contributed": True}))
    end = judge_synchronizer(view, newest)
    return lineage if end is None else _after(view, lineage, end)


def _learn(view: View, role: Role, index: int, *, reported_incarnation: int, awaited: bool) -> Lineage:
    """Take note of new incarnations.

    awaited: whether one that only the report knows will come into sight. It then counts from there on; else it is
    gone without having been seen, and only its number is remembered.
    """
    members = view.members.get((role, index), ())
    before = view.attempt(str(index) if role is Role.PARTICLE else SYNCHRONIZER)
    newest = members[-1].incarnation if members else 0
    highest = max(before.incarnation, newest, 0 if awaited else reported_incarnation)
    attempt = before
    if not attempt.quarantined:
        attempt = attempt.model_copy(update={"failures": _recent(view, before.failures)})
    if highest > before.incarnation:
        update: dict[str, object] = {"incarnation": highest, "contributed": False, "ended_at": None, "finished": False}
        if attempt.quarantined:  # only a resume whose status was lost can have started it
            update |= {"quarantined": False, "failures": ()}
        attempt = attempt.model_copy(update=update)
    return Lineage(
        job=view.job.metadata.name,
        uid=view.job.metadata.uid,
        role=role,
        index=index,
        before=before,
        attempt=attempt,
        members=members,
        reported_incarnation=reported_incarnation,
    )


def _after(view: View, lineage: Lineage, end: End) -> Lineage:
    """The same, with this end on its record."""
    attempt, policy = lineage.attempt, view.job.spec.particles.failure_policy
    failures = attempt.failures
    if end.charged:
        failures = (*failures, stamp(view.now))[-(policy.max_failures_per_particle + 1) :]
    early = not end.finished and (not attempt.contributed or end.lived < SHORT_LIFE)
    record = {
        "failures": failures,
        "setbacks": attempt.setbacks + 1 if early else 0,
        "ended_at": stamp(view.now),
        "detect_seconds": None if end.finished or lineage.role is Role.SYNCHRONIZER else round(end.seconds_ago, 3),
        "finished": end.finished,
        "quarantined": len(failures) > policy.max_failures_per_particle,
        "last_exit_code": end.exit_code,
        "last_reason": str(end.reason),
    }
    return replace(lineage, attempt=attempt.model_copy(update=record), end=end)


def _recent(view: View, failures: tuple[str, ...]) -> tuple[str, ...]:
    """Those inside the window."""
    if not failures:
        return failures
    since = view.now - view.job.spec.particles.failure_policy.window_seconds
    return tuple(failure for failure in failures if unix(failure) > since)
