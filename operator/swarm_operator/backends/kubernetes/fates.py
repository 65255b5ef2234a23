"""What became of a job's pods, also where Kubernetes does not know it yet."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from swarm_api.report import Presence
from swarm_operator.backends.kubernetes.loss import Hearsay, last_sign, lost, suspect
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import NODE_LOST, Pod
from swarm_operator.plan.actions import Delete
from swarm_operator.plan.facts import Member, Phase, Role

LINGER_SECONDS: Final = 30.0
"""Containers beside the one that trains may go on for so long after its end."""
WATCH_SECONDS: Final = 1.0
"""Between two looks while somebody is suspected."""


class Fates:
    """Of one job. A pod that was taken for dead once stays dead, so that the plan is never told otherwise."""

    def __init__(self, nodes: Nodes, *, clock: Callable[[], float] = time.time) -> None:
        self.since = clock()
        """What was before it nobody here has heard."""
        self.look_again: float | None = None
        """Unix seconds at which time alone may change somebody's fate."""
        self._nodes = nodes
        self._clock = clock
        self._lost: dict[str, Member] = {}

    def is_lost(self, uid: str) -> bool:
        """Whether this pod went down with its node."""
        return uid in self._lost

    def forget(self, uid: str) -> None:
        """Its pod is gone."""
        self._lost.pop(uid, None)

    def of(self, pod: Pod, hearsay: Hearsay) -> Member:
        """The member as the plan should see it."""
        member, now = pod.member, self._clock()
        if member.ended_phase:
            return member
        if member.uid not in self._lost:
            why = lost(member, self._nodes.get(member.node), hearsay, now)
            if not why:
                if suspect(member, hearsay, now):
                    self._nodes.suspect(member.node)
                    self._soon(now + WATCH_SECONDS)
                return member
            self._lost[member.uid] = _dead(member, hearsay, why)
        return self._lost[member.uid]

    def remains(self, pod: Pod) -> Delete | None:
        """The end of a pod that holds resources for nothing: on a lost node, or with nothing but sidecars left."""
        member, now = pod.member, self._clock()
        if self.is_lost(member.uid):
            return _deletion(member, "its node is lost")
        if not pod.lingers or member.deleting:
            return None
        until = (now if member.ended is None else member.ended) + LINGER_SECONDS
        if until <= now:
            return _deletion(member, "its training ended")
        self._soon(until)
        return None

    def _soon(self, when: float) -> None:
        self.look_again = when if self.look_again is None else min(self.look_again, when)


def _dead(member: Member, hearsay: Hearsay, why: str) -> Member:
    """Ended by its node, unless the swarm has seen it finish before."""
    told = hearsay.report.particle(member.index) if hearsay.report and member.role is Role.PARTICLE else None
    mine = told is not None and told.incarnation == member.incarnation
    finished = mine and told is not None and told.presence is Presence.FINISHED
    return replace(
        member,
        phase=Phase.SUCCEEDED if finished else Phase.FAILED,
        exit_code=0 if finished else None,
        ended=last_sign(member, hearsay),
        reason=NODE_LOST,
        message=why,
        disrupted=True,
    )


def _deletion(member: Member, why: str) -> Delete:
    return Delete(
        role=member.role, index=member.index, incarnation=member.incarnation, uid=member.uid, graceful=True, why=why
    )
