"""What the watches told: jobs as they are, of pods only what is read. Nobody decides on it for longer than minutes."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from swarm_operator.backends.kubernetes import labels
from swarm_operator.backends.kubernetes.podset import PodSet

Key = tuple[str, str]
"""Namespace and name of a job."""

BURST_SECONDS: Final = 2.0
"""A list that is delivered piece by piece pauses for less."""
_DELETION: Final = "deletionTimestamp"


class Cache:
    """By job. Nothing here waits, and nothing reads from anywhere."""

    def __init__(self) -> None:
        self.listed_at = 0.0
        """When a watch began to list anew: what was known before may have gone unnoticed."""
        self._last_item = 0.0
        self._jobs: dict[Key, dict[str, Any]] = {}
        self._pods: dict[Key, PodSet] = {}
        self._own: dict[Key, str] = {}

    def keys(self, namespace: str = "") -> list[Key]:
        """All jobs of which something is known, of this namespace or of all."""
        return [key for key in {**self._jobs, **self._pods} if namespace in ("", key[0])]

    def job(self, key: Key) -> dict[str, Any] | None:
        """The job, as seen last."""
        return self._jobs.get(key)

    def pods(self, key: Key) -> PodSet:
        """The pods that name this job."""
        return self._pods.setdefault(key, PodSet())

    def keys_on(self, node: str) -> Iterator[Key]:
        """Jobs that have a living pod on this node."""
        for key, pods in self._pods.items():
            if any(pod.member.node == node and not pod.member.ended_phase for pod in pods):
                yield key

    def put_job(self, raw: Mapping[str, Any]) -> bool:
        """Take note of a job; whether it is other than it was, apart from what this operator wrote itself."""
        key = key_of(raw)
        version = raw["metadata"]["resourceVersion"]
        before = self._jobs.get(key)
        if before is not None and int(before["metadata"]["resourceVersion"]) >= int(version):
            return False
        self._jobs[key] = _slim(raw)
        return bool(self._own.get(key) != version)

    def wrote(self, raw: Mapping[str, Any]) -> bool:
        """The operator itself made the job so; whether somebody else has changed it too in the meantime."""
        key = key_of(raw)
        before = self._jobs.get(key)
        self._own[key] = raw["metadata"]["resourceVersion"]
        if before is None:
            return False
        self.put_job(raw)
        return any(before["metadata"].get(field) != raw["metadata"].get(field) for field in ("generation", _DELETION))

    def drop_job(self, key: Key, uid: str) -> None:
        """The job of this uid is gone."""
        known = self._jobs.get(key)
        if known is not None and known["metadata"]["uid"] == uid:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """Nothing of this name is there any more."""
        self._jobs.pop(key, None)
        self._own.pop(key, None)
        if not self._pods.get(key):
            self._pods.pop(key, None)

    def listing(self, now: float) -> bool:
        """One item of a list arrived; whether it is the first of this list."""
        fresh = now - self._last_item > BURST_SECONDS
        self._last_item = now
        if fresh:
            self.listed_at = now
        return fresh


def key_of(raw: Mapping[str, Any]) -> Key:
    """Of a job."""
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


def named_by(pod: Mapping[str, Any]) -> Key:
    """Of the job that a pod's label names, whether there is one or not."""
    return pod["metadata"]["namespace"], pod["metadata"]["labels"][labels.JOB_NAME]


def _slim(raw: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return {**raw, "metadata": metadata}
