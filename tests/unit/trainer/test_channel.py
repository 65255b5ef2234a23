"""JSON behind its length: what a channel takes, and what it refuses."""

import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import BaseModel

from support.processes import some_settings
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_trainer.errors import LinkError
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.channel import HANDSHAKE_LIMIT, MESSAGE_LIMIT, Channel
from swarm_trainer.wire.units import Span, Stream, Units


class Text(BaseModel):
    text: str


@asynccontextmanager
async def a_channel() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket at its other end."""
    here, there = socket.socketpair()
    there.setblocking(False)
    channel = Channel(here)
    try:
        yield channel, there
    finally:
        channel.close()
        there.close()
        await asyncio.sleep(0)


def framed(body: bytes, length: int | None = None) -> bytes:
    return struct.pack("!I", len(body) if length is None else length) + body


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (framed(b"", HANDSHAKE_LIMIT + 1), "4097 bytes exceeds the limit of 4096"),
        (framed(b"", 2**32 - 1), "exceeds the limit"),
        (b"GET / HTTP/1.1\r\n\r\n", "exceeds the limit"),
        (framed(b"not json"), "not a Text"),
        (framed(b"\xff\xfe\x00"), "not a Text"),
        (framed(b'{"other": 1}'), "not a Text"),
        (framed(b"[" * 4000), "not a Text"),
        (framed(b""), "not a Text"),
        (framed(b'{"text"', 100), "closed the connection"),
        (b"\0\0", "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_no_message_is_a_link_error(sent: bytes, complaint: str) -> None:
    async def hear() -> None:
        async with a_channel() as (channel, other):
            other.send(sent)
            other.shutdown(socket.SHUT_WR)
            with pytest.raises(LinkError, match=complaint):
                await channel.recv(Text)

    asyncio.run(hear())


def test_a_message_may_come_byte_by_byte_and_be_as_long_as_the_limit() -> None:
    text = Text(text="x" * (HANDSHAKE_LIMIT - len('{"text":""}')))

    async def hear() -> None:
        async with a_channel() as (channel, other):
            hearing = asyncio.create_task(channel.recv(Text))
            for byte in framed(text.model_dump_json().encode()):
                other.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await hearing == text

    asyncio.run(hear())


def test_long_messages_sent_at_once_do_not_mix() -> None:
    texts = [Text(text=str(number) * 2_000_000) for number in range(3)]

    async def talk() -> None:
        async with a_channel() as (channel, other):
            peer = Channel(other)
            peer.limit = MESSAGE_LIMIT
            sending = [asyncio.create_task(channel.send(text)) for text in texts]
            assert [await peer.recv(Text) for _ in texts] == texts
            await asyncio.gather(*sending)

    asyncio.run(talk())


def test_closing_wakes_whoever_listens_and_fails_whoever_speaks() -> None:
    async def close() -> None:
        async with a_channel() as (channel, _):
            hearing = asyncio.create_task(channel.recv(Text))
            await asyncio.sleep(0)
            channel.close()
            channel.close()
            with pytest.raises(LinkError):
                await hearing
            with pytest.raises(LinkError):
                await channel.send(Text(text="too late"))

    asyncio.run(close())


SETTINGS = some_settings(algorithm=Algorithm(name=AlgorithmName.PSOPS))
PROGRESS = say.Progress(step=3, samples=96, epoch=1, fraction=0.25)

FROM_PARTICLE = [
    say.Attach(model={"entries": []}, returning=True, round=4, pending=7, progress=PROGRESS),
    say.State(tensors=("x",)),
    say.Push(sequence=1, generation=1, fitness=None, progress=PROGRESS),
    say.Push(
        sequence=2,
        generation=1,
        fitness=math.inf,
        standard_error=math.inf,
        numbers={"loss": 0.1},
        tensors=("x",),
        progress=PROGRESS,
    ),
    say.Release(units=(Units(stream=Stream(1, 0, 8), spans=(Span(1, 8, 2),)),)),
    say.FetchCenter(),
    say.Heartbeat(progress=PROGRESS),
    say.Metrics(of="center", values={"accuracy": 0.5, "loss": -math.inf}),
    say.Goodbye(finished=True, progress=PROGRESS),
]
REPLY = say.Reply(sequence=7, status=say.ReplyStatus.MERGED, round=4, leader=1, replicas=4, tensors=("x",))
FROM_SYNCHRONIZER = [
    say.SendState(),
    say.Welcome(action=say.Action.ADOPT, tensors=("x",), settings=SETTINGS, round=3, leader=0, progress=PROGRESS),
    say.Welcome(action=say.Action.KEEP, settings=SETTINGS, reply=REPLY, round=3, leader=0, progress=PROGRESS),
    say.Reply(sequence=2, status=say.ReplyStatus.HELD, round=4, leader=1, replicas=4, settings=SETTINGS),
    say.Reply(sequence=2, status=say.ReplyStatus.MERGED, round=4, leader=1, replicas=4, numbers={"draw": 2.0**53 - 1}),
    say.Center(round=4, tensors=("x", "buffers")),
    say.Alive(),
    say.Farewell(),
    say.Stop(message="no"),
]


@pytest.mark.parametrize("message", FROM_PARTICLE + FROM_SYNCHRONIZER, ids=lambda message: type(message).__name__)
def test_every_message_arrives_as_it_was_sent(message: BaseModel) -> None:
    anything = say.FromParticle if message in FROM_PARTICLE else say.FromSynchronizer

    async def talk() -> BaseModel:
        async with a_channel() as (channel, other):
            await channel.send(message)
            heard = await Channel(other).recv(anything)
            assert isinstance(heard, say.FromParticle | say.FromSynchronizer)
            return heard.root

    assert asyncio.run(talk()) == message


def test_a_fitness_that_is_no_number_arrives_as_such() -> None:
    body = say.Push(sequence=1, generation=1, fitness=math.nan, progress=PROGRESS).model_dump_json()
    heard = say.FromParticle.model_validate(json.loads(body)).root
    assert isinstance(heard, say.Push)
    assert heard.fitness is not None
    assert math.isnan(heard.fitness)
