"""How tensors travel between a particle and the synchronizer: one module for each backend.

Importing this package also registers the backend `swarm` with torch.distributed.
"""

import socket
from typing import Protocol

from swarm_api.job import Link as LinkKind
from swarm_trainer.links import backend
from swarm_trainer.links.base import Link
from swarm_trainer.links.gloo import open_gloo
from swarm_trainer.links.swarm import open_swarm
from swarm_trainer.links.tuning import PROGRESS_SECONDS


class _Opener(Protocol):
    async def __call__(self, sock: socket.socket, rank: int, *, progress_seconds: float) -> Link: ...


_OPENERS: dict[LinkKind, _Opener] = {
    LinkKind.SWARM: open_swarm,
    LinkKind.GLOO: open_gloo,
}

backend.register()


async def open_link(
    kind: LinkKind, sock: socket.socket, rank: int, *, progress_seconds: float = PROGRESS_SECONDS
) -> Link:
    """Make a link of the running event loop; the peer must do the same.

    Args:
        kind: Which backend.
        sock: Connected, authenticated, non-blocking TCP socket from which the whole handshake has been read; owned
            by the link from now on.
        rank: SYNCHRONIZER_RANK or PARTICLE_RANK.
        progress_seconds: A send or receive under way fails when no byte moved for so long.

    Raises:
        LinkError: The peer is gone, or did not come for the rendezvous in time.
    """
    return await _OPENERS[kind](sock, rank, progress_seconds=progress_seconds)
