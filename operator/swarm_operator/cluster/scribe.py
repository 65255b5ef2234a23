"""Writes a job's status and tells its events, beside the steps of the job: no failure waits for a line of text."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from swarm_api.job import Metadata
from swarm_api.status import JobStatus
from swarm_operator.backends.kubernetes import paths
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.many import each
from swarm_operator.cluster import events, status
from swarm_operator.cluster.complaint import Complaint
from swarm_operator.plan.facts import Event

FIRST_PAUSE: Final = 0.5
"""Seconds after a failed write; twice as long after each further one."""
LONGEST_PAUSE: Final = 60.0

log = logging.getLogger(__name__)


class Scribe:
    """Of one job. First the status, if it is time to, then what happened since."""

    def __init__(
        self,
        client: Client,
        metadata: Metadata,
        stored: Mapping[str, Any],
        known: JobStatus,
        *,
        progress_seconds: Callable[[], float],
        wrote: Callable[[Mapping[str, Any]], None],
        failed: Callable[[], None],
    ) -> None:
        """A scribe of a job whose status is known.

        Args:
            client: Where it writes.
            metadata: Of the job.
            stored: The status as the API server has it.
            known: The same, as it was understood.
            progress_seconds: Between two writes of which the second only moves numbers.
            wrote: Hears of the job as it is after a write.
            failed: Hears that a write failed: the job may be gone.
        """
        self.written = known
        """What the API server holds."""
        self._client = client
        self._metadata = metadata
        self._stored = stored
        self._progress_seconds = progress_seconds
        self._wrote = wrote
        self._failed = failed
        self._status = known
        self._untold: list[tuple[Event, str, float]] = []
        self._written_at = -math.inf
        self._took = 0.0
        self._failures = 0
        who = f"{metadata.namespace}/{metadata.name}"
        self._unwritten, self._lost = Complaint(log, who), Complaint(log, who)
        self._news = asyncio.Event()
        self._open = True

    def note(self, new: JobStatus, happened: Sequence[Event], uid_of: Callable[[str], str]) -> None:
        """This is how the job is now, and this happened; `uid_of` a child's name is its pod's."""
        now = time.time()
        self._status = new
        self._untold += ((event, uid_of(event.regarding), now) for event in happened)
        self._news.set()

    def finish(self) -> None:
        """Write what is left, due or not, and end."""
        self._open = False
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled or finished; what fails at the very end is lost."""
        while self._open:
            self._news.clear()
            try:
                pause = await self._write_what_is_due()
            except Exception as error:
                pause = self._blunder(error)
            else:
                self._failures = 0
                self._unwritten.settle()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                continue
            await asyncio.sleep(pause)
        with contextlib.suppress(ApiError):
            if self._status != self.written:
                await self._write()
            await self._tell()

    async def _write_what_is_due(self) -> float | None:
        """Seconds until more is due, None: nothing is, until there is news."""
        since = time.monotonic() - self._written_at
        due = status.due(self.written, self._status, since, self._took, self._progress_seconds())
        if due == 0:
            await self._write()
            due = 0.0 if self._status is not self.written else None
        if due is None or due > status.STRUCTURE_SECONDS:
            await self._tell()
        return due

    async def _write(self) -> None:
        began = time.monotonic()
        new, text = self._status, status.dumped(self._status)
        path = f"{paths.jobs(self._metadata.namespace, self._metadata.name)}/status"
        # With the uid the server refuses the patch for a later job of the same name.
        body = {"metadata": {"uid": self._metadata.uid}, "status": status.merge_patch(self._stored, text)}
        answer = await self._client.patch(path, body)
        self.written, self._written_at, self._stored = new, time.monotonic(), text
        self._took = self._written_at - began
        self._wrote(answer)

    async def _tell(self) -> None:
        untold, self._untold = self._untold, []
        path = paths.events(self._metadata.namespace)
        bodies = [events.body(self._metadata, event, when, uid) for event, uid, when in untold]
        errors = await each(bodies, lambda body: self._client.create(path, body))
        for error in errors:
            self._lost.make(error, "an event is lost")
        if bodies and not errors:
            self._lost.settle()

    def _blunder(self, error: Exception) -> float:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._unwritten.make(error, f"the status is not written, tried again in {pause:.1f} s")
        self._failed()
        return pause
