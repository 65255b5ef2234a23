"""The handle of one operation of the swarm backend."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta

import torch
import torch.distributed as dist

from swarm_trainer.errors import LinkTimeoutError
from swarm_trainer.links.stream import in_loop

_NO_TIMEOUT = timedelta(0)


class SwarmWork(dist.Work):
    """Done when all its transfers are; the event loop that moves the bytes completes it.

    Args:
        parts: The transfers.
        tensors: What `result` and the future return.
        loop: The loop that completes the parts; `wait` must not be called there.
        finish: Last step, run by the completing thread once all parts have succeeded.
        source: Of a receive: the rank it is from.
    """

    def __init__(
        self,
        parts: Sequence[Future[None]],
        tensors: list[torch.Tensor],
        loop: asyncio.AbstractEventLoop,
        *,
        finish: Callable[[], None] | None = None,
        source: int = -1,
    ) -> None:
        super().__init__()
        self.completion: Future[None] = Future()
        """For asyncio.wrap_future and add_done_callback; cannot be cancelled."""
        self.completion.set_running_or_notify_cancel()
        self._tensors = tensors
        self._loop = loop
        self._finish = finish
        self._source = source
        self._lock = threading.Lock()
        self._missing = len(parts)
        for part in parts:
            part.add_done_callback(self._part_done)

    def _part_done(self, part: Future[None]) -> None:
        error = part.exception()
        with self._lock:
            if not self._missing:
                return
            self._missing = 0 if error else self._missing - 1
            if self._missing:
                return
        if error is None and self._finish is not None:
            try:
                self._finish()
            except Exception as failed:
                error = failed
        if error is None:
            self.completion.set_result(None)
        else:
            self.completion.set_exception(error)

    def wait(self, timeout: timedelta = _NO_TIMEOUT) -> bool:
        """Block until done; zero waits as long as the group's own progress timeout lets it.

        Raises:
            LinkTimeoutError: Not done after `timeout`; the operation goes on.
            LinkError: It failed.
            RuntimeError: Called in the event loop that would have to complete it.
        """
        if not self.completion.done() and in_loop(self._loop):
            raise RuntimeError("wait() in the event loop that moves the bytes would never end: await the link instead")
        seconds = timeout.total_seconds() if timeout > _NO_TIMEOUT else None
        try:
            self.completion.result(seconds)
        except TimeoutError:
            raise LinkTimeoutError(f"not done after {seconds} s; the operation goes on") from None
        finally:
            del self  # else the error would hold this frame, and it the error
        return True

    def is_completed(self) -> bool:
        """Whether it is over, well or not."""
        return self.completion.done()

    def is_success(self) -> bool:
        """Whether it is over and went well."""
        return self.completion.done() and self.completion.exception() is None

    def exception(self) -> BaseException | None:
        """Why it failed, or None while it runs and after success."""
        return self.completion.exception() if self.completion.done() else None

    def result(self) -> list[torch.Tensor]:
        """The tensors of the operation; filled once it is over."""
        return self._tensors

    def source_rank(self) -> int:
        """Of a receive: the rank it is from; else -1."""
        return self._source

    def _source_rank(self) -> int:
        return self._source

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """A future of `result`, or of the LinkError."""
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()

        def pass_on(completion: Future[None]) -> None:
            error = completion.exception()
            if error is None:
                future.set_result(self._tensors)
            else:
                future.set_exception(error)  # type: ignore[arg-type]  # torch's annotation is wrong

        self.completion.add_done_callback(pass_on)
        return future
