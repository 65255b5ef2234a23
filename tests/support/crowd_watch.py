"""A synchronizer and a crowd of particles that do nothing but exchange, and what can be seen of both."""

import select
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.crowd import END, GO_ON
from support.processes import eventually, swarm_of
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync

CROWD = Path(__file__).with_name("crowd.py")


@dataclass(frozen=True, slots=True)
class Seen:
    """What `watch` saw of the synchronizer and of every exchange."""

    rounds: int
    incomplete: int
    """Rounds that were committed without one of the particles."""
    lost: int
    """Particles whose connection ended before they had finished."""
    threads_before: int
    threads: int
    memory: int
    """Bytes by which the synchronizer's peak exceeds what it takes by itself."""
    swarm_seconds: list[float]
    plain_seconds: list[float]


def watch(
    folder: Path,
    particles: int,
    elements: int,
    *,
    seconds: float,
    sync: Sync | None = None,
    processes: int = 2,
    rounds: int = 20,
) -> Seen:
    """Let so many particles exchange for so long, and then end."""
    every_step = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=1)
    with swarm_of(folder, "", replicas=particles, algorithm=every_step, sync=sync or Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        eventually(swarm.report, "a report")
        before = _status(synchronizer.pid)
        hub = Hub(particles, 4 * elements)
        shares = [range(particles)[at::processes] for at in range(processes)]
        crowd = [
            swarm.start(
                f"crowd-{at}",
                [str(CROWD), *map(str, (share.start, len(share), processes, elements, rounds, rounds // 2, hub.port))],
                {env.PARTICLE_INDEX: str(share.start), env.INCARNATION: "1", env.INSTANCE_UID: "crowd"},
            )
            for at, share in enumerate(shares)
        ]
        during = before

        def ended() -> bool:
            return any(process.poll() is not None for process in crowd)

        hub.gather(ended)
        began = time.monotonic()
        while hub.wait(ended):
            during = _status(synchronizer.pid)
            enough = time.monotonic() - began > seconds
            hub.serve(rounds // 2, END if enough else GO_ON)
            if enough:
                break
        hub.close()
        ends = [process.wait() for process in crowd]
        assert ends == [0] * processes, ends
        assert swarm.ended(synchronizer) == 0
        said = [swarm.said(f"crowd-{at}")[-1] for at in range(processes)]
        history = swarm.history("round")
        return Seen(
            rounds=len(history),
            incomplete=sum(len(line["contributors"]) < particles for line in history),
            lost=len(swarm.history("detached")),
            threads_before=before["Threads"],
            threads=during["Threads"],
            memory=1024 * (during["VmHWM"] - before["VmRSS"]),
            swarm_seconds=[value for one in said for value in one["swarm"]],
            plain_seconds=[value for one in said for value in one["plain"]],
        )


def _status(pid: int) -> dict[str, int]:
    """Figures of /proc; memory in KiB."""
    lines = (line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in lines if name in ("VmHWM", "VmRSS", "Threads")}


class Hub:
    """What moving the bytes costs: takes as many from each socket, then sends as many to each. No sums, no words."""

    def __init__(self, crowd: int, nbytes: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=crowd)
        self._crowd = crowd
        self._socks: list[socket.socket] = []
        self._rooms = [memoryview(bytearray(nbytes)) for _ in range(crowd)]

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def gather(self, ended: Callable[[], bool]) -> bool:
        """Whether all particles have dialed, rather than the crowd ended."""
        while len(self._socks) < self._crowd and not ended():
            if select.select([self._server], [], [], 0.2)[0]:
                sock = self._server.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self._socks.append(sock)
        return len(self._socks) == self._crowd

    def wait(self, ended: Callable[[], bool]) -> bool:
        """Whether they have come to exchange, rather than ended."""
        while not ended():
            if select.select([self._socks[0]], [], [], 0.2)[0]:
                return True
        return False

    def serve(self, rounds: int, word: bytes) -> None:
        """So many rounds, then a word to all."""
        for _ in range(rounds):
            self._move(selectors.EVENT_READ, lambda sock, room: sock.recv_into(room))
            self._move(selectors.EVENT_WRITE, lambda sock, room: sock.send(room))
        for sock in self._socks:
            sock.send(word)

    def close(self) -> None:
        for sock in (*self._socks, self._server):
            sock.close()

    def _move(self, event: int, move: Callable[[socket.socket, memoryview], int]) -> None:
        with selectors.DefaultSelector() as selector:
            left = dict(zip(self._socks, self._rooms, strict=True))
            for sock in self._socks:
                selector.register(sock, event)
            while left:
                for key, _ in selector.select():
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    moved = move(sock, left[sock])
                    assert moved, "a particle of the crowd is gone"
                    left[sock] = left[sock][moved:]
                    if not left[sock]:
                        del left[sock]
                        selector.unregister(sock)
