"""What happens when the watches tell something: it is noted, and the jobs that it concerns are put into the queue."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from swarm_operator.backends.kubernetes import labels
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.cluster.cache import Cache, Key, key_of

SETTLE_SECONDS: Final = 0.1
"""What is no end and no beginning may wait so long for more of its kind: a thousand pods start at once."""
SETTLE_SECONDS_A_POD: Final = 0.0005
"""And as much longer for each pod of the job, since a look at many takes long."""
SPREAD_SECONDS: Final = 0.02
"""Between two jobs that are looked at only because a watch began anew."""

_DELETED: Final = "DELETED"


class Intake:
    """Takes raw events of a watch: type (None for an item of a list) and object."""

    def __init__(
        self, cache: Cache, nodes: Nodes, add: Callable[[Key, float], None], clock: Callable[[], float]
    ) -> None:
        """`add(key, delay)` puts a job into the queue."""
        self._cache = cache
        self._nodes = nodes
        self._add = add
        self._clock = clock

    def job(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """A job was seen, or is gone."""
        self._note_list(kind)
        key = key_of(raw)
        if kind == _DELETED:
            self._cache.drop_job(key, raw["metadata"]["uid"])
            self._add(key, 0.0)
        elif self._cache.put_job(raw):
            self._add(key, 0.0)

    def pod(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """A pod that names a job was seen, or is gone."""
        self._note_list(kind)
        metadata = raw["metadata"]
        job = (metadata.get("labels") or {}).get(labels.JOB_NAME)
        if job is None:
            return
        key = (metadata["namespace"], job)
        pods = self._cache.pods(key)
        if kind == _DELETED:
            if pods.drop(metadata["name"], metadata["uid"]):
                self._add(key, 0.0)
            return
        before, after = pods.put(raw)
        if after is not None and not _same(before, after):
            settle = SETTLE_SECONDS + len(pods) * SETTLE_SECONDS_A_POD
            self._add(key, 0.0 if _pressing(before, after) else settle)

    def node(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """A node was seen, or is gone."""
        name = raw["metadata"]["name"]
        changed = self._nodes.drop(name) if kind == _DELETED else self._nodes.put(raw)
        if changed:
            for key in self._cache.keys_on(name):
                self._add(key, 0.0)

    def _note_list(self, kind: str | None) -> None:
        """A list tells what is there, never what is gone: everything known is to be looked at again."""
        if kind is None and self._cache.listing(self._clock()):
            for position, key in enumerate(self._cache.keys()):
                self._add(key, position * SPREAD_SECONDS)


def _same(before: Pod | None, after: Pod) -> bool:
    return before is not None and replace(before, version=after.version) == after


def _pressing(before: Pod | None, after: Pod) -> bool:
    """Whether a replacement may be due."""
    if before is None or before.member.uid != after.member.uid:
        return True
    old, new = before.member, after.member
    return (old.ended_phase, old.deleting) != (new.ended_phase, new.deleting)
