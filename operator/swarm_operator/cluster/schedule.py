"""When which key is due: pure, so that every order of events can be tried with a clock that stands still."""

import heapq
import random
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

FIRST_BACKOFF: Final = 0.1
"""Seconds after a first failure; twice as long after each further one."""
LONGEST_BACKOFF: Final = 60.0
JITTER: Final = 0.25
"""Largest share that is added."""

Key = TypeVar("Key", bound=Hashable)


class Schedule(Generic[Key]):
    """Keys and when they are due. A key waits once, however often it was added, and is never out twice.

    Times are seconds of any clock that does not go back.
    """

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        """`spread` draws from 0..1 for the jitter."""
        self._spread = spread
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._out: dict[Key, float] = {}
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._retries: dict[Key, float] = {}

    def __len__(self) -> int:
        """Keys that wait, due or not."""
        return len(self._due) + len(self._again)

    def add(self, key: Key, due: float) -> None:
        """Take it out at this time; the earliest of several holds. One that is out now comes after its return."""
        waiting = self._again if key in self._out else self._due
        if key in waiting and waiting[key] <= due:
            return
        waiting[key] = due
        if waiting is self._due:
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, key))

    def take(self, now: float) -> Key | None:
        """The key that has been due for longest, which is out then; None: none is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._out[key] = now
                return key
        return None

    def done(self, key: Key) -> None:
        """It went well."""
        self._failures.pop(key, None)
        self._retries.pop(key, None)
        self._back(key)

    def failed(self, key: Key, now: float, at_least: float = 0.0) -> float:
        """It went wrong, and comes again after this many seconds at the latest.

        One that was taken out before its retry was due keeps that retry: many events make no long pause.
        """
        pause = self._retries.get(key, now) - now
        if pause <= 0:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            pause = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures, 20)) * (1 + JITTER * self._spread())
        pause = max(at_least, pause)
        self._retries[key] = now + pause
        self.add(key, now + pause)
        self._back(key)
        return pause

    def next_due(self) -> float | None:
        """When `take` has something at the earliest."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def overdue(self, now: float) -> float:
        """Seconds for which the oldest key has been due."""
        return max(0.0, now - min(self._due.values(), default=now))

    def longest_out(self, now: float) -> float:
        """Seconds for which the oldest key has been out."""
        return max(0.0, now - min(self._out.values(), default=now))

    def _back(self, key: Key) -> None:
        del self._out[key]
        if key in self._again:
            self.add(key, self._again.pop(key))
