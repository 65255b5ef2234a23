"""A particle's end for tests, in its own process: `peer.py KIND BEHAVIOUR PORT`."""

import asyncio
import socket
import sys

import torch

from swarm_api.job import Link as LinkKind
from swarm_trainer.links import open_link
from swarm_trainer.links.base import PARTICLE_RANK
from swarm_trainer.links.frame import Header, memory
from swarm_trainer.links.gloo import GlooLink
from swarm_trainer.links.swarm import SwarmLink

BIG = 10_000_000


async def behave(kind: LinkKind, behaviour: str, port: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    link = await open_link(kind, sock, PARTICLE_RANK)
    ones = torch.ones(BIG)
    if behaviour == "receives":
        await link.recv(ones)
    elif behaviour == "sends half":
        await send_half(link, sock, ones)
    await asyncio.sleep(60)


async def send_half(link: object, sock: socket.socket, tensor: torch.Tensor) -> None:
    """Announce all of it, bring half, and go silent."""
    header = Header(tensor.dtype, tensor.numel(), 0, 0)
    half = memory(tensor)[: tensor.nbytes // 2]
    if isinstance(link, SwarmLink):
        await asyncio.get_running_loop().sock_sendall(sock, header.pack() + half)
    elif isinstance(link, GlooLink):
        link._side.announce(header)
        works = [link._group.send([piece], 0, 0) for piece in torch.frombuffer(half, dtype=torch.uint8).split(1 << 20)]
        await asyncio.sleep(60)
        del works  # a gloo operation ends with its handle


if __name__ == "__main__":
    asyncio.run(behave(LinkKind(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
