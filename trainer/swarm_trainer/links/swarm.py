"""The link over the `swarm` backend."""

import asyncio
import socket

import torch

from swarm_trainer.links.base import Link
from swarm_trainer.links.group import SwarmProcessGroup
from swarm_trainer.links.work import SwarmWork


class SwarmLink(Link):
    """A Link whose tensors go through a SwarmProcessGroup; belongs to the event loop it was made in.

    Args:
        group: Owned by the link from now on.
    """

    def __init__(self, group: SwarmProcessGroup) -> None:
        self.group = group

    async def send(self, tensor: torch.Tensor) -> None:
        """Send whole; done when the kernel has all of it."""
        await self._completed(self.group.send([tensor], self.group.peer))

    async def recv(self, tensor: torch.Tensor) -> None:
        """Receive whole."""
        await self._completed(self.group.recv([tensor], self.group.peer))

    @property
    def moved_at(self) -> float:
        """As the group has it."""
        return self.group.moved_at

    def close(self) -> None:
        """Close the group; from any thread."""
        self.group.close()

    async def _completed(self, work: SwarmWork) -> None:
        try:
            # Most are over at once: the kernel took all of it, or had it.
            if work.completion.done():
                work.completion.result()
            else:
                await asyncio.wrap_future(work.completion)
        except asyncio.CancelledError:
            # Half a tensor is on its way: the stream cannot be used again.
            self.close()
            raise
        finally:
            del work  # else the error would hold this frame, and it the error


async def open_swarm(sock: socket.socket, rank: int, *, progress_seconds: float) -> SwarmLink:
    """Make the group over a connected socket; nothing is exchanged for it."""
    return SwarmLink(SwarmProcessGroup(sock, rank, progress_seconds=progress_seconds))
