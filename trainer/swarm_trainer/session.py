"""A particle's conversation with its synchronizer, kept up by a thread of its own.

The training thread asks and waits; the session's event loop connects, reconnects, answers heartbeats and moves the
bytes. What the loop has for the training thread goes through one inbox, which the training thread looks into at
every step and while it waits: that is the only moment at which weights may be read.
"""

import asyncio
import contextlib
import logging
import queue
import random
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import torch

from swarm_trainer.errors import LinkError, RefusedError
from swarm_trainer.links import open_link
from swarm_trainer.links.base import PARTICLE_RANK, Link
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.vectors import Tensors, room
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.auth import Purpose, introduce
from swarm_trainer.wire.channel import Channel
from swarm_trainer.wire.transfer import recv_tensors, send_tensors

log = logging.getLogger("swarm.particle")

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 10.0
_FIRST_RETRY, _LAST_RETRY = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The synchronizer asks for the particle's weights."""

    tensors: Future[Tensors]


@dataclass(frozen=True, slots=True)
class _Said:
    """Something the training thread waits for."""

    message: say.Welcome | say.Reply | say.Center
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class _Lost:
    """A connection ended."""

    connection: int


@dataclass(frozen=True, slots=True)
class _Refused:
    """It is over for this particle."""

    error: RefusedError


@dataclass(slots=True)
class _Connection:
    number: int
    channel: Channel
    link: Link
    saying: asyncio.Lock = field(default_factory=asyncio.Lock)
    busy: bool = False
    heard: float = 0.0


class Session:
    """Public methods are for the training thread only."""

    def __init__(self, surroundings: Surroundings, schema: Schema, snapshot: Callable[[], Tensors]) -> None:
        self._surroundings = surroundings
        self._schema = schema
        self._snapshot = snapshot
        self._inbox: queue.SimpleQueue[_Wanted | _Said | _Lost | _Refused] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._connections = 0
        self._connection: _Connection | None = None
        """Set while attached."""
        self._rooms: Tensors = {}
        self._heartbeat_seconds = 1.0
        self._welcomed = False
        self.progress = say.Progress()
        """Kept up to date by the training thread; rides on heartbeats."""
        self.round = 0
        """Last round whose reply was given to the training thread."""
        self._thread = threading.Thread(target=self._run, name="swarm-session", daemon=True)

    def attach(self) -> tuple[say.Welcome, Tensors]:
        """Join the swarm; waits until it is founded.

        Raises:
            RefusedError: The synchronizer will not have this particle.
        """
        self._thread.start()
        while True:
            said = self._wait()
            if said is not None and isinstance(said.message, say.Welcome):
                return said.message, said.tensors

    @property
    def attached(self) -> bool:
        """Whether a synchronizer is there to exchange with."""
        return self._connection is not None

    def at_step(self) -> None:
        """Between two steps: give weights to a synchronizer that asks for them.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        while not self._inbox.empty():
            self._take()

    def wait_attached(self, seconds: float) -> bool:
        """Wait until attached, or for so long."""
        with contextlib.suppress(queue.Empty):
            self._take(timeout=seconds)
        return self.attached

    def exchange(self, push: say.Push, tensors: Mapping[str, torch.Tensor]) -> tuple[say.Reply, Tensors] | None:
        """Push and wait for the reply; None where there is no synchronizer, or none any more.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        connection = self._connection
        if connection is None:
            self.at_step()
            return None
        self._ask(connection, push, tensors)
        while (said := self._wait(connection)) is not None:
            if isinstance(said.message, say.Reply) and said.message.sequence == push.sequence:
                self.round = said.message.round
                return said.message, said.tensors
        return None

    def fetch_center(self) -> Tensors | None:
        """The center as it is now; None where there is no synchronizer."""
        connection = self._connection
        if connection is None:
            return None
        self._ask(connection, say.FetchCenter(), {})
        while (said := self._wait(connection)) is not None:
            if isinstance(said.message, say.Center):
                return said.tensors or None
        return None

    def tell(self, message: say.Metrics | say.Goodbye, *, timeout: float | None = None) -> None:
        """Say something that has no answer; without a synchronizer it is lost. timeout: wait until it is said."""
        connection = self._connection
        if connection is not None:
            said = self._ask(connection, message, {})
            if timeout is not None:
                with contextlib.suppress(TimeoutError, LinkError):
                    said.result(timeout)

    def close(self) -> None:
        """Leave without a word; see `tell` for a goodbye."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(timeout=5.0)

    def _wait(self, connection: _Connection | None = None) -> _Said | None:
        while True:
            item = self._take()
            if isinstance(item, _Said):
                return item
            if isinstance(item, _Lost) and connection is not None and item.connection >= connection.number:
                return None

    def _take(self, timeout: float | None = None) -> _Said | _Lost | None:
        item = self._inbox.get(timeout=timeout)
        match item:
            case _Wanted(tensors):
                tensors.set_result(self._snapshot())
            case _Refused(error):
                raise error
            case _:
                return item
        return None

    def _ask(
        self,
        connection: _Connection,
        message: say.Push | say.FetchCenter | say.Metrics | say.Goodbye,
        tensors: Mapping[str, torch.Tensor],
    ) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self._say(connection, message, tensors), self._loop)

    # From here on: the session's own thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._keep_attached())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    async def _keep_attached(self) -> None:
        retry = _FIRST_RETRY
        while True:
            self._connections += 1
            number = self._connections
            try:
                await self._converse(number)
            except RefusedError as error:
                self._inbox.put(_Refused(error))
                return
            except (LinkError, OSError, TimeoutError) as error:
                log.log(logging.INFO if self._welcomed else logging.DEBUG, "no synchronizer: %s", error)
            finally:
                if self._connection is not None:
                    self._connection, retry = None, _FIRST_RETRY
                    self._inbox.put(_Lost(number))
            # Full jitter, so that a swarm does not come back all at once.
            await asyncio.sleep(random.uniform(0, retry))  # noqa: S311
            retry = min(_LAST_RETRY, retry * 2)

    async def _converse(self, number: int) -> None:
        channel, link = await self._connect()
        connection = _Connection(number, channel, link, heard=self._loop.time())
        heart = self._loop.create_task(self._beat(connection))
        try:
            await channel.send(
                say.Attach(
                    model=self._schema.model_dump(mode="json"),
                    model_hash=self._schema.hash,
                    returning=self._welcomed,
                    round=self.round,
                    progress=self.progress,
                )
            )
            while True:
                await self._hear(connection)
        finally:
            heart.cancel()
            link.close()
            channel.close()

    async def _connect(self) -> tuple[Channel, Link]:
        identity, secret = self._surroundings.identity, self._surroundings.secret
        host, port = self._surroundings.synchronizer()
        async with asyncio.timeout(_CONNECT_SECONDS):
            control = Channel(await _dial(host, port))
            try:
                await introduce(control, Purpose.CONTROL, identity, secret)
                second = Channel(await _dial(host, port))
                kind = await introduce(second, Purpose.LINK, identity, secret)
                return control, await open_link(kind, second.release(), PARTICLE_RANK)
            except BaseException:
                control.close()
                raise

    async def _hear(self, connection: _Connection) -> None:
        message = (await connection.channel.recv(say.FromSynchronizer)).root
        connection.heard = self._loop.time()
        match message:
            case say.SendState():
                wanted: Future[Tensors] = Future()
                self._inbox.put(_Wanted(wanted))
                tensors = await asyncio.wrap_future(wanted)
                await self._say(connection, say.State(tensors=tuple(tensors)), tensors)
            case say.Welcome():
                tensors = await self._receive(connection, message.tensors, keep=True)
                self._heartbeat_seconds = message.settings.sync.heartbeat_seconds
                self._connection = connection
                if not self._welcomed:
                    self._welcomed = True
                    self._inbox.put(_Said(message, tensors))
            case say.Reply():
                self._inbox.put(_Said(message, await self._receive(connection, message.tensors, keep=False)))
            case say.Center():
                self._inbox.put(_Said(message, await self._receive(connection, message.tensors, keep=True)))
            case say.Stop():
                raise RefusedError("Stopped", message.message)
            case say.Alive():
                pass

    async def _receive(self, connection: _Connection, names: tuple[str, ...], *, keep: bool) -> Tensors:
        def room_for(name: str) -> torch.Tensor:
            if keep:
                return room(self._schema, name)
            if name not in self._rooms:
                self._rooms[name] = room(self._schema, name)
            return self._rooms[name]

        connection.busy = True
        try:
            return await recv_tensors(connection.link, names, room_for)
        finally:
            connection.busy = False
            connection.heard = self._loop.time()

    async def _say(
        self, connection: _Connection, message: say.FromParticleMessage, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        try:
            if not tensors:
                await connection.channel.send(message)
                return
            async with connection.saying:
                await connection.channel.send(message)
                await send_tensors(connection.link, tensors)
        except LinkError:
            connection.channel.close()
            raise

    async def _beat(self, connection: _Connection) -> None:
        with contextlib.suppress(LinkError):
            while True:
                await asyncio.sleep(self._heartbeat_seconds)
                silent = self._loop.time() - connection.heard
                if not connection.busy and silent > max(_SILENCE_SECONDS, 3 * self._heartbeat_seconds):
                    log.warning("the synchronizer has been silent for %.0f s; reconnecting", silent)
                    break
                await connection.channel.send(say.Heartbeat(progress=self.progress))
        connection.channel.close()


async def _dial(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = addresses[0]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
