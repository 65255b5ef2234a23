"""The pods of one job as they were seen last, by the watch, by a list or by our own requests."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from swarm_operator.backends.kubernetes.observe import Pod, read

REMEMBERED: Final = 4096
"""Pods that are gone and could come back by an answer that is older than their end."""


class PodSet:
    """By name. What arrives late never replaces what is newer, and brings back nobody who is gone."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self._gone: dict[str, int] = {}
        """By uid: the version up to which all that is said of it is late."""

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, name: str) -> Pod | None:
        """The pod of this name."""
        return self._pods.get(name)

    def put(self, raw: Mapping[str, Any]) -> tuple[Pod | None, Pod | None]:
        """Take note of a pod; what was known of it before and now."""
        pod = read(raw)
        if pod is None:
            return None, None
        before = self._pods.get(pod.name)
        if self._is_late(pod) or (before is not None and before.version > pod.version):
            return before, before
        self._pods[pod.name] = pod
        return before, pod

    def update(self, raw: Mapping[str, Any]) -> None:
        """The same for a pod that may be gone by now: it is not taken in again."""
        known = self._pods.get(raw["metadata"]["name"])
        if known is not None and known.member.uid == raw["metadata"].get("uid"):
            self.put(raw)

    def drop(self, name: str, uid: str) -> bool:
        """It is gone; whether it was known."""
        known = self._pods.get(name)
        if known is None or known.member.uid != uid:
            return False
        del self._pods[name]
        self._bury(known, known.version)
        return True

    def replace(self, found: Iterable[Pod | None], version: int) -> bool:
        """A list of all, as of `version`: what is not in it is gone, unless it was made later; whether that is news."""
        listed = {pod.name: pod for pod in found if pod is not None and not self._is_late(pod)}
        for pod in self._pods.values():
            listing = listed.get(pod.name)
            if pod.version > (version if listing is None else listing.version):
                listed[pod.name] = pod
            elif listing is None or listing.member.uid != pod.member.uid:
                self._bury(pod, version)
        before, self._pods = self._pods, listed
        return listed != before

    def _bury(self, pod: Pod, version: int) -> None:
        self._gone[pod.member.uid] = version
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _is_late(self, pod: Pod) -> bool:
        return pod.version <= self._gone.get(pod.member.uid, -1)
