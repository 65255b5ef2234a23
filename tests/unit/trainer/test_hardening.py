"""What strangers, broken particles and big models do to a synchronizer and to the particles that are well: nothing."""

import asyncio
import contextlib
import dataclasses
import socket
import statistics
import struct
import time
from collections.abc import Awaitable, Callable

import pytest
import torch
from torch import nn

from swarm_api.job import Link as LinkKind
from swarm_api.job import Sync
from swarm_api.report import Presence
from swarm_trainer.connection import Connection, connect
from swarm_trainer.errors import LinkError
from swarm_trainer.links.frame import Header
from swarm_trainer.links.swarm import SwarmLink
from swarm_trainer.synchronizer.door import Door
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.vectors import INTEGERS, Tensors, X, room
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.auth import Identity, Purpose, Terms, introduce
from swarm_trainer.wire.channel import MESSAGE_LIMIT, Channel
from unit.trainer.in_process import World, a_push

SECRET = b"the job's secret"
ME = Identity(job_uid="job", index=0, incarnation=1, instance_uid="a")
AT_ONCE = 256
"""Connections that have not proved themselves yet."""


def test_a_flood_of_strangers_is_put_out_in_seconds_and_keeps_nobody_out() -> None:
    entered: list[Peer] = []

    async def visit() -> None:
        async def welcome(peer: Peer) -> None:
            entered.append(peer)

        door = Door(job_uid="job", secret=SECRET, epoch=1, link=LinkKind.SWARM, welcome=welcome, known={})
        host, port = door.listen("127.0.0.1", 0)
        serving = asyncio.create_task(door.serve())
        strangers = [await asyncio.open_connection(host, port) for _ in range(AT_ONCE + 20)]
        for number, (_, writer) in enumerate(strangers):
            writer.write((b"", b"\0", b"\0\0\0\x40{", b"GET / HTTP/1.0\r\n\r\n")[number % 4])
        async with asyncio.timeout(20):  # One stranger after the other would take minutes.
            channel = Channel(socket.create_connection((host, port)))
            coming = asyncio.create_task(introduce(channel, Purpose.CONTROL, ME, SECRET))
            while not coming.done():
                assert len(door._tasks) <= AT_ONCE
                await asyncio.sleep(0.01)
            assert await coming == Terms(LinkKind.SWARM, 1)
            for reader, _ in strangers:
                assert await reader.read() == b""
        channel.close()
        for _, writer in strangers:
            writer.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(visit())
    assert not entered


def test_a_particle_with_another_secret_stays_outside_and_harms_nobody(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = world.particles(1)
    stranger = dataclasses.replace(world.surroundings(0, incarnation=2), secret=b"another")
    with pytest.raises(LinkError, match="does not hold the job's secret"):
        synchronizer.run(connect(stranger, least_epoch=0))
    assert particle.push(1.0)[0].status is say.ReplyStatus.MERGED


async def announces_a_vector_that_is_none(broken: Connection, tensors: Tensors) -> None:
    tensors = {**tensors, "y": tensors[X]}
    await broken.say(a_push(1, tensors), tensors)


async def announces_a_vector_many_times(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors).model_copy(update={"tensors": (X,) * 1000}))


async def forgets_a_vector(broken: Connection, tensors: Tensors) -> None:
    del tensors[X]
    await broken.say(a_push(1, tensors), tensors)


async def brings_too_much(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors), {**tensors, X: torch.zeros(tensors[X].numel() + 1)})


async def brings_another_dtype(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors), {**tensors, X: tensors[X].double()})


async def brings_garbage(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors))
    await on_the_link(broken, b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n" * 10)


async def brings_half_and_hangs_up(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors))
    await on_the_link(broken, Header(torch.float32, tensors[X].numel(), 0, 0).pack() + bytes(4))
    broken._link.close()


async def brings_half_and_falls_silent(broken: Connection, tensors: Tensors) -> None:
    await broken.say(a_push(1, tensors))
    await on_the_link(broken, Header(torch.float32, tensors[X].numel(), 0, 0).pack() + bytes(4))


async def attaches_again(broken: Connection, tensors: Tensors) -> None:
    await broken.say(say.Attach(model={}, returning=False))


async def sends_weights_that_nobody_asked_for(broken: Connection, tensors: Tensors) -> None:
    await broken.say(say.State(tensors=tuple(tensors)), tensors)


async def says_what_is_no_message(broken: Connection, tensors: Tensors) -> None:
    await on_the_channel(broken, struct.pack("!I", 9) + b'{"kind":"')


async def says_too_much(broken: Connection, tensors: Tensors) -> None:
    await on_the_channel(broken, struct.pack("!I", MESSAGE_LIMIT + 1))


async def on_the_channel(broken: Connection, raw: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(broken._channel._sock, raw)


async def on_the_link(broken: Connection, raw: bytes) -> None:
    assert isinstance(broken._link, SwarmLink)
    await asyncio.get_running_loop().sock_sendall(broken._link.group._stream._sock, raw)


WAYS: list[Callable[[Connection, Tensors], Awaitable[None]]] = [
    announces_a_vector_that_is_none,
    announces_a_vector_many_times,
    forgets_a_vector,
    brings_too_much,
    brings_another_dtype,
    brings_garbage,
    brings_half_and_hangs_up,
    brings_half_and_falls_silent,
    attaches_again,
    sends_weights_that_nobody_asked_for,
    says_what_is_no_message,
    says_too_much,
]


def test_a_broken_particle_loses_its_connection_and_the_others_go_on(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, sync=Sync(grace_milliseconds=100))
    (particle,) = world.particles(1)

    async def welcomed(index: int) -> Connection:
        broken = await synchronizer.bare(world.surroundings(index), particle.schema)
        welcome = await broken.hear()
        assert isinstance(welcome, say.Welcome)
        await broken.take(welcome.tensors, lambda name: room(particle.schema, name))
        return broken

    async def behave(way: Callable[[Connection, Tensors], Awaitable[None]], broken: Connection) -> None:
        with contextlib.suppress(LinkError):  # It may be cut off while it speaks.
            await way(broken, particle.constant(9.0))

    async def listen(broken: Connection) -> None:
        while True:
            await broken.hear()

    broken = [synchronizer.run(welcomed(index)) for index, _ in enumerate(WAYS, 1)]
    for way, connection in zip(WAYS, broken, strict=True):
        synchronizer.run(behave(way, connection))
        assert particle.push(1.0)[0].status is say.ReplyStatus.MERGED, way
    for index, connection in enumerate(broken, 1):
        with pytest.raises(LinkError):
            synchronizer.run(listen(connection))
        synchronizer.until_presence(index, Presence.DETACHED)
    assert particle.push(2.0)[0].status is say.ReplyStatus.MERGED
    assert {float(vector[0]) for name, vector in synchronizer.center().items() if name != INTEGERS} == {2.0}


def test_both_ends_of_both_connections_notice_a_node_that_is_gone_without_a_word(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = world.particles(1)
    mine, theirs = particle.conversation.connection, synchronizer.hub._swarm.peers[0]
    assert mine is not None
    for end in (mine, theirs):
        assert isinstance(end._link, SwarmLink)
        for sock in (end._channel._sock, end._link.group._stream._sock):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


def test_heartbeats_are_answered_while_big_models_are_received_and_merged(world: World) -> None:
    def big() -> nn.Module:
        return nn.Sequential(nn.Linear(1600, 1600), nn.BatchNorm1d(1))  # 10 MB

    synchronizer = world.synchronizer(replicas=8, sync=Sync())
    particles = world.particles(8, big)
    beating = synchronizer.run(synchronizer.bare(world.surroundings(8), particles[0].schema))

    async def beat() -> float:
        began = time.monotonic()
        await beating.say(say.Heartbeat(progress=say.Progress()))
        assert isinstance(await beating.hear(), say.Alive)
        return time.monotonic() - began

    welcome = synchronizer.run(beating.hear())
    assert isinstance(welcome, say.Welcome)
    synchronizer.run(beating.take(welcome.tensors, lambda name: room(particles[0].schema, name)))
    taken = []
    for _ in range(4):
        going = [particle.pushing(1.0) for particle in particles]
        while not all(push.done() for push in going):
            taken.append(synchronizer.run(beat()))
        assert {push.result()[0].status for push in going} == {say.ReplyStatus.MERGED}
    assert statistics.median(taken) < 0.1
