"""Whether a pod went down with its node: two witnesses have to agree, the node's and the swarm's.

Kubernetes itself takes minutes to give up a pod on a node that is silent. Here it is replaced as soon as its node is in
trouble *and* nothing was heard of its process for a while. Neither alone is enough: a kubelet that restarts leaves
healthy pods, and a process may be busy. A wrong verdict does no harm, since the replacement fences the old one off.
"""

from dataclasses import dataclass
from typing import Final

from swarm_api.report import Report
from swarm_operator.plan.facts import Member, Role

SILENT_SECONDS: Final = 10.0
"""Nothing was heard of the process for so long."""
SUSPECT_SECONDS: Final = 3.0
"""After so long a silence somebody should look at its node."""
LEASE_SECONDS: Final = 12.0
"""Age of a node's Lease, which kubelets renew every 10 s. The kubelet's clock tells it: a node whose clock is ahead is
noticed later, by its condition, and one whose clock is behind has its processes to speak for it."""
UNHEARD_LEASE_SECONDS: Final = 24.0
"""The same where nothing was ever heard of the process: it may still be importing torch, so its silence says nothing,
and a kubelet is late by a few seconds on a machine where many start at once. Two renewals have to be missed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What is known of a node."""

    ready: bool | None = None
    """Its condition Ready; None: unknown."""
    gone: bool = False
    """The node was removed."""
    renewed: float | None = None
    """When its Lease was renewed last, Unix seconds; None: nobody has looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hearsay:
    """What the swarm says of its members."""

    report: Report | None = None
    at: float = 0.0
    """When that report was read, Unix seconds."""
    since: float = 0.0
    """When this operator began to listen; what was before it cannot know."""


def trouble(node: Node, now: float, lease_seconds: float = LEASE_SECONDS) -> str:
    """What is wrong with the node, as the rest of a sentence about it; empty: nothing."""
    if node.gone:
        return "was removed"
    if node.ready is False:
        return "is not ready"
    if node.renewed is not None and now - node.renewed > lease_seconds:
        return "does not answer"
    return ""


def last_sign(member: Member, hearsay: Hearsay) -> float:
    """When the member is known to have been alive, Unix seconds."""
    born = max(hearsay.since, member.created if member.started is None else member.started)
    heard = _last_heard(member, hearsay)
    return born if heard is None else max(born, heard)


def lost(member: Member, node: Node, hearsay: Hearsay, now: float) -> str:
    """Why this member is taken for dead though its pod does not say so; empty: it is not."""
    if member.ended_phase or not member.node or now - last_sign(member, hearsay) < SILENT_SECONDS:
        return ""
    unheard = _last_heard(member, hearsay) is None
    wrong = trouble(node, now, UNHEARD_LEASE_SECONDS if unheard else LEASE_SECONDS)
    return f"node {member.node} {wrong} and nothing was heard of the process" if wrong else ""


def _last_heard(member: Member, hearsay: Hearsay) -> float | None:
    report = hearsay.report
    if report is None:
        return None
    if member.role is Role.SYNCHRONIZER:
        return hearsay.at if report.incarnation == member.incarnation else None
    told = report.particle(member.index)
    return None if told is None or told.incarnation != member.incarnation else hearsay.at - told.silent_seconds


def suspect(member: Member, hearsay: Hearsay, now: float) -> bool:
    """Whether its node should be looked at."""
    return bool(member.node) and not member.ended_phase and now - last_sign(member, hearsay) >= SUSPECT_SECONDS
