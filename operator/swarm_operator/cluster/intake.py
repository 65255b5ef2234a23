"""What happens when the watches tell something: it is noted, and the jobs that it concerns are put into the queue."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.cluster.cache import Cache, Key, key_of, named_by

SETTLE_SECONDS: Final = 0.1
"""What is no end and no beginning may wait so long for more of its kind: a thousand pods start at once."""
SETTLE_SECONDS_A_POD: Final = 0.0005
"""And as much longer for each pod of the job, since a look at many takes long."""
SPREAD_SECONDS: Final = 0.02
"""Between two jobs that are looked at only because a watch began anew."""

_DELETED: Final = "DELETED"


class Intake:
    """Takes what the watches tell: raw events, type and object, and lists; of jobs and nodes also items of lists."""

    def __init__(
        self, cache: Cache, nodes: Nodes, add: Callable[[Key, float], None], clock: Callable[[], float]
    ) -> None:
        """`add(key, delay)` puts a job into the queue."""
        self._cache = cache
        self._nodes = nodes
        self._add = add
        self._clock = clock

    def job(self, kind: str | None, raw: Mapping[str, Any]) -> None:
        """A job was seen, or is gone; None: it is an item of a list."""
        if kind is None:
            self._note_list()
        key = key_of(raw)
        if kind == _DELETED:
            self._cache.drop_job(key, raw["metadata"]["uid"])
            self._add(key, 0.0)
        elif self._cache.put_job(raw):
            self._add(key, 0.0)

    def pods(self, namespace: str, found: Iterable[tuple[Key, Pod | None]], version: int) -> None:
        """All pods of this namespace (empty: of all) that name a job, as of this version; others are gone."""
        listed: defaultdict[Key, list[Pod | None]] = defaultdict(list)
        for key, pod in found:
            listed[key].append(pod)
        concerned = {*self._cache.keys(namespace), *listed}
        news = [key for key in concerned if self._cache.pods(key).replace(listed[key], version)]
        for position, key in enumerate(news):
            self._add(key, position * SPREAD_SECONDS)

    def pod(self, kind: str, raw: Mapping[str, Any]) -> None:
        """A pod that names a job was seen, or is gone."""
        metadata = raw["metadata"]
        key = named_by(raw)
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

    def _note_list(self) -> None:
        """A list of kopf's tells what is there, never what is gone: everything known is to be looked at again."""
        if self._cache.listing(self._clock()):
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
