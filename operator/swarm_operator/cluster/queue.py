"""The work queue: whoever sees something happen to a job puts its key in, and the job is looked at once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from swarm_operator.backends.kubernetes.client import ApiError
from swarm_operator.cluster.complaint import Complaint
from swarm_operator.cluster.schedule import Schedule

WORKERS: Final = 16
"""Keys that are worked on at once."""

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Runs `work(key)` for keys that are due, one at a time for each key; it returns seconds until the next, or None.

    What fails is tried again later and later, and at once when its key is put in; it is logged when it begins to fail.
    One event loop.
    """

    def __init__(
        self, work: Callable[[Key], Awaitable[float | None]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work = work
        self._clock = clock
        self._schedule: Schedule[Key] = Schedule()
        self._running: set[asyncio.Task[None]] = set()
        self._complaints: dict[Key, Complaint] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._open = True

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._schedule)

    @property
    def overdue(self) -> float:
        """Seconds for which something has waited that was due."""
        return self._schedule.overdue(self._clock())

    @property
    def longest(self) -> float:
        """Seconds for which something has been worked on."""
        return self._schedule.longest_out(self._clock())

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Work on it after so many seconds at the latest."""
        self._schedule.add(key, self._clock() + delay)
        self._pump()

    async def close(self, patience: float = 5.0) -> None:
        """Begin nothing more, and give what runs so many seconds to end."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _pump(self) -> None:
        """Start what is due, and wake up for what will be."""
        while self._open and len(self._running) < WORKERS:
            key = self._schedule.take(self._clock())
            if key is None:
                self._set_timer()
                return
            task = asyncio.create_task(self._run(key))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._schedule.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._clock()), self._pump)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._pump()

    async def _run(self, key: Key) -> None:
        try:
            again = await self._work(key)
        except Exception as error:
            at_least = error.retry_after if isinstance(error, ApiError) else 0.0
            pause = self._schedule.failed(key, self._clock(), at_least)
            complaint = self._complaints.setdefault(key, Complaint(log, _name(key)))
            complaint.make(error, f"tried again in {pause:.1f} s")
        except asyncio.CancelledError:
            self._schedule.done(key)
            raise
        else:
            if key in self._complaints:
                self._complaints.pop(key).settle()
            self._schedule.done(key)
            if again is not None:
                self._schedule.add(key, self._clock() + again)


def _name(key: Hashable) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
