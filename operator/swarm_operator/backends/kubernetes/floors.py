"""Names that an older job of the same name still holds: its pods may take long to go, and nobody waits for them.

Pods that were orphaned do not go at all.
"""

from collections.abc import Iterable, Mapping

from swarm_api.status import Attempt, JobStatus
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.plan.ends import Reason
from swarm_operator.plan.facts import Role
from swarm_operator.plan.times import stamp
from swarm_operator.plan.view import SYNCHRONIZER


def key(role: Role, index: int) -> str:
    """In `status.attempts`."""
    return SYNCHRONIZER if role is Role.SYNCHRONIZER else str(index)


def floors(pods: Iterable[Pod], uid: str) -> dict[str, int]:
    """By key: the highest incarnation that belongs to a job of another uid, or to none."""
    found: dict[str, int] = {}
    for pod in pods:
        if pod.job_uid != uid:
            name = key(pod.member.role, pod.member.index)
            found[name] = max(found.get(name, 0), pod.member.incarnation)
    return found


def raised(status: JobStatus, highest: Mapping[str, int], now: float) -> JobStatus:
    """The status from which the plan counts on above these incarnations.

    One that only an older job had is remembered as ended by the user's wish: no failure, no setback, no loss.
    """
    attempts = dict(status.attempts)
    for name, floor in highest.items():
        known = attempts.get(name, Attempt())
        if known.incarnation == 0:
            attempts[name] = Attempt(incarnation=floor, ended_at=stamp(now), last_reason=Reason.SUSPENDED)
        elif known.ended_at is not None and floor > known.incarnation:
            attempts[name] = known.model_copy(update={"incarnation": floor})
    return status if attempts == status.attempts else status.model_copy(update={"attempts": attempts})
