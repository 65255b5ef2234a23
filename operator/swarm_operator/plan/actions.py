"""What the plan asks for. A backend carries each out so that doing it twice changes nothing."""

from dataclasses import dataclass

from swarm_api.status import JobStatus
from swarm_operator.plan.facts import Event, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Create:
    """Start one incarnation. Its name is a function of role, index and incarnation."""

    role: Role
    index: int = 0
    incarnation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """End one incarnation, and remove it where the backend keeps the dead."""

    role: Role
    index: int = 0
    incarnation: int
    uid: str
    graceful: bool = True
    """First SIGTERM, so that a particle can push what it has; False kills at once."""
    why: str = ""


Action = Create | Delete


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Actions in the order in which they may be carried out, then the status, then the events."""

    actions: tuple[Action, ...]
    status: JobStatus
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until time alone changes the plan; None: only an event can."""
