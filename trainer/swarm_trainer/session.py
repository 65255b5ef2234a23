"""What the training thread asks of its synchronizer, and waits for."""

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import TypeVar

import torch

from swarm_trainer.conversation import Conversation
from swarm_trainer.errors import LinkError
from swarm_trainer.inbox import Return
from swarm_trainer.leases import Pass
from swarm_trainer.vectors import Tensors
from swarm_trainer.wire import messages as say

M = TypeVar("M", say.Center, say.Donation)

_LOOK_SECONDS = 0.2
_SAYING_SECONDS = 5.0


class Session:
    """For the training thread only, while the conversation goes on in its own."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._inbox = conversation.inbox
        self.position = conversation.position
        """Kept up to date by the training thread; rides on heartbeats."""
        self.leases = conversation.leases
        """Of units of work."""

    def attach(self) -> tuple[say.Welcome, Tensors]:
        """Join the swarm; waits until it is founded.

        Raises:
            RefusedError: The synchronizer will not have this particle.
        """
        self._conversation.begin()
        while True:
            said = self._inbox.wait()
            if said is not None and isinstance(said.message, say.Welcome):
                self._conversation.round = said.message.round
                return said.message, said.tensors

    @property
    def attached(self) -> bool:
        """Whether a synchronizer is there to exchange with."""
        return self._conversation.connection is not None

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
                self._conversation.round = back.welcome.reply.round
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
        connection = self._conversation.connection
        self._inbox.look()
        # A return that is not heard yet would be taken for the answer; an end that was just seen does not come again.
        if connection is None or connection is not self._conversation.connection or self._inbox.returns:
            return None
        # Set before anything leaves: an attach that comes after the push must ask for it.
        self._conversation.pending = push.sequence
        self._conversation.send(connection, push, tensors)
        while (said := self._inbox.wait(connection)) is not None:
            if isinstance(said.message, say.Reply) and said.message.sequence == push.sequence:
                self._conversation.round = said.message.round
                return said.message, said.tensors
        return None

    def ask(self, begun: Pass, lease: say.Lease) -> bool:
        """Ask for units for a pass, if there is a synchronizer; the answer is for `leases`, and may be there already.

        May be called from any thread.
        """
        begun.asked = True
        if (connection := self._conversation.connection) is None:
            begun.asked = False
            return False
        self._conversation.send(connection, lease, {})
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
            self._conversation.goodbye = message if message.finished else None
        connection = self._conversation.connection
        if connection is not None:
            said = self._conversation.send(connection, message, {})
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
        self._conversation.dismissed = False
        self.tell(goodbye, timeout=_SAYING_SECONDS)
        while not self._conversation.dismissed and not until() and (left := deadline - time.monotonic()) > 0:
            self._inbox.look_for(min(left, _LOOK_SECONDS))
        return self._conversation.dismissed

    def close(self) -> None:
        """Leave without a word; see `part` for a goodbye."""
        self._conversation.end()

    def _fetch(self, question: say.FetchCenter | say.FetchDonation, kind: type[M]) -> tuple[M, Tensors] | None:
        connection = self._conversation.connection
        if connection is None:
            return None
        self._conversation.send(connection, question, {})
        while (said := self._inbox.wait(connection)) is not None:
            if isinstance(said.message, kind):
                return said.message, said.tensors
        return None
