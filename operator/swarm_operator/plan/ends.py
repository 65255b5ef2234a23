"""How one incarnation ended, if it did, and who is to blame."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarm_api.report import Presence, SwarmState
from swarm_operator.plan.facts import Member, Phase
from swarm_operator.plan.view import SUSPENDED, View

SETTLE_SECONDS: Final = 2.0
"""A particle that ended with 0 may be ahead of the report that calls it finished by so much."""
PATIENCE_SECONDS: Final = 10.0
"""The same while the report cannot be read."""
CANNOT_GO_ON: Final = 3
"""Exit code with which a synchronizer says that training cannot go on; its message says what to change."""


class Reason(StrEnum):
    """Why an incarnation ended, where the backend has no better word."""

    COMPLETED = "Completed"
    ERROR = "Error"
    KILLED = "Killed"
    EXITED_EARLY = "ExitedEarly"
    UNRESPONSIVE = "Unresponsive"
    CANNOT_GO_ON = "TrainingFailed"
    DELETED = "Deleted"
    DISRUPTED = "Disrupted"
    SUSPENDED = SUSPENDED
    SCALED_DOWN = "ScaledDown"


INTENDED: Final = (Reason.SUSPENDED, Reason.SCALED_DOWN)
"""The user asked for it: such an end is no setback."""


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """The verdict on one incarnation."""

    reason: str
    exit_code: int | None = None
    charged: bool = False
    """Whether it counts against the failure budget."""
    finished: bool = False
    """Whether it did all that it was there for."""
    intended: bool = False
    """Whether the user asked for it."""
    lived: float = 0.0
    """Seconds from its start."""
    seconds_ago: float = 0.0


def judge_particle(view: View, member: Member) -> End | None:
    """None: it lives, or it is too early to say (`unsettled`)."""
    reported = view.particles.get(member.index)
    told = reported if reported and reported.incarnation == member.incarnation else None
    finished = told is not None and told.presence is Presence.FINISHED
    if member.ended_phase:
        if exited_0(member):
            if finished:
                return _end(view, member, Reason.COMPLETED, finished=True)
            if not _by_others(member):
                early = unsettled(view, member) <= 0
                return _end(view, member, Reason.EXITED_EARLY, charged=True) if early else None
        return _ended(view, member)
    if member.deleting:
        return None if finished else _end(view, member, Reason.DELETED)
    runs, limit = member.phase is Phase.RUNNING, view.job.spec.sync.unresponsive_seconds
    if runs and view.heard and told and not finished and told.silent_seconds >= limit:
        return End(
            reason=Reason.UNRESPONSIVE,
            charged=True,
            lived=_lived(view, member),
            seconds_ago=told.silent_seconds,
        )
    return None


def judge_synchronizer(view: View, member: Member) -> End | None:
    """None: it lives. Exit code 0 means that the model is written, unless it was told to stop."""
    if not member.ended_phase:
        return _end(view, member, Reason.DELETED) if member.deleting else None
    if exited_0(member) and (said_finished(view, member) or not _by_others(member)):
        return _end(view, member, Reason.COMPLETED, finished=True)
    if member.exit_code == CANNOT_GO_ON and not _by_others(member):
        return _end(view, member, Reason.CANNOT_GO_ON, charged=True)
    return _ended(view, member)


def said_finished(view: View, synchronizer: Member) -> bool:
    """Whether this synchronizer's report said that everything is done."""
    report = view.report
    return report is not None and report.incarnation == synchronizer.incarnation and report.state is SwarmState.FINISHED


def judge_vanished(view: View, index: int | None, incarnation: int) -> End:
    """The verdict on a child that was seen and is no more; index: None for the synchronizer."""
    reported = view.particles.get(index) if index is not None else None
    if reported is None or reported.incarnation != incarnation:
        return End(reason=Reason.DELETED)
    if reported.presence is Presence.FINISHED:
        return End(reason=Reason.COMPLETED, finished=True)
    return End(reason=Reason.DELETED, lived=max(0.0, view.now - reported.attached_time))


def unsettled(view: View, member: Member) -> float:
    """Seconds until an exit with 0 that nobody calls finished is an early one."""
    ended = member.ended if member.ended is not None else view.now - PATIENCE_SECONDS
    return ended + (SETTLE_SECONDS if view.heard else PATIENCE_SECONDS) - view.now


def exited_0(member: Member) -> bool:
    """Whether an ended member ended well."""
    return member.exit_code == 0 or (member.exit_code is None and member.phase is Phase.SUCCEEDED)


def _by_others(member: Member) -> bool:
    return member.disrupted or member.deleting


def _ended(view: View, member: Member) -> End:
    if member.disrupted:
        return _end(view, member, member.reason or Reason.DISRUPTED)
    if member.deleting:
        return _end(view, member, Reason.DELETED)
    killed = member.exit_code is not None and member.exit_code < 0
    return _end(view, member, member.reason or (Reason.KILLED if killed else Reason.ERROR), charged=True)


def _end(view: View, member: Member, reason: str, *, charged: bool = False, finished: bool = False) -> End:
    over = member.ended_phase
    return End(
        reason=reason,
        exit_code=(0 if exited_0(member) else member.exit_code) if over else None,
        charged=charged,
        finished=finished,
        lived=_lived(view, member),
        seconds_ago=max(0.0, view.now - member.ended) if member.ended is not None else 0.0,
    )


def _lived(view: View, member: Member) -> float:
    ended = view.now if member.ended is None else member.ended
    return max(0.0, ended - (member.created if member.started is None else member.started))
