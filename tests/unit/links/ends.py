"""Both ends of a link: in one event loop, or one of them in another process."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from support import nursery
from swarm_api.job import Link as LinkKind
from swarm_trainer.links import open_link
from swarm_trainer.links.base import PARTICLE_RANK, SYNCHRONIZER_RANK, Link

KINDS = list(LinkKind)
BIG = 10_000_000
"""Elements of a tensor that no socket buffer holds."""
PEER = Path(__file__).with_name("peer.py")


@contextlib.contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


@contextlib.asynccontextmanager
async def linked(kind: LinkKind, progress_seconds: float = 5.0) -> AsyncIterator[tuple[Link, Link]]:
    """The synchronizer's end and the particle's."""
    with sockets() as (one, other):
        ends = await asyncio.gather(
            open_link(kind, one, SYNCHRONIZER_RANK, progress_seconds=progress_seconds),
            open_link(kind, other, PARTICLE_RANK, progress_seconds=progress_seconds),
        )
        try:
            yield ends
        finally:
            for end in ends:
                end.close()
            await asyncio.sleep(0)


class Peer:
    """The particle's end, in a process that does what its script calls `behaviour`, and a link to it."""

    def __init__(self, kind: LinkKind, behaviour: str, folder: Path) -> None:
        self.kind = kind
        self._server = socket.create_server(("127.0.0.1", 0))
        port = self._server.getsockname()[1]
        program = [str(PEER), kind.value, behaviour, str(port)]
        self._log = folder / "peer.log"
        self.process = nursery.start(program, dict(os.environ), folder, self._log)
        self._server.settimeout(30)

    async def link(self, progress_seconds: float = 5.0) -> Link:
        sock, _ = await asyncio.to_thread(self._server.accept)
        sock.setblocking(False)
        return await open_link(self.kind, sock, SYNCHRONIZER_RANK, progress_seconds=progress_seconds)

    def signal(self, number: signal.Signals) -> None:
        self.process.signal(number)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.signal(signal.SIGKILL)
        self.process.wait()
        self._server.close()
        print(self._log.read_text())
