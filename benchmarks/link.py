"""How fast tensors travel: the links beside plain Python sockets, one way and as a star.

Run: python benchmarks/link.py [--rounds N] [--megabytes N] [--write]
One way: a process sends a tensor to another over loopback. Star: four processes push a tensor each, a hub adds them
up and sends the sum back to all. Everything in interleaved rounds; quartiles in brackets. Bars: swarm at 0.85 of the
plain socket and ahead of gloo; a star over swarm links within 1.2 times the time of the better hub of raw sockets.
"""

import argparse
import asyncio
import multiprocessing as mp
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import torch
from _results import may_write, publish
from _timing import Taken, interleaved, table

from swarm_api.job import Link as LinkKind
from swarm_trainer.links import open_link
from swarm_trainer.links.base import PARTICLE_RANK, SYNCHRONIZER_RANK, Link

PARTICLES = 4
PLAIN, SWARM, GLOO = "plain socket", "swarm", "gloo"
THREADS, SELECTOR = "sockets, a thread each", "sockets, one selector"
RESULT = "link.md"


def memory(tensor: torch.Tensor) -> memoryview:
    return tensor.view(torch.uint8).numpy().data


def recv_all(sock: socket.socket, room: memoryview) -> None:
    while room:
        room = room[sock.recv_into(room) :]


def particle(port: int, conn: Connection, elements: int) -> None:
    """A process that does with its tensor what it is told, over the connection it is told."""
    torch.set_num_threads(1)
    tensor = torch.ones(elements)
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with asyncio.Runner() as runner:
        links = {
            name: runner.run(opened(kind, socket.create_connection(("127.0.0.1", port)), PARTICLE_RANK))
            for name, kind in ((SWARM, LinkKind.SWARM), (GLOO, LinkKind.GLOO))
        }
        for action, name in iter(conn.recv, None):
            began = time.process_time()
            steps = {"push": ("send",), "push and pull": ("send", "recv")}[action]
            for step in steps:
                if name in links:
                    runner.run(getattr(links[name], step)(tensor))
                elif step == "send":
                    plain.sendall(memory(tensor))
                else:
                    recv_all(plain, memory(tensor))
            conn.send(time.process_time() - began)
        for link in links.values():
            link.close()


async def opened(kind: LinkKind, sock: socket.socket, rank: int) -> Link:
    sock.setblocking(False)
    return await open_link(kind, sock, rank, progress_seconds=60)


class Particles:
    """Processes, and the hub's ends of the connections to them."""

    def __init__(self, count: int, elements: int, runner: asyncio.Runner) -> None:
        context = mp.get_context("spawn")
        self.plain: list[socket.socket] = []
        self.links: dict[str, list[Link]] = {SWARM: [], GLOO: []}
        self.conns: list[Connection] = []
        self.processes = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(count):
                conn, other = context.Pipe()
                process = context.Process(target=particle, args=(server.getsockname()[1], other, elements))
                process.start()
                self.processes.append(process)
                self.conns.append(conn)
                sock = server.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.plain.append(sock)
                for name, kind in ((SWARM, LinkKind.SWARM), (GLOO, LinkKind.GLOO)):
                    self.links[name].append(runner.run(opened(kind, server.accept()[0], SYNCHRONIZER_RANK)))

    def timed(self, action: str, name: str, ours: Callable[[], object]) -> Taken:
        """From the word to the particles until they and we are done."""
        began, began_cpu = time.perf_counter(), time.process_time()
        for conn in self.conns:
            conn.send((action, name))
        ours()
        theirs = sum(conn.recv() for conn in self.conns)
        return Taken(time.perf_counter() - began, time.process_time() - began_cpu + theirs)

    def end(self) -> None:
        """Let all processes finish."""
        for conn in self.conns:
            conn.send(None)
        for process in self.processes:
            process.join()
        for link in (*self.links[SWARM], *self.links[GLOO]):
            link.close()
        for sock in self.plain:
            sock.close()


def one_way(elements: int, rounds: int) -> dict[str, list[Taken]]:
    room = torch.zeros(elements)
    with asyncio.Runner() as runner:
        sender = Particles(1, elements, runner)

        def over(name: str) -> Callable[[], Taken]:
            (link,) = sender.links[name]
            return lambda: sender.timed("push", name, lambda: runner.run(link.recv(room)))

        (plain,) = sender.plain
        contenders = {
            PLAIN: lambda: sender.timed("push", PLAIN, lambda: recv_all(plain, memory(room))),
            SWARM: over(SWARM),
            GLOO: over(GLOO),
        }
        taken = interleaved(contenders, rounds)
        sender.end()
    return taken


class Sum:
    """The center of a star: pushes are added in a thread of their own while others still arrive."""

    def __init__(self, elements: int) -> None:
        self.pushes = [torch.zeros(elements) for _ in range(PARTICLES)]
        self.center = torch.zeros(elements)
        self.adder = ThreadPoolExecutor(1)
        self.added = 0

    def add(self, index: int) -> None:
        """Add one push; the first of a round starts the sum anew."""
        if self.added % PARTICLES:
            self.center.add_(self.pushes[index])
        else:
            self.center.copy_(self.pushes[index])
        self.added += 1


def threaded_round(socks: Sequence[socket.socket], pool: ThreadPoolExecutor, total: Sum) -> None:
    def receive(index: int) -> None:
        recv_all(socks[index], memory(total.pushes[index]))
        total.adder.submit(total.add, index).result()

    list(pool.map(receive, range(PARTICLES)))
    list(pool.map(lambda sock: sock.sendall(memory(total.center)), socks))


def selector_round(socks: Sequence[socket.socket], total: Sum) -> None:
    adding = []
    with selectors.DefaultSelector() as selector:
        rooms = {}
        for index, sock in enumerate(socks):
            sock.setblocking(False)
            rooms[index] = memory(total.pushes[index])
            selector.register(sock, selectors.EVENT_READ, index)
        while rooms:
            for key, _ in selector.select():
                rooms[key.data] = rooms[key.data][socks[key.data].recv_into(rooms[key.data]) :]
                if not rooms[key.data]:
                    del rooms[key.data]
                    selector.unregister(key.fileobj)
                    adding.append(total.adder.submit(total.add, key.data))
    for future in adding:
        future.result()
    with selectors.DefaultSelector() as selector:
        left = {}
        for index, sock in enumerate(socks):
            left[index] = memory(total.center)
            selector.register(sock, selectors.EVENT_WRITE, index)
        while left:
            for key, _ in selector.select():
                left[key.data] = left[key.data][socks[key.data].send(left[key.data]) :]
                if not left[key.data]:
                    del left[key.data]
                    selector.unregister(key.fileobj)
                    socks[key.data].setblocking(True)


async def link_round(links: Sequence[Link], total: Sum) -> None:
    loop = asyncio.get_running_loop()

    async def receive(index: int) -> None:
        await links[index].recv(total.pushes[index])
        await loop.run_in_executor(total.adder, total.add, index)

    await asyncio.gather(*map(receive, range(PARTICLES)))
    await asyncio.gather(*(link.send(total.center) for link in links))


def star(elements: int, rounds: int) -> dict[str, list[Taken]]:
    total = Sum(elements)
    with asyncio.Runner() as runner, ThreadPoolExecutor(PARTICLES) as pool:
        particles = Particles(PARTICLES, elements, runner)

        def measure(name: str, ours: Callable[[], object]) -> Callable[[], Taken]:
            return lambda: particles.timed("push and pull", name, ours)

        contenders = {
            THREADS: measure(THREADS, lambda: threaded_round(particles.plain, pool, total)),
            SELECTOR: measure(SELECTOR, lambda: selector_round(particles.plain, total)),
            SWARM: measure(SWARM, lambda: runner.run(link_round(particles.links[SWARM], total))),
            GLOO: measure(GLOO, lambda: runner.run(link_round(particles.links[GLOO], total))),
        }
        taken = interleaved(contenders, rounds)
        particles.end()
        total.adder.shutdown()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--megabytes", type=int, default=100)
    may_write(parser, RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    elements = arguments.megabytes * 1_000_000 // 4
    moved = 4 * elements
    tables = [
        table(f"{arguments.megabytes} MB one way", one_way(elements, arguments.rounds), moved, PLAIN),
        table(
            f"star: {PARTICLES} x {arguments.megabytes} MB pushed, summed, pulled",
            star(elements, arguments.rounds),
            2 * PARTICLES * moved,
            THREADS,
        ),
    ]
    how = f"`python benchmarks/link.py`, torch {torch.__version__}, {os.cpu_count()} cores, loopback."
    publish(RESULT, "Speed of the links", how, *tables, write=arguments.write)


if __name__ == "__main__":
    main()
