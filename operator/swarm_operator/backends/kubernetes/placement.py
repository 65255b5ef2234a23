"""Keeps a pod off nodes: merged into whatever affinity its template has."""

from collections.abc import Sequence
from typing import Any, Final

MOST: Final = 32
"""Nodes that one pod is kept off."""

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def keep_off(affinity: dict[str, Any] | None, nodes: Sequence[str]) -> dict[str, Any]:
    """The affinity that asks for the same as before, and for none of these nodes.

    Terms of a node selector are alternatives, so every one of them has to exclude the nodes. A node is named by a
    field, since its labels need not hold its name; a field requirement takes one value.
    """
    affinity = dict(affinity or {})
    if not nodes:
        return affinity
    off = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes[:MOST]]
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = dict(node_affinity.get(_REQUIRED) or {})
    terms = required.get("nodeSelectorTerms")
    # A term without any requirement matches no node at all, and must not begin to match some.
    required["nodeSelectorTerms"] = (
        [
            {**term, "matchFields": [*(term.get("matchFields") or ()), *off]} if any(term.values()) else term
            for term in terms
        ]
        if terms
        else [{"matchFields": off}]
    )
    node_affinity[_REQUIRED] = required
    return {**affinity, "nodeAffinity": node_affinity}
