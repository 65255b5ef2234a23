"""How tensors travel between a particle and the synchronizer: one module for each backend."""

import socket

from swarm_api.job import Link as LinkKind

from swarm_trainer.links.base import Link
from swarm_trainer.links.swarm import open_swarm


async def open_link(kind: LinkKind, sock: socket.socket, rank: int, *, progress_seconds: float = 5.0) -> Link:
    return await open_swarm(sock, rank, progress_seconds=progress_seconds)
