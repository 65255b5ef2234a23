"""What goes on between a particle and its synchronizers, in a thread of its own with an event loop.

It connects, reconnects, answers heartbeats and moves the bytes, whatever the training thread does. What it has for that
goes through the inbox.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import torch

from swarm_trainer.connection import Connection, connect
from swarm_trainer.errors import LinkError, RefusedError
from swarm_trainer.inbox import Inbox, Lost, Over, Return, Said
from swarm_trainer.leases import Leases
from swarm_trainer.position import Position
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.vectors import Tensors, donation_rooms, room
from swarm_trainer.waiting import Waiting
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say

log = logging.getLogger("swarm.particle")

_FIRST_RETRY, _LAST_RETRY = 0.1, 1.0


class Conversation:
    """Public methods are for the training thread, and so is writing the attributes that say so.

    Args:
        surroundings: Where the synchronizer is, and who this is.
        schema: The model's.
        snapshot: Reads the weights; called in the training thread.
        donate: Reads the optimizers' and the registered state; likewise.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        schema: Schema,
        snapshot: Callable[[], Tensors],
        donate: Callable[[], tuple[say.Donation, Tensors]],
    ) -> None:
        self.inbox = Inbox()
        self.position = Position()
        """Kept up to date by the training thread; rides on heartbeats."""
        self.leases = Leases(surroundings.identity.index)
        """Told to every synchronizer that the particle returns to."""
        self.connection: Connection | None = None
        """Set while attached."""
        self.round = 0
        """Last round whose reply was given to the training thread, which writes it."""
        self.pending: int | None = None
        """Sequence of a push that may have left, which the training thread writes; None once its reply came whole."""
        self.goodbye: say.Goodbye | None = None
        """That the particle has finished, for every synchronizer to come; the training thread writes it."""
        self.dismissed = False
        """A synchronizer has answered that; the training thread takes it back."""
        self._surroundings = surroundings
        self._schema = schema
        self._snapshot = snapshot
        self._donate = donate
        self._epoch = 0
        """Of the newest synchronizer that was met."""
        self._rooms: Tensors = {}
        self._giving: asyncio.Task[None] | None = None
        self._heartbeat_seconds = 1.0
        self._welcomed = False
        self._waiting = Waiting(surroundings)
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="swarm-session", daemon=True)

    def begin(self) -> None:
        """Look for a synchronizer."""
        self._thread.start()

    def end(self) -> None:
        """Cut the connection, without a word."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join(timeout=5.0)

    def send(
        self,
        connection: Connection,
        message: say.FromParticleMessage,
        tensors: Mapping[str, torch.Tensor],
    ) -> Future[None]:
        """Send on this connection; done when it is sent, or with the LinkError. From any thread."""
        saying = connection.say(message, tensors)
        try:
            return asyncio.run_coroutine_threadsafe(saying, self._loop)
        except RuntimeError:
            saying.close()  # The session ended in this moment; the inbox tells why.
            failed: Future[None] = Future()
            failed.set_exception(LinkError("the session has ended"))
            return failed

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._keep_attached())
        except asyncio.CancelledError:
            self._over(LinkError("the session was closed"))
        except Exception as error:
            self._over(error)

    def _over(self, error: Exception) -> None:
        self.connection = None
        self.leases.unanswered()
        self.inbox.put(Over(error))

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
            if self.connection is not None:
                lost, self.connection, retry = self.connection, None, _FIRST_RETRY
                self.leases.unanswered()
                self.inbox.put(Lost(lost))
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
                pending=self.pending,
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
                    tensors = await self.inbox.between_steps(self._snapshot)
                await connection.say(say.State(tensors=tuple(tensors)), tensors)
            case say.Welcome():
                await self._welcome(connection, message)
            case say.Reply():
                tensors = await connection.take(message.tensors, self._reused)
                if message.sequence == self.pending:
                    self.pending = None
                if message.settings is not None:
                    self._heartbeat_seconds = message.settings.sync.heartbeat_seconds
                self.inbox.put(Said(message, tensors))
            case say.Leased():
                self.leases.give(message.stream, message.units)
            case say.Center():
                self.inbox.put(Said(message, await connection.take(message.tensors, self._fresh)))
            case say.Donate():
                # Beside the conversation: the training thread may be in a long step, or wait for a reply meanwhile.
                self._giving = self._loop.create_task(self._give(connection))
            case say.Donation():
                rooms = donation_rooms(self._schema, message)
                self.inbox.put(Said(message, await connection.take(message.tensors, rooms.__getitem__)))
            case say.Farewell():
                self.dismissed = True
                self.inbox.put(Said(message, {}))
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
        self.pending = None
        if self._welcomed:
            # In this order: who sees that it is attached finds in the inbox what became of its last push.
            self.inbox.put(Return(welcome, tensors))
            self.connection = connection
        else:
            # And in this one: who hears its first welcome is attached, and may ask for units and a donation.
            self.connection, self._welcomed = connection, True
            self._waiting.end()
            self.inbox.put(Said(welcome, tensors))
        if self.goodbye is not None:
            await connection.say(self.goodbye)

    async def _give(self, connection: Connection) -> None:
        donation, tensors = await self.inbox.between_steps(self._donate)
        with contextlib.suppress(LinkError):
            await connection.say(donation, tensors)

    def _fresh(self, name: str) -> torch.Tensor:
        return room(self._schema, name)

    def _reused(self, name: str) -> torch.Tensor:
        """Where the last reply was: the training thread is done with that."""
        if name not in self._rooms:
            self._rooms[name] = room(self._schema, name)
        return self._rooms[name]
