"""The link over stock torch.distributed gloo, guarded against what gloo does when a peer dies or disagrees."""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.base import Link, again
from swarm_trainer.links.frame import Header, check_tensor
from swarm_trainer.links.side_channel import SideChannel
from swarm_trainer.links.tuning import tune

_PIECE = 1 << 20
"""Bytes of one gloo operation: gloo's timeout bounds one operation, so pieces make it a bound on progress."""
_TAG, _NEVER_SENT_TAG = 0, 1

# gloo only waits by blocking. A peer that hangs costs one of these threads until the progress time is over.
_waiters = ThreadPoolExecutor(16, thread_name_prefix="gloo-wait")
_closer = ThreadPoolExecutor(1, thread_name_prefix="gloo-close")
_T = TypeVar("_T")


class GlooLink(Link):
    """A Link whose tensors go through a ProcessGroupGloo of two ranks.

    Each tensor is announced on the side channel first, since gloo aborts the process when a message is larger than
    the tensor it is received into; and acknowledged, so that what was sent has arrived. The end of the peer's side
    channel frees whoever waits here at once.

    What stays, because gloo has no cancel: a thread that waits for a piece that was on its way when the peer died
    is free only after `progress_seconds`; each link has one thread inside gloo; and gloo opens a second connection,
    to a port of its own choice.

    Args:
        group: Used by nobody else.
        side: The words beside it.
        progress_seconds: The timeout the group was made with.
    """

    def __init__(self, group: dist.ProcessGroup, side: SideChannel, progress_seconds: float) -> None:
        self._group: dist.ProcessGroup | None = group
        self._peer = 1 - group.rank()
        self._side = side
        self._progress_seconds = progress_seconds
        self._moved_at = time.monotonic()
        self._sending, self._receiving = asyncio.Lock(), asyncio.Lock()
        self._sent = self._expected = 0
        side.ended.add_done_callback(self._release)

    async def send(self, tensor: torch.Tensor) -> None:
        """Send whole; done when the peer has it."""
        check_tensor(tensor)
        async with self._sending:
            with self._used_up_on_error():
                group = self._usable()
                self._side.announce(Header(tensor.dtype, tensor.numel(), _TAG, self._sent))
                self._sent += 1
                await self._move(group.send, tensor)
                await self._hear(self._side.received)

    async def recv(self, tensor: torch.Tensor) -> None:
        """Receive whole."""
        check_tensor(tensor)
        async with self._receiving:
            with self._used_up_on_error():
                group = self._usable()
                announced = await self._hear(self._side.announced)
                announced.require(Header(tensor.dtype, tensor.numel(), _TAG, self._expected))
                self._expected += 1
                await self._move(group.recv, tensor)
                self._side.acknowledge()

    @property
    def moved_at(self) -> float:
        """As in Link; gloo tells of whole pieces."""
        return self._moved_at

    def close(self) -> None:
        """In the link's event loop: cancel what is posted. gloo may still write to a tensor for some milliseconds."""
        self._side.end(LinkError("the link was closed"))

    def _usable(self) -> dist.ProcessGroup:
        if self._group is None or self._side.ended.done():
            raise again(self._side.ended.result())
        return self._group

    async def _hear(self, words: asyncio.Queue[_T]) -> _T:
        """The next word of the peer, waited for while pieces move in the other direction."""
        self._moved_at = time.monotonic()
        return await self._side.unless_ended(
            words.get(), lambda: self._moved_at + self._progress_seconds - time.monotonic()
        )

    async def _move(self, operation: Callable[[list[torch.Tensor], int, int], dist.Work], tensor: torch.Tensor) -> None:
        pieces = tensor.detach().view(-1).view(torch.uint8).split(_PIECE)  # type: ignore[no-untyped-call]
        loop = asyncio.get_running_loop()
        failure = await self._side.unless_ended(loop.run_in_executor(_waiters, self._wait_for, operation, pieces))
        if failure:
            raise again(failure)

    def _wait_for(
        self, operation: Callable[[list[torch.Tensor], int, int], dist.Work], pieces: tuple[torch.Tensor, ...]
    ) -> LinkError | None:
        """Post all pieces and wait for one after the other; returns an error rather than the traceback of one."""
        self._moved_at = time.monotonic()
        try:
            for work in [operation([piece], self._peer, _TAG) for piece in pieces]:
                work.wait()
                self._moved_at = time.monotonic()
        except RuntimeError as error:
            if time.monotonic() - self._moved_at >= self._progress_seconds:
                return LinkTimeoutError(f"no byte moved for {self._progress_seconds:g} s")
            return LinkError(f"gloo: {str(error).splitlines()[0]}")
        return None

    @contextlib.contextmanager
    def _used_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except LinkError as error:
            self._side.end(error)
            raise
        except asyncio.CancelledError:
            self.close()
            raise

    def _release(self, ended: asyncio.Future[LinkError]) -> None:
        if self._group is not None:
            _closer.submit(_cut, self._group, self._peer)
            self._group = None


def _cut(group: dist.ProcessGroup, peer: int) -> None:
    """Cancel what is posted: gloo closes a pair when any of its operations runs into a timeout."""
    with contextlib.suppress(RuntimeError):
        group.recv([torch.empty(1, dtype=torch.uint8)], peer, _NEVER_SENT_TAG).wait(timedelta(milliseconds=1))


async def open_gloo(sock: socket.socket, rank: int, *, progress_seconds: float) -> GlooLink:
    """Make the group; both sides must do so within `progress_seconds`.

    Raises:
        LinkError: The peer is gone or did not come.
    """
    tune(sock, progress_seconds)
    host = sock.getsockname()[0]
    side = SideChannel(*await asyncio.open_connection(sock=sock), progress_seconds)
    making = asyncio.get_running_loop().run_in_executor(_waiters, _make_group, side.store, rank, host, progress_seconds)
    try:
        group = await side.unless_ended(making)
    except asyncio.CancelledError:
        side.end(LinkError("the link was given up while it was made"))
        raise
    except LinkError as error:
        side.end(error)
        raise
    except RuntimeError as error:
        failure = LinkError(f"gloo: {str(error).splitlines()[0]}")
        side.end(failure)
        raise failure from None
    return GlooLink(group, side, progress_seconds)


def _make_group(store: Store, rank: int, host: str, progress_seconds: float) -> dist.ProcessGroup:
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = timedelta(seconds=progress_seconds)
    options._threads = 1
    options._devices = [_device(host)]
    gloo = dist.ProcessGroupGloo(store, rank, 2, options)
    group = dist.ProcessGroup(store, rank, 2)
    group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
    group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, gloo)
    return group


@functools.cache
def _device(host: str) -> dist.ProcessGroupGloo.Device:
    """One for all links of this process at one of its addresses: a device is a listener and a thread."""
    return dist.ProcessGroupGloo.create_device(hostname=host)
