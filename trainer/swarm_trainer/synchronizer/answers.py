"""Every push is answered once, and whoever asks again gets the same answer."""

import time

from swarm_api.settings import Settings
from swarm_trainer.algorithms.base import Message
from swarm_trainer.synchronizer.ledger import Answer
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.wire import messages as say


class Answers:
    """Used from the event loop only."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    def give(
        self,
        peer: Peer,
        push: say.Push,
        status: say.ReplyStatus,
        message: Message | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        """Answer, and keep the answer until the next push arrives: of one who is gone, for its return.

        The message's tensors are never written to again, so they are kept without a copy.
        """
        message = message or Message()
        reply = self._reply(push.sequence, status, settings, message)
        self._swarm.ledger[peer.index].answered(Answer(reply, message.tensors))
        if self._swarm.holds(peer):
            self._swarm.answer(peer, reply, message.tensors, sent=lambda: self._sent(peer))

    def again(self, index: int, sequence: int | None) -> Answer | None:
        """The answer to this push; None: it never was merged, and as long as it is not made again, will not be."""
        entry = self._swarm.ledger[index]
        if entry.answer is not None and entry.sequence == sequence:
            return entry.answer
        if sequence is not None and sequence == entry.merged:
            return Answer(self._reply(sequence, say.ReplyStatus.FORGOTTEN), {})
        return None

    def _sent(self, peer: Peer) -> None:
        swarm = self._swarm
        if swarm.holds(peer):
            swarm.rounds.sent(peer.index, time.monotonic())
            swarm.changed.set()

    def _reply(
        self,
        sequence: int,
        status: say.ReplyStatus,
        settings: Settings | None = None,
        message: Message | None = None,
    ) -> say.Reply:
        swarm, message = self._swarm, message or Message()
        return say.Reply(
            sequence=sequence,
            status=status,
            round=swarm.round,
            leader=swarm.leader,
            replicas=swarm.settings.replicas,
            settings=settings,
            numbers=message.numbers,
            tensors=tuple(message.tensors),
        )
