"""The pods of one job as they were seen last, by the watch, by a list or by our own requests."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from swarm_operator.backends.kubernetes.observe import Pod, read


class PodSet:
    """By name. What arrives late never replaces what is newer."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}

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
        if before is not None and before.version > pod.version:
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
        return True

    def replace(self, found: Iterable[Pod | None], version: int) -> bool:
        """A list of all, as of `version`: what is not in it is gone, unless it was made later; whether that is news."""
        listed = {pod.name: pod for pod in found if pod is not None}
        for pod in self._pods.values():
            listing = listed.get(pod.name)
            if pod.version > (version if listing is None else listing.version):
                listed[pod.name] = pod
        before, self._pods = self._pods, listed
        return listed != before
