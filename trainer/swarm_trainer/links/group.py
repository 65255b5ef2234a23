"""The torch.distributed backend `swarm`: a process group of two ranks over one TCP connection."""

import asyncio
import socket
from collections.abc import Callable

import torch
import torch.distributed as dist

from swarm_trainer.links.base import PARTICLE_RANK, SYNCHRONIZER_RANK
from swarm_trainer.links.frame import check_tensor
from swarm_trainer.links.stream import FramedStream
from swarm_trainer.links.work import SwarmWork

_BROADCAST_TAG, _ALLREDUCE_TAG, _BARRIER_TAG = -1, -2, -3

_REDUCTIONS: dict[object, Callable[[torch.Tensor, torch.Tensor], object]] = {
    dist.ReduceOp.SUM: lambda mine, theirs: mine.add_(theirs),
    dist.ReduceOp.AVG: lambda mine, theirs: mine.add_(theirs).div_(2),
    dist.ReduceOp.PRODUCT: lambda mine, theirs: mine.mul_(theirs),
    dist.ReduceOp.MIN: lambda mine, theirs: torch.minimum(mine, theirs, out=mine),
    dist.ReduceOp.MAX: lambda mine, theirs: torch.maximum(mine, theirs, out=mine),
}


class SwarmProcessGroup(dist.ProcessGroup):
    """Rank 0 is the synchronizer, rank 1 the particle.

    Operations of one direction take place in the order in which they were posted. A peer that is killed, even in
    mid-transfer, fails them within milliseconds; one that is frozen, after `progress_seconds`. A frame that is not
    what the posted receive asked for fails the group, never the process. After its first error a group is used up.
    All errors of the connection are LinkErrors, raised by `Work.wait`.

    Args:
        sock: Connected TCP socket, owned by the group from now on.
        rank: 0 or 1.
        loop: The event loop that moves the bytes; the running one by default.
        progress_seconds: With an operation posted and no byte moved for so long, LinkTimeoutError.
    """

    def __init__(
        self,
        sock: socket.socket,
        rank: int,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        progress_seconds: float = 5.0,
    ) -> None:
        if rank not in (SYNCHRONIZER_RANK, PARTICLE_RANK):
            raise ValueError(f"rank is {rank}: a swarm group has rank 0, the synchronizer, and rank 1, the particle")
        super().__init__(rank, 2)
        self.peer = 1 - rank
        self._stream = FramedStream(sock, loop=loop or asyncio.get_running_loop(), progress_seconds=progress_seconds)

    def name(self) -> str:
        """The backend's name."""
        return "swarm"

    def send(self, tensors: list[torch.Tensor], dstRank: int, tag: int = 0) -> SwarmWork:  # noqa: N803
        """Send one tensor; done when the kernel has all of it, which is before the peer has."""
        self._check_peer(dstRank)
        tensor = _single(tensors)
        return SwarmWork([self._stream.send(tensor, tag)], tensors, self._stream.loop)

    def recv(self, tensors: list[torch.Tensor], srcRank: int, tag: int = 0) -> SwarmWork:  # noqa: N803
        """Receive into one tensor of exactly the dtype, size and tag that the peer sends."""
        self._check_peer(srcRank)
        tensor = _single(tensors)
        return SwarmWork([self._stream.recv(tensor, tag)], tensors, self._stream.loop, source=self.peer)

    def recv_anysource(self, tensors: list[torch.Tensor], tag: int = 0) -> SwarmWork:
        """Receive from the only peer there is."""
        return self.recv(tensors, self.peer, tag)

    def broadcast(  # type: ignore[override]
        self, tensors: list[torch.Tensor], opts: dist.BroadcastOptions | None = None
    ) -> SwarmWork:
        """Send from the root, receive at the other rank."""
        root = opts.rootRank if opts else SYNCHRONIZER_RANK
        move = self._stream.send if root == self.rank() else self._stream.recv
        parts = [move(tensor, _BROADCAST_TAG) for tensor in _checked(tensors)]
        return SwarmWork(parts, tensors, self._stream.loop)

    def allreduce(  # type: ignore[override]
        self, tensors: list[torch.Tensor], opts: dist.AllreduceOptions | None = None
    ) -> SwarmWork:
        """Each side sends its own and reduces what comes, so both get the same bits."""
        asked = opts.reduceOp if opts else dist.ReduceOp.SUM
        reduction = next((apply for operation, apply in _REDUCTIONS.items() if asked == operation), None)
        if reduction is None:
            raise ValueError(f"the swarm backend does not reduce by {asked}: use SUM, AVG, PRODUCT, MIN or MAX")
        theirs = [torch.empty_like(tensor) for tensor in _checked(tensors)]
        parts = [self._stream.send(tensor, _ALLREDUCE_TAG) for tensor in tensors]
        parts += [self._stream.recv(tensor, _ALLREDUCE_TAG) for tensor in theirs]

        def reduce() -> None:
            for mine, other in zip(tensors, theirs, strict=True):
                reduction(mine, other)

        return SwarmWork(parts, tensors, self._stream.loop, finish=reduce)

    def barrier(self, opts: dist.BarrierOptions | None = None) -> SwarmWork:  # type: ignore[override]
        """Done when the peer has come here too."""
        nothing = torch.empty(0)
        parts = [self._stream.send(nothing, _BARRIER_TAG), self._stream.recv(nothing, _BARRIER_TAG)]
        return SwarmWork(parts, [], self._stream.loop)

    @property
    def moved_at(self) -> float:
        """When a byte last moved in either direction, or an operation began on an idle group; monotonic seconds."""
        return self._stream.moved_at

    def close(self) -> None:
        """Fail everything under way with LinkError at once. May be called twice and from any thread."""
        self._stream.close()

    def shutdown(self) -> None:
        """What destroy_process_group calls: close."""
        self.close()

    def abort(self) -> None:
        """Close."""
        self.close()

    def _check_peer(self, rank: int) -> None:
        if rank != self.peer:
            raise ValueError(f"rank {rank} is not the peer: this is rank {self.rank()} of two")


def _checked(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    for tensor in tensors:
        check_tensor(tensor)
    return tensors


def _single(tensors: list[torch.Tensor]) -> torch.Tensor:
    if len(tensors) != 1:
        raise ValueError(f"send and recv take one tensor at a time, not {len(tensors)}")
    return _checked(tensors)[0]
