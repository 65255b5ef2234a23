"""A particle's conversation with its synchronizer, kept up by a thread of its own.

The training thread asks and waits; the session's event loop connects, reconnects, answers heartbeats and moves the
bytes. What the loop has for the training thread goes through its inbox.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import TypeVar

import torch

from swarm_trainer.connection import Connection, connect
from swarm_trainer.errors import LinkError, RefusedError
from swarm_trainer.inbox import Inbox, Lost, Over, Return, Said
from swarm_trainer.leases import Leases, Pass
from swarm_trainer.position import Position
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.vectors import Tensors, donation_rooms, room
from swarm_trainer.waiting import Waiting
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say

log = logging.getLogger("swarm.particle")

M = TypeVar("M", say.Center, say.Donation)

_FIRST_RETRY, _LAST_RETRY = 0.1, 1.0
_LOOK_SECONDS = 0.2
_SAYING_SECONDS = 5.0


class Session:
    """Public methods are for the training thread only.

    Args:
        surroundings: Where the synchronizer is, and who this is.
        schema: The model's.
        snapshot: Reads the weights.
        donate: Reads the optimizers' and the registered state.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        schema: Schema,
        snapshot: Callable[[], Tensors],
        donate: Callable[[], tuple[say.Donation, Tensors]],
    ) -> None:
        self._surroundings = surroundings
        self._schema = schema
        self._snapshot = snapshot
        self._donate = donate
        self._inbox = Inbox()
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        """Set while attached."""
        self._epoch = 0
        """Of the newest synchronizer that was met."""
        self._pending: int | None = None
        """Sequence of a push that may have left and whose reply has not come whole."""
        self._goodbye: say.Goodbye | None = None
        """That the particle has finished, for every synchronizer to come."""
        self._dismissed = False
        """A synchronizer has answered that."""
        self._rooms: Tensors = {}
        self._giving: asyncio.Task[None] | None = None
        self._heartbeat_seconds = 1.0
        self._welcomed = False
        self._waiting = Waiting(surroundings)
        self.position = Position()
        """Kept up to date by the training thread; rides on heartbeats."""
        self.leases = Leases(surroundings.identity.index)
        """Told to every synchronizer that the particle returns to."""
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
            said = self._inbox.wait()
            if said is not None and isinstance(said.message, say.Welcome):
                self.round = said.message.round
                return said.message, said.tensors

    @property
    def attached(self) -> bool:
        """Whether a synchronizer is there to exchange with."""
        return self._connection is not None

    def at_step(self) -> list[Return]:
        """Between two steps: give the synchronizer what it asks for, and hear of every return since.

        A lost push is settled by the next return: its welcome has the reply, or the push was not merged.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        self._inbox.look()
        returns = []
        while self._inbox.returns:
            returns.append(back := self._inbox.returns.popleft())
            if back.welcome.reply is not None:
                self.round = back.welcome.reply.round
        return returns

    def wait_attached(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait until attached, or for so long, or until something else is so; returns whether it is attached.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        deadline = time.monotonic() + seconds
        while not self.attached and not until() and (left := deadline - time.monotonic()) > 0:
            self._inbox.look_for(min(left, _LOOK_SECONDS))
        return self.attached

    def exchange(self, push: say.Push, tensors: Mapping[str, torch.Tensor]) -> tuple[say.Reply, Tensors] | None:
        """Push and wait for the reply.

        None: the connection ended first, or nothing was sent. Then the next `Return` that is heard settles the push.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        connection = self._connection
        self._inbox.look()
        # A return that is not heard yet would be taken for the answer; an end that was just seen does not come again.
        if connection is None or connection is not self._connection or self._inbox.returns:
            return None
        # Set before anything leaves: an attach that comes after the push must ask for it.
        self._pending = push.sequence
        self._ask(connection, push, tensors)
        while (said := self._inbox.wait(connection)) is not None:
            if isinstance(said.message, say.Reply) and said.message.sequence == push.sequence:
                self.round = said.message.round
                return said.message, said.tensors
        return None

    def ask(self, begun: Pass, lease: say.Lease) -> bool:
        """Ask for units for a pass, if there is a synchronizer; the answer is for `leases`, and may be there already.

        May be called from any thread.
        """
        begun.asked = True
        if (connection := self._connection) is None:
            begun.asked = False
            return False
        self._ask(connection, lease, {})
        return True

    def fetch_center(self) -> Tensors | None:
        """The center as it is now; None where there is no synchronizer."""
        said = self._fetch(say.FetchCenter(), say.Center)
        return said[1] or None if said is not None else None

    def fetch_donation(self) -> tuple[say.Donation, Tensors] | None:
        """A live particle's state, or a donation without parts; None where there is no synchronizer any more.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        return self._fetch(say.FetchDonation(), say.Donation)

    def lose(self) -> None:
        """What was trained since the last committed push is in no weights any more: let others train it."""
        if lost := self.leases.lose():
            self.tell(say.Release(units=lost))

    def tell(
        self, message: say.Metrics | say.Skip | say.Release | say.Goodbye, *, timeout: float | None = None
    ) -> None:
        """Say something that has no answer; without a synchronizer it is lost. timeout: wait until it is said.

        That the particle has finished is said by `part`, and taken back here.
        """
        if isinstance(message, say.Goodbye):
            self._goodbye = message if message.finished else None
        connection = self._connection
        if connection is not None:
            said = self._ask(connection, message, {})
            if timeout is not None:
                with contextlib.suppress(TimeoutError, CancelledError, LinkError):
                    said.result(timeout)

    def part(self, goodbye: say.Goodbye, *, patience: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Say that the particle has finished, and wait until a synchronizer knows; returns whether one does.

        Args:
            goodbye: To this synchronizer, and to the next ones.
            patience: Seconds to wait.
            until: Ends that patience.

        Raises:
            RefusedError: This particle was replaced; it must end.
        """
        deadline = time.monotonic() + patience
        self._dismissed = False
        self.tell(goodbye, timeout=_SAYING_SECONDS)
        while not self._dismissed and not until() and (left := deadline - time.monotonic()) > 0:
            self._inbox.look_for(min(left, _LOOK_SECONDS))
        return self._dismissed

    def close(self) -> None:
        """Leave without a word; see `part` for a goodbye."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(timeout=5.0)

    def _fetch(self, question: say.FetchCenter | say.FetchDonation, kind: type[M]) -> tuple[M, Tensors] | None:
        connection = self._connection
        if connection is None:
            return None
        self._ask(connection, question, {})
        while (said := self._inbox.wait(connection)) is not None:
            if isinstance(said.message, kind):
                return said.message, said.tensors
        return None

    def _ask(
        self,
        connection: Connection,
        message: say.FromParticleMessage,
        tensors: Mapping[str, torch.Tensor],
    ) -> Future[None]:
        saying = connection.say(message, tensors)
        try:
            return asyncio.run_coroutine_threadsafe(saying, self._loop)
        except RuntimeError:
            saying.close()  # The session ended in this moment; the inbox tells why.
            failed: Future[None] = Future()
            failed.set_exception(LinkError("the session has ended"))
            return failed

    # From here on: the session's own thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._keep_attached())
        except asyncio.CancelledError:
            self._end(LinkError("the session was closed"))
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._connection = None
        self.leases.unanswered()
        self._inbox.put(Over(error))

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    async def _keep_attached(self) -> None:
        self._main = asyncio.current_task()
        self._waiting.begin()
        retry = _FIRST_RETRY
        while True:
            try:
                await self._converse()
            except (LinkError, OSError, TimeoutError) as error:
                level = logging.INFO if self._welcomed else logging.DEBUG
                self._waiting.reason = str(error) or "it does not answer"
                log.log(level, "no synchronizer: %s", self._waiting.reason)
            if self._connection is not None:
                lost, self._connection, retry = self._connection, None, _FIRST_RETRY
                self.leases.unanswered()
                self._inbox.put(Lost(lost))
            # Full jitter, so that a swarm does not come back all at once.
            await asyncio.sleep(random.uniform(0, retry))  # noqa: S311
            retry = min(_LAST_RETRY, retry * 2)

    async def _converse(self) -> None:
        connection = await connect(self._surroundings, least_epoch=self._epoch)
        self._epoch = connection.epoch
        self._waiting.inside = True
        heart = self._loop.create_task(connection.beat(lambda: self._heartbeat_seconds, self.position.progress))
        try:
            attach = say.Attach(
                model=self._schema.model_dump(mode="json"),
                returning=self._welcomed,
                round=self.round,
                pending=self._pending,
                progress=self.position.progress(),
                work=self.leases.work(),
            )
            await connection.say(attach)
            while True:
                await self._hear(connection)
        finally:
            heart.cancel()
            if self._giving is not None:
                self._giving.cancel()
            connection.close()
            self._waiting.inside = False

    async def _hear(self, connection: Connection) -> None:
        message = await connection.hear()
        match message:
            case say.SendState():
                with connection.occupied():
                    tensors = await self._inbox.between_steps(self._snapshot)
                await connection.say(say.State(tensors=tuple(tensors)), tensors)
            case say.Welcome():
                await self._welcome(connection, message)
            case say.Reply():
                tensors = await connection.take(message.tensors, self._reused)
                if message.sequence == self._pending:
                    self._pending = None
                if message.settings is not None:
                    self._heartbeat_seconds = message.settings.sync.heartbeat_seconds
                self._inbox.put(Said(message, tensors))
            case say.Leased():
                self.leases.give(message.stream, message.units)
            case say.Center():
                self._inbox.put(Said(message, await connection.take(message.tensors, self._fresh)))
            case say.Donate():
                # Beside the conversation: the training thread may be in a long step, or wait for a reply meanwhile.
                self._giving = self._loop.create_task(self._give(connection))
            case say.Donation():
                rooms = donation_rooms(self._schema, message)
                self._inbox.put(Said(message, await connection.take(message.tensors, rooms.__getitem__)))
            case say.Farewell():
                self._dismissed = True
                self._inbox.put(Said(message, {}))
            case say.Stop():
                raise RefusedError("Stopped", message.message)
            case say.Alive():
                pass

    async def _welcome(self, connection: Connection, welcome: say.Welcome) -> None:
        tensors = await connection.take(welcome.tensors, self._fresh)
        if welcome.reply is not None:
            tensors = await connection.take(welcome.reply.tensors, self._reused)
        self._heartbeat_seconds = welcome.settings.sync.heartbeat_seconds
        self.leases.revoked(welcome.revoked)
        self._pending = None
        if self._welcomed:
            # In this order: who sees that it is attached finds in the inbox what became of its last push.
            self._inbox.put(Return(welcome, tensors))
            self._connection = connection
        else:
            # And in this one: who hears its first welcome is attached, and may ask for units and a donation.
            self._connection, self._welcomed = connection, True
            self._waiting.end()
            self._inbox.put(Said(welcome, tensors))
        if self._goodbye is not None:
            await connection.say(self._goodbye)

    async def _give(self, connection: Connection) -> None:
        donation, tensors = await self._inbox.between_steps(self._donate)
        with contextlib.suppress(LinkError):
            await connection.say(donation, tensors)

    def _fresh(self, name: str) -> torch.Tensor:
        return room(self._schema, name)

    def _reused(self, name: str) -> torch.Tensor:
        """Where the last reply was: the training thread is done with that."""
        if name not in self._rooms:
            self._rooms[name] = room(self._schema, name)
        return self._rooms[name]
