"""Many particles in one process: they exchange without training, round after round, and say how long it took.

`crowd.py FIRST COUNT STEP ELEMENTS ROUNDS PLAIN PORT`: COUNT particles FIRST, FIRST + STEP, ... push ELEMENTS float32
values each. After every ROUNDS rounds of the swarm each of them exchanges the same bytes PLAIN times with the plain hub
at PORT, over a socket of its own, and that hub says whether to go on. At the end the process prints a line of JSON.
"""

import asyncio
import json
import os
import socket
import sys
import time

import torch

from swarm_trainer.links.frame import HEADER_BYTES, Header, memory
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.auth import Identity, Purpose, introduce
from swarm_trainer.wire.channel import Channel

GO_ON, END = b"g", b"e"


class Crowd:
    """All particles of one process, in one event loop."""

    def __init__(self, first: int, count: int, step: int, elements: int, rounds: int, plain: int, port: int) -> None:
        self._indices = range(first, first + count * step, step)
        self._surroundings = Surroundings.read()
        model = torch.nn.Linear(elements, 1, bias=False)
        self._weights = FlatWeights(model)
        self._x = self._weights.gather().clone()
        assert self._x.numel() == elements, "the flat vector is padded: take a multiple of 64 elements"
        self._rounds = rounds
        self._plain = plain
        self._port = port
        self.swarm_seconds: list[float] = []
        """From the first byte of a push to the last one of its reply."""
        self.plain_seconds: list[float] = []

    async def run(self) -> None:
        """Until the hub says that it is enough."""
        await asyncio.gather(*map(self._particle, self._indices))

    async def _particle(self, index: int) -> None:
        identity = self._surroundings.identity.model_copy(update={"index": index, "instance_uid": f"p{index}"})
        particle = await BareParticle.attach(
            self._surroundings.synchronizer(), identity, self._surroundings.secret, self._weights
        )
        plain = await _dial(("127.0.0.1", self._port))
        heart = asyncio.create_task(particle.beat())
        going = GO_ON
        while going == GO_ON:
            round_ = -1
            while round_ % self._rounds:
                began = time.perf_counter()
                round_ = await particle.exchange(self._x)
                self.swarm_seconds.append(time.perf_counter() - began)
            for _ in range(self._plain):
                began = time.perf_counter()
                await _send(plain, self._x)
                await _recv(plain, particle.room)
                self.plain_seconds.append(time.perf_counter() - began)
            going = await asyncio.get_running_loop().sock_recv(plain, 1)
        heart.cancel()
        plain.close()
        await particle.leave()


class BareParticle:
    """Speaks the protocol over bare sockets, at no more cost than the exchange that it is compared with."""

    def __init__(self, channel: Channel, link: socket.socket, room: torch.Tensor) -> None:
        self._channel = channel
        self._link = link
        self._generation = 0
        self._sequence = self._sent = self._received = 0
        self.room = room

    @classmethod
    async def attach(
        cls, address: tuple[str, int], identity: Identity, secret: bytes, weights: FlatWeights
    ) -> "BareParticle":
        """Come in and be welcomed."""
        channel, second = Channel(await _dial(address)), Channel(await _dial(address))
        await introduce(channel, Purpose.CONTROL, identity, secret)
        await introduce(second, Purpose.LINK, identity, secret)
        x = weights.gather().clone()
        particle = cls(channel, second.release(), torch.empty_like(x))
        await channel.send(say.Attach(model=weights.schema.model_dump(mode="json"), returning=False))
        while not isinstance(message := await particle._hear(), say.Welcome):
            if isinstance(message, say.SendState):
                await channel.send(say.State(tensors=("x",)))
                await particle._send(x)
        particle._generation = message.settings.generation
        if message.tensors:
            await particle._recv()
        return particle

    async def beat(self) -> None:
        """Say every second that it lives."""
        while True:
            await asyncio.sleep(1)
            await self._channel.send(say.Heartbeat(progress=say.Progress()))

    async def answered(self) -> float:
        """Seconds until a heartbeat is answered."""
        began = time.perf_counter()
        await self._channel.send(say.Heartbeat(progress=say.Progress()))
        assert isinstance(await self._hear(), say.Alive)
        return time.perf_counter() - began

    async def exchange(self, x: torch.Tensor) -> int:
        """Push and pull; the round that it was merged in."""
        self._sequence += 1
        push = say.Push(
            sequence=self._sequence,
            generation=self._generation,
            fitness=1.0,
            new_samples=1,
            tensors=("x",),
            progress=say.Progress(),
        )
        await self._channel.send(push)
        await self._send(x)
        while not isinstance(message := await self._hear(), say.Reply):
            assert isinstance(message, say.Alive), message
        assert message.status is say.ReplyStatus.MERGED, message
        await self._recv()
        return message.round

    async def leave(self) -> None:
        """It has finished."""
        await self._channel.send(say.Goodbye(finished=True, progress=say.Progress()))
        self._channel.close()
        self._link.close()

    async def _hear(self) -> say.FromSynchronizerMessage:
        return (await self._channel.recv(say.FromSynchronizer)).root

    async def _send(self, tensor: torch.Tensor) -> None:
        header = Header(tensor.dtype, tensor.numel(), 0, self._sent)
        self._sent += 1
        await asyncio.get_running_loop().sock_sendall(self._link, header.pack())
        await _send(self._link, tensor)

    async def _recv(self) -> None:
        raw = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        await _recv(self._link, raw)
        Header.unpack(memory(raw)).require(Header(self.room.dtype, self.room.numel(), 0, self._received))
        self._received += 1
        await _recv(self._link, self.room)


async def _dial(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


async def _send(sock: socket.socket, tensor: torch.Tensor) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, memory(tensor))


async def _recv(sock: socket.socket, room: torch.Tensor) -> None:
    left = memory(room)
    while left:
        moved = await asyncio.get_running_loop().sock_recv_into(sock, left)
        assert moved, "the other side is gone"
        left = left[moved:]


def main() -> None:
    torch.set_num_threads(1)
    crowd = Crowd(*map(int, sys.argv[1:]))
    asyncio.run(crowd.run())
    result = {"swarm": crowd.swarm_seconds, "plain": crowd.plain_seconds}
    os.write(1, (json.dumps(result) + "\n").encode())


if __name__ == "__main__":
    main()
