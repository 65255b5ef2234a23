"""What a session's thread has for the training thread, which looks at it at every step and while it waits.

That is the only moment at which weights may be read.
"""

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from swarm_trainer.connection import Connection
from swarm_trainer.vectors import Tensors
from swarm_trainer.wire import messages as say

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Said:
    """Something the training thread waits for."""

    message: say.Welcome | say.Reply | say.Center | say.Donation | say.Farewell
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Return:
    """The particle is a member again, after it had lost its synchronizer."""

    welcome: say.Welcome
    tensors: Tensors
    """Of the welcome's reply."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection ended."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Over:
    """The session has ended, and so must the particle."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The synchronizer asks for something that only the training thread may read."""

    read: Callable[[], Any]
    result: Future[Any]


class Inbox:
    """`put` and `between_steps` are for the session's thread, the rest for the training thread."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Said | Return | Lost | Over | _Wanted] = queue.SimpleQueue()
        self.returns: deque[Return] = deque()
        """Looked at and not heard yet."""

    def put(self, item: Said | Return | Lost | Over) -> None:
        """Tell the training thread."""
        self._items.put(item)

    async def between_steps(self, read: Callable[[], T]) -> T:
        """What the training thread reads at its next step, or while it waits for an answer."""
        result: Future[T] = Future()
        self._items.put(_Wanted(read, result))
        return await asyncio.wrap_future(result)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        return self._items.empty()

    def look(self) -> None:
        """Do what is asked for, and see what came; answers that nobody waits for are dropped.

        Raises:
            Exception: That of `Over`.
        """
        while not self.empty:
            self._take()

    def look_for(self, seconds: float) -> None:
        """The same for one item, waiting for it so long at most."""
        with contextlib.suppress(queue.Empty):
            self._take(timeout=seconds)

    def wait(self, connection: Connection | None = None) -> Said | None:
        """The next answer; None when this connection ended first. Raises as `look` does."""
        while True:
            item = self._take()
            if isinstance(item, Said):
                return item
            if isinstance(item, Lost) and item.connection is connection:
                return None

    def _take(self, timeout: float | None = None) -> Said | Lost | None:
        item = self._items.get(timeout=timeout)
        match item:
            case _Wanted(read, result):
                # Whoever asked may be gone: the question is as old as the last step.
                if result.set_running_or_notify_cancel():
                    result.set_result(read())
            case Return():
                self.returns.append(item)
            case Over(error):
                raise error
            case _:
                return item
        return None
