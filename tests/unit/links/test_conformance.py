"""What every link does, whatever carries it."""

import asyncio
import contextlib
import gc
import socket
import time
import weakref

import numpy as np
import pytest
import torch

from swarm_api.job import Link as LinkKind
from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links import open_link
from swarm_trainer.links.base import SYNCHRONIZER_RANK, Link
from unit.links.ends import BIG, KINDS, linked, sockets

pytestmark = pytest.mark.parametrize("kind", KINDS)


def some(numel: int, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return torch.randn(numel).to(dtype)
    return torch.randint(-(2**62), 2**62, (numel,), dtype=dtype)


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(-1).view(torch.uint8), other.view(-1).view(torch.uint8))


async def crosses(sender: Link, receiver: Link, tensor: torch.Tensor) -> bool:
    arrived = torch.zeros_like(tensor)
    await asyncio.gather(sender.send(tensor), receiver.recv(arrived))
    return same_bytes(arrived, tensor)


def test_bytes_arrive_exactly_in_both_directions_at_once(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
                for numel in (0, 1, 1000):
                    tensor = some(numel, dtype)
                    push = crosses(particle, synchronizer, tensor)
                    pull = crosses(synchronizer, particle, tensor.flip(0))
                    assert all(await asyncio.gather(push, pull)), (dtype, numel)
            nan = torch.tensor([float("nan"), -0.0, float("inf")])
            assert await crosses(particle, synchronizer, nan)

    asyncio.run(exchange())


def test_a_big_tensor_of_many_pieces_arrives_in_both_directions_at_once(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            up, down = some(BIG, torch.float32), some(BIG + 1, torch.float32)
            assert all(await asyncio.gather(crosses(particle, synchronizer, up), crosses(synchronizer, particle, down)))

    asyncio.run(exchange())


def test_many_tensors_posted_at_once_arrive_in_order(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            tensors = [torch.full((100 + number,), number) for number in range(50)]
            arrived = [torch.zeros_like(tensor) for tensor in tensors]
            await asyncio.gather(*map(particle.send, tensors), *map(synchronizer.recv, arrived))
            assert all(map(torch.equal, arrived, tensors))

    asyncio.run(exchange())


def test_a_scalar_and_a_matrix_travel_as_their_elements(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            assert await crosses(particle, synchronizer, torch.tensor(3.5, requires_grad=True).detach())
            assert await crosses(particle, synchronizer, torch.randn(3, 4))

    asyncio.run(exchange())


@pytest.mark.parametrize(
    ("sent", "room"),
    [
        (torch.ones(10), torch.zeros(9)),
        (torch.ones(10), torch.zeros(11)),
        (torch.ones(10), torch.zeros(0)),
        (torch.ones(10), torch.zeros(5, dtype=torch.float64)),
        (torch.ones(10, dtype=torch.bfloat16), torch.zeros(10, dtype=torch.float16)),
    ],
    ids=["too small", "too big", "nothing", "same bytes", "same size"],
)
def test_another_size_or_dtype_is_refused_and_not_written(
    kind: LinkKind, sent: torch.Tensor, room: torch.Tensor
) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            sending = asyncio.create_task(particle.send(sent))
            with pytest.raises(LinkError, match=rf"expected frame 0: {room.numel()} x .* the peer sent frame 0: 10 x"):
                await synchronizer.recv(room)
            assert not room.any()
            with contextlib.suppress(LinkError):
                await sending
            for again in (synchronizer.recv(room), particle.recv(room), synchronizer.send(room)):
                with pytest.raises(LinkError):
                    await again

    asyncio.run(exchange())


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.ones(4, 4).t()[:2], "contiguous"),
        (torch.ones(2, dtype=torch.complex64), "does not carry torch.complex64"),
        (torch.ones(2, device="meta"), "CPU"),
    ],
    ids=["strided", "complex", "device"],
)
def test_a_tensor_that_cannot_travel_is_refused_with_the_remedy(
    kind: LinkKind, tensor: torch.Tensor, says: str
) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            with pytest.raises(ValueError, match=says):
                await particle.send(tensor)
            with pytest.raises(ValueError, match=says):
                await particle.recv(tensor)
            assert await crosses(particle, synchronizer, torch.ones(3)), "the link is as good as before"

    asyncio.run(exchange())


def test_close_frees_what_is_under_way_and_may_be_called_again(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, _):
            receiving = asyncio.create_task(synchronizer.recv(torch.zeros(3)))
            sending = asyncio.create_task(synchronizer.send(torch.zeros(BIG)))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            synchronizer.close()
            synchronizer.close()
            for task in (receiving, sending):
                with pytest.raises(LinkError, match="was closed"):
                    await task
            assert time.monotonic() - began < 1
            with pytest.raises(LinkError, match="was closed"):
                await synchronizer.send(torch.zeros(3))

    asyncio.run(exchange())


def test_a_cancelled_transfer_ends_the_link_on_both_sides(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            sending = asyncio.create_task(synchronizer.send(torch.zeros(BIG)))
            await asyncio.sleep(0.05)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            with pytest.raises(LinkError):
                await particle.recv(torch.zeros(BIG))
            with pytest.raises(LinkError):
                await synchronizer.recv(torch.zeros(1))

    asyncio.run(exchange())


def test_a_peer_that_does_not_send_is_a_timeout_after_the_progress_time(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind, progress_seconds=0.3) as (synchronizer, _):
            began = time.monotonic()
            with pytest.raises(LinkTimeoutError):
                await synchronizer.recv(torch.zeros(3))
            assert 0.29 < time.monotonic() - began < 1.5

    asyncio.run(exchange())


def test_what_was_sent_arrives_though_the_sender_closes(kind: LinkKind) -> None:
    async def exchange() -> None:
        async with linked(kind) as (synchronizer, particle):
            tensor, arrived = torch.randn(1000), torch.zeros(1000)

            async def send_and_close() -> None:
                await particle.send(tensor)
                particle.close()

            await asyncio.gather(send_and_close(), synchronizer.recv(arrived))
            assert torch.equal(arrived, tensor)
            with pytest.raises(LinkError):
                await synchronizer.recv(arrived)

    asyncio.run(exchange())


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n", bytes(1000), b"\xff" * 1000])
def test_garbage_is_a_link_error(kind: LinkKind, garbage: bytes) -> None:
    async def receive(sock: socket.socket) -> None:
        link = await open_link(kind, sock, SYNCHRONIZER_RANK, progress_seconds=1)
        await link.recv(torch.zeros(1000))

    async def exchange() -> None:
        with sockets() as (one, other):
            other.send(garbage)
            with pytest.raises(LinkError):
                await receive(one)

    asyncio.run(exchange())


def test_a_peer_that_never_opens_its_end_is_a_timeout(kind: LinkKind) -> None:
    async def receive(sock: socket.socket) -> None:
        link = await open_link(kind, sock, SYNCHRONIZER_RANK, progress_seconds=0.3)
        await link.recv(torch.zeros(3))

    async def exchange() -> None:
        with sockets() as (one, _):
            began = time.monotonic()
            with pytest.raises(LinkTimeoutError):
                await receive(one)
            assert 0.29 < time.monotonic() - began < 1.5
            await asyncio.sleep(0.05)
            assert one.fileno() < 0, "the link has closed its socket"

    asyncio.run(exchange())


def test_a_failed_transfer_holds_on_to_no_tensor(kind: LinkKind) -> None:
    async def fail(link: Link) -> list[weakref.ref[object]]:
        memories = [np.zeros(BIG, np.float32), np.zeros(BIG, np.float32)]
        transfers = [link.recv(torch.from_numpy(memories[0])), link.send(torch.from_numpy(memories[1]))]
        asyncio.get_running_loop().call_later(0.05, link.close)
        for outcome in await asyncio.gather(*transfers, return_exceptions=True):
            assert isinstance(outcome, LinkError)
        return [weakref.ref(memory) for memory in memories]

    async def exchange() -> None:
        async with linked(kind) as (synchronizer, _):
            held = await fail(synchronizer)
            while any(memory() is not None for memory in held):  # noqa: ASYNC110  # gloo's threads let go a little later
                await asyncio.sleep(0.01)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(exchange(), 5))
    finally:
        gc.enable()
