"""What the plan is told: the children that exist and what the synchronizer reports. Plain data, no I/O."""

from dataclasses import dataclass, field
from enum import StrEnum

from swarm_api.report import Report


class Role(StrEnum):
    """What a child of the job is."""

    PARTICLE = "particle"
    SYNCHRONIZER = "synchronizer"


class Phase(StrEnum):
    """Where a child is in its life; the same words as a pod's."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One pod or process of the job, dead or alive. Times are Unix seconds."""

    role: Role
    index: int = 0
    """Of a particle; 0 for the synchronizer."""
    incarnation: int
    uid: str
    phase: Phase
    created: float
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    """Of the training container. Negative: the signal that ended it."""
    reason: str = ""
    """Why it is pending or how it failed, CamelCase: Unschedulable, OOMKilled, Evicted, Killed ..."""
    message: str = ""
    """The same for a person: the scheduler's words, or the last lines of output."""
    node: str = ""
    deleting: bool = False
    """Its end was asked for while it lived, by us or by others; it stays so after the end."""
    disrupted: bool = False
    """Ended through no fault of its own: deleted by others, preempted, node lost, `swarm kill`."""

    @property
    def ended_phase(self) -> bool:
        """Whether it will not run any more."""
        return self.phase in (Phase.SUCCEEDED, Phase.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Everything a backend saw of one job at one moment. It may lag, but never goes back behind an earlier one."""

    members: tuple[Member, ...] = ()
    report: Report | None = None
    """Newest readable report of the newest synchronizer; None before the first."""
    report_error: str = ""
    """Why the report cannot be read now; empty when it was just read or no synchronizer runs."""
    keeps_all: bool = False
    """Whether model and checkpoints are kept without the job asking for it: one machine has a folder for them."""

    def of(self, role: Role, index: int = 0) -> tuple[Member, ...]:
        """All members of this role and index, oldest incarnation first."""
        found = (member for member in self.members if member.role is role and member.index == index)
        return tuple(sorted(found, key=lambda member: member.incarnation))


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something worth telling a person once. Reasons are stable CamelCase words."""

    reason: str
    message: str
    warning: bool = False
    regarding: str = ""
    """Name of the child; empty: the job itself."""
    details: dict[str, str] = field(default_factory=dict)
