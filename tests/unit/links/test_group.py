"""The swarm backend as a torch.distributed process group."""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from support import nursery
from swarm_api.job import Link as LinkKind
from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.frame import HEADER_BYTES, Header, memory
from swarm_trainer.links.group import SwarmProcessGroup
from unit.links.ends import BIG, linked, sockets

RANK = Path(__file__).with_name("rank.py")


@pytest.fixture
def groups() -> Iterator[tuple[SwarmProcessGroup, SwarmProcessGroup]]:
    """Both ends, moved by a loop in another thread: what a training script sees."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with sockets() as (one, other):
        ends = SwarmProcessGroup(one, 0, loop=loop), SwarmProcessGroup(other, 1, loop=loop)
        yield ends
        for end in ends:
            end.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_works_can_be_waited_for_in_any_thread(groups: tuple[SwarmProcessGroup, SwarmProcessGroup]) -> None:
    zero, one = groups
    tensor, room = torch.randn(BIG), torch.zeros(BIG)
    receiving = zero.recv([room], 1, 7)
    assert not receiving.is_completed()
    assert not receiving.is_success()
    assert receiving.exception() is None
    with pytest.raises(LinkTimeoutError, match="goes on"):
        receiving.wait(timedelta(milliseconds=20))
    sending = one.send([tensor], 0, 7)
    assert sending.wait()
    assert receiving.wait(timedelta(seconds=20))
    assert torch.equal(room, tensor)
    assert receiving.is_success()
    assert receiving.get_future().wait()[0] is room
    assert receiving.result()[0] is room


def test_close_in_one_thread_frees_a_wait_in_another(groups: tuple[SwarmProcessGroup, SwarmProcessGroup]) -> None:
    zero, one = groups
    receiving = zero.recv([torch.zeros(3)], 1)
    freed = threading.Timer(0.05, zero.close)
    freed.start()
    with pytest.raises(LinkError, match="was closed"):
        receiving.wait()
    freed.join()
    assert isinstance(receiving.exception(), LinkError)
    with pytest.raises(LinkError, match="was closed"):
        receiving.get_future().wait()
    with pytest.raises(LinkError, match="peer closed"):
        one.recv([torch.zeros(3)], 0).wait()


def test_another_tag_is_refused(groups: tuple[SwarmProcessGroup, SwarmProcessGroup]) -> None:
    zero, one = groups
    one.send([torch.ones(1)], 0, 4)
    with pytest.raises(LinkError, match="tag 5; the peer sent frame 0: 1 x float32, tag 4"):
        zero.recv([torch.zeros(1)], 1, 5).wait()


def test_a_rank_that_is_not_the_peer_is_refused(groups: tuple[SwarmProcessGroup, SwarmProcessGroup]) -> None:
    zero, _ = groups
    with pytest.raises(ValueError, match="rank 0 is not the peer"):
        zero.send([torch.ones(1)], 0)
    with pytest.raises(ValueError, match="one tensor"):
        zero.send([torch.ones(1), torch.ones(1)], 1)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (dist.ReduceOp.SUM, [4.0, 7.0]),
        (dist.ReduceOp.AVG, [2.0, 3.5]),
        (dist.ReduceOp.PRODUCT, [3.0, 10.0]),
        (dist.ReduceOp.MIN, [1.0, 2.0]),
        (dist.ReduceOp.MAX, [3.0, 5.0]),
    ],
)
def test_allreduce_gives_both_the_same(
    groups: tuple[SwarmProcessGroup, SwarmProcessGroup], operation: dist.ReduceOp, result: list[float]
) -> None:
    options = dist.AllreduceOptions()
    options.reduceOp = operation
    tensors = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 2.0])
    for work in [group.allreduce([tensor], options) for group, tensor in zip(groups, tensors, strict=True)]:
        work.wait()
    assert [tensor.tolist() for tensor in tensors] == [result, result]


def test_what_cannot_be_reduced_is_refused(groups: tuple[SwarmProcessGroup, SwarmProcessGroup]) -> None:
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp.BXOR
    with pytest.raises(ValueError, match=r"does not reduce by .*use SUM"):
        groups[0].allreduce([torch.ones(1)], options)


def test_waiting_in_the_loop_that_moves_the_bytes_is_refused() -> None:
    async def wait() -> None:
        with sockets() as (one, _):
            group = SwarmProcessGroup(one, 0)
            with pytest.raises(RuntimeError, match="await the link instead"):
                group.recv([torch.zeros(1)], 1).wait()
            group.close()

    asyncio.run(wait())


def test_a_loop_that_has_ended_is_an_error_not_a_hang() -> None:
    with sockets() as (one, _):
        loop = asyncio.new_event_loop()
        group = SwarmProcessGroup(one, 0, loop=loop)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        with pytest.raises(LinkError, match="loop of the link has ended"):
            group.recv([torch.zeros(1)], 1).wait()


def test_64_links_of_one_loop_add_no_thread_and_serve_all_at_once() -> None:
    async def serve() -> None:
        before = threads()
        async with contextlib.AsyncExitStack() as stack:
            links = [await stack.enter_async_context(linked(LinkKind.SWARM)) for _ in range(64)]
            rooms = [torch.zeros(50_000) for _ in links]
            pushes = [particle.send(torch.full((50_000,), float(at))) for at, (_, particle) in enumerate(links)]
            pulls = [synchronizer.recv(room) for (synchronizer, _), room in zip(links, rooms, strict=True)]
            await asyncio.gather(*pushes, *pulls)
            assert all(bool((room == at).all()) for at, room in enumerate(rooms))
            assert threads() <= before

    asyncio.run(serve())


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@contextlib.contextmanager
def one_end(
    loop: asyncio.AbstractEventLoop, progress_seconds: float
) -> Iterator[tuple[SwarmProcessGroup, socket.socket]]:
    with sockets() as (one, other):
        group = SwarmProcessGroup(one, 0, loop=loop, progress_seconds=progress_seconds)
        yield group, other
        group.close()


def test_a_trickle_too_thin_to_wake_the_loop_is_progress() -> None:
    async def receive() -> None:
        loop = asyncio.get_running_loop()
        tensor, room = torch.randn(1_000_000), torch.zeros(1_000_000)
        raw = Header(tensor.dtype, tensor.numel(), 0, 0).pack() + memory(tensor)
        with one_end(loop, progress_seconds=0.4) as (group, peer):
            receiving = asyncio.wrap_future(group.recv([room], 1).completion)
            began = time.monotonic()
            while time.monotonic() - began < 1.2:
                await loop.sock_sendall(peer, raw[:1000])
                raw = raw[1000:]
                await asyncio.sleep(0.1)
            await asyncio.gather(loop.sock_sendall(peer, raw), receiving)
        assert torch.equal(room, tensor)

    asyncio.run(receive())


def test_nothing_beyond_the_header_is_read_before_it_is_asked_for() -> None:
    async def receive() -> None:
        loop = asyncio.get_running_loop()
        tensor, room = torch.randn(1000), torch.zeros(1000)
        with one_end(loop, progress_seconds=5) as (group, peer), contextlib.ExitStack() as stack:
            await loop.sock_sendall(peer, Header(tensor.dtype, 1000, 0, 0).pack() + memory(tensor))
            await asyncio.sleep(0.05)
            watcher = stack.enter_context(socket.socket(fileno=os.dup(group._stream._sock.fileno())))
            assert len(watcher.recv(10_000, socket.MSG_PEEK)) == tensor.nbytes
            await asyncio.wrap_future(group.recv([room], 1).completion)
        assert torch.equal(room, tensor)

    asyncio.run(receive())


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (0, b"HTTP", "no frame of the swarm backend"),
        (4, b"\x02", "speaks frame version 2, this side 1"),
        (5, b"\xff", "unknown dtype code 255"),
        (HEADER_BYTES - 8, struct.pack("<Q", 1), "expected frame 0.*sent frame 1"),
        (HEADER_BYTES - 16, struct.pack("<Q", 2**63), "9223372036854775808 x float32"),
    ],
    ids=["magic", "version", "dtype", "sequence", "size"],
)
def test_a_spoilt_header_is_an_error_that_says_what_is_wrong(offset: int, value: bytes, says: str) -> None:
    async def receive() -> None:
        header = bytearray(Header(torch.float32, 1, 0, 0).pack())
        header[offset : offset + len(value)] = value
        with one_end(asyncio.get_running_loop(), progress_seconds=5) as (group, peer):
            peer.send(header + bytes(4))
            with pytest.raises(LinkError, match=says):
                await asyncio.wrap_future(group.recv([torch.zeros(1)], 1).completion)

    asyncio.run(receive())


def test_init_process_group_joins_two_processes(tmp_path: Path) -> None:
    logs = [tmp_path / f"rank{rank}.log" for rank in (0, 1)]
    ranks = [
        nursery.start([str(RANK), str(rank), str(tmp_path / "store")], dict(os.environ), tmp_path, log)
        for rank, log in enumerate(logs)
    ]
    ends = [rank.wait(60) for rank in ranks]
    assert ends == [0, 0], "\n".join(log.read_text() for log in logs)


def test_init_process_group_refuses_another_world_size() -> None:
    with pytest.raises(ValueError, match=r"joins 2 ranks.*not 3: use gloo"):
        dist.init_process_group("swarm", store=dist.HashStore(), rank=0, world_size=3)
    assert not dist.is_initialized()
