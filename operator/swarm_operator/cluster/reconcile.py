"""From a key to a step of its job: with what the watches told, or, where that may be stale, with a look of its own."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from swarm_api.status import JobState
from swarm_operator.backends.kubernetes import labels, paths
from swarm_operator.backends.kubernetes.client import Client
from swarm_operator.backends.kubernetes.observe import read
from swarm_operator.cluster.cache import Cache, Key
from swarm_operator.cluster.tracked import Office, TrackedJob

VERIFY_SECONDS: Final = 240.0
"""Job and pods are read from the server at least so often, whatever the watches say."""
_SOONEST: Final = 0.75
"""The share of that after which it may be done, so that not all jobs are read at once."""
CLOSE_SECONDS: Final = 5.0
"""To write what is left when the operator ends."""


class Reconciler:
    """All jobs. `reconcile` is never called twice at once for one key."""

    def __init__(self, cache: Cache, client: Client, office: Office, wake: Callable[[Key, float], None]) -> None:
        self._cache = cache
        self._client = client
        self._office = office
        self._wake = wake
        self._jobs: dict[Key, TrackedJob] = {}

    def states(self) -> Iterator[JobState]:
        """Of all jobs."""
        return (job.status.state for job in self._jobs.values())

    @property
    def living(self) -> int:
        """Jobs that have not ended."""
        return sum(not state.ended for state in self.states())

    async def close(self) -> None:
        """Read and write nothing any more."""
        await asyncio.gather(*(job.close(CLOSE_SECONDS) for job in self._jobs.values()))

    async def reconcile(self, key: Key) -> float | None:
        """Look at one job; seconds until it should be looked at again by itself, None: it is gone.

        Raises:
            ApiError: something could not be read or done.
        """
        with self._office.metrics.reconcile.time():
            known, raw = self._jobs.get(key), self._cache.job(key)
            if known is None and raw is None:
                self._cache.forget(key)
                return None
            before, read_at = raw, None
            if known is None or self._stale(known) or (raw and raw["metadata"]["uid"] != known.metadata.uid):
                read_at = time.monotonic()
                raw = await self._read(key)
            if raw is None:
                await self._forget(key, before)
                return None
            job = await self._tracked(key, raw)
            if read_at is not None:
                job.read_at = read_at
            again = await job.step(raw)
            verify = VERIFY_SECONDS * random.uniform(_SOONEST, 1.0)  # noqa: S311 - spreads the load
            return verify if again is None else min(again, verify)

    def _stale(self, job: TrackedJob) -> bool:
        return job.read_at <= self._cache.listed_at or time.monotonic() - job.read_at > _SOONEST * VERIFY_SECONDS

    async def _read(self, key: Key) -> dict[str, Any] | None:
        """The job as it is; the cache knows then all of it and of its pods."""
        namespace, name = key
        raw, (found, version) = await asyncio.gather(
            self._client.find(paths.jobs(namespace, name)),
            self._client.list(paths.pods(namespace), read, f"{labels.JOB_NAME}={name}"),
        )
        self._cache.pods(key).replace(found, version)
        if raw is None:
            return None
        self._cache.put_job(raw)
        return self._cache.job(key)

    async def _tracked(self, key: Key, raw: Mapping[str, Any]) -> TrackedJob:
        known = self._jobs.get(key)
        if known is not None and known.metadata.uid == raw["metadata"]["uid"]:
            return known
        if known is not None:
            await known.close()
        job = TrackedJob(raw, self._cache.pods(key), self._office, lambda delay: self._wake(key, delay))
        self._jobs[key] = job
        return job

    async def _forget(self, key: Key, before: Mapping[str, Any] | None) -> None:
        """The job is gone that was known before it was looked for; one that came meanwhile is another."""
        job, found = self._jobs.pop(key, None), self._cache.job(key)
        gone = (before and before["metadata"]["uid"], job and job.metadata.uid)
        if found is None or found["metadata"]["uid"] in gone:
            self._cache.forget(key)
        if job is not None:
            await job.close()
