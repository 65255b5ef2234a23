"""Frames over one TCP connection, moved by an event loop straight between the socket and tensor memory."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import torch

from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.base import again
from swarm_trainer.links.lanes import Incoming, Lane, Outgoing, Transfer
from swarm_trainer.links.tuning import tune

_TURN = 8 << 20
"""Bytes after which a stream lets the loop go on to the next one."""


class FramedStream:
    """Sends and receives in the order they are posted, both directions at once.

    Any thread may post and close; callbacks of the loop move the bytes, so one loop serves hundreds of streams.
    Nothing beyond the next header is read before a receive is posted: TCP holds the sender back. After the first
    error everything fails with it, now and later, and no tensor is touched any more.

    Args:
        sock: Connected TCP socket, owned from now on.
        loop: The event loop; it is running or will be.
        progress_seconds: With an operation under way and no byte moved either way for so long: LinkTimeoutError.
    """

    def __init__(self, sock: socket.socket, *, loop: asyncio.AbstractEventLoop, progress_seconds: float) -> None:
        tune(sock, progress_seconds)
        self.loop = loop
        self._sock = sock
        # For the loop: it prints a socket, at the cost of two system calls, whenever it does not know it yet.
        self._fd = sock.fileno()
        self._progress_seconds = progress_seconds
        # Held while bytes move: once close() has returned, in any thread, no tensor is written to.
        self._lock = threading.Lock()
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._error: LinkError | None = None
        self.moved_at = time.monotonic()
        """When a byte last moved either way, or something was posted with nothing under way."""
        self._reading = self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._in_loop(self._on_readable)

    def send(self, tensor: torch.Tensor, tag: int) -> Future[None]:
        """Post a checked tensor; done when the kernel has its last byte, and not to be changed before."""
        return self._post(self._outgoing, tensor, tag)

    def recv(self, tensor: torch.Tensor, tag: int) -> Future[None]:
        """Post a checked tensor to be filled by a frame of just this dtype, size and tag."""
        return self._post(self._incoming, tensor, tag)

    def close(self, reason: str = "the link was closed") -> None:
        """Fail everything under way at once. May be called twice and from any thread."""
        with self._lock:
            failed = self._fail(LinkError(reason))
        self._settle([], failed)

    def _post(self, lane: Lane, tensor: torch.Tensor, tag: int) -> Future[None]:
        failed: list[Transfer] = []
        with self._lock:
            if not self._busy:
                self.moved_at = time.monotonic()
            transfer = lane.post(tensor, tag)
            if self._error:
                failed = self._fail(self._error)
        self._settle([], failed)
        try:
            self._in_loop(self._on_writable if lane is self._outgoing else self._on_readable)
        except RuntimeError:
            self.close("the event loop of the link has ended")
        return transfer.done

    def _on_readable(self) -> None:
        self._move(self._incoming)

    def _on_writable(self) -> None:
        self._move(self._outgoing)

    def _move(self, lane: Lane) -> None:
        """One turn of one direction; runs in the loop."""
        finished: list[Transfer] = []
        failed: list[Transfer] = []
        with self._lock:
            if self._error is None:
                try:
                    self._turn(lane, finished)
                    self._watch()
                except LinkError as error:
                    failed = self._fail(error)
                except OSError as error:
                    failed = self._fail(LinkError(f"the connection broke: {error.strerror or error}"))
        self._settle(finished, failed)

    def _turn(self, lane: Lane, finished: list[Transfer]) -> None:
        budget = _TURN
        with contextlib.suppress(BlockingIOError):
            while lane.wanted and budget > 0:
                moved, transfer = lane.step(self._sock)
                self.moved_at = time.monotonic()
                budget -= moved
                if transfer:
                    finished.append(transfer)

    def _watch(self) -> None:
        """Have the loop call back for just what is wanted, and for the lack of progress."""
        if self._incoming.wanted != self._reading:
            self._reading = not self._reading
            if self._reading:
                self.loop.add_reader(self._fd, self._on_readable)
            else:
                self.loop.remove_reader(self._fd)
        if self._outgoing.wanted != self._writing:
            self._writing = not self._writing
            if self._writing:
                self.loop.add_writer(self._fd, self._on_writable)
            else:
                self.loop.remove_writer(self._fd)
        if self._busy and self._timer is None:
            self._timer = self.loop.call_later(self._progress_seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._on_readable()  # bytes too few to wake the loop are progress all the same
        failed: list[Transfer] = []
        with self._lock:
            self._timer = None
            if self._error is None and self._busy:
                left = self.moved_at + self._progress_seconds - time.monotonic()
                if left > 0:
                    self._timer = self.loop.call_later(left, self._on_timer)
                else:
                    failed = self._fail(LinkTimeoutError(f"no byte moved for {self._progress_seconds:g} s"))
        self._settle([], failed)

    @property
    def _busy(self) -> bool:
        return bool(self._outgoing.transfers or self._incoming.transfers)

    def _fail(self, error: LinkError) -> list[Transfer]:
        """Stop for good; what must be settled with the first error."""
        if self._error is None:
            self._error = error.with_traceback(None)
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            try:
                self._in_loop(self._release)
            except RuntimeError:
                self._sock.close()
        lost = [*self._outgoing.transfers, *self._incoming.transfers]
        self._outgoing.transfers.clear()
        self._incoming.transfers.clear()
        return lost

    def _release(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._sock.fileno() >= 0:
            self.loop.remove_reader(self._fd)
            self.loop.remove_writer(self._fd)
            self._sock.close()

    def _settle(self, finished: list[Transfer], failed: list[Transfer]) -> None:
        """Outside the lock, because this runs callbacks of others."""
        for transfer in finished:
            transfer.done.set_result(None)
        for transfer in failed:
            assert self._error
            transfer.done.set_exception(again(self._error))

    def _in_loop(self, call: Callable[[], None]) -> None:
        if in_loop(self.loop):
            call()
        else:
            self.loop.call_soon_threadsafe(call)


def in_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller runs in this event loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
