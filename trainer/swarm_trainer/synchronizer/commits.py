"""What becomes of a push: `rounds` decides when and with whom, the center how, and this carries it out."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Mapping

import torch

from swarm_api.report import SwarmState
from swarm_trainer.algorithms.base import Contribution, Fitness, Message, Round
from swarm_trainer.errors import LinkError, NoFitnessError
from swarm_trainer.synchronizer.answers import Answers
from swarm_trainer.synchronizer.center import Delivery, is_sound
from swarm_trainer.synchronizer.generations import Generations
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.rounds import Commit, Hold, Wait
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import BUFFERS, INTEGERS, MODEL_VECTORS, Tensors, present
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.units import unpack

log = logging.getLogger("swarm.synchronizer")

_IDLE_SECONDS = 1.0
_MOST_VECTORS = 8
"""That any algorithm pushes."""
_SMALL_BYTES = 2 << 20
"""Looked through sooner than another thread is asked to do it."""


class Commits:
    """Takes pushes as they come, and merges, holds or refuses them."""

    def __init__(self, swarm: Swarm, answers: Answers, generations: Generations, committed: Callable[[], None]) -> None:
        """`committed` is called after every commit, when center and ledger both know of it."""
        self._swarm = swarm
        self._answers = answers
        self._generations = generations
        self._committed = committed

    async def pushed(self, peer: Peer, push: say.Push) -> None:
        """A particle announced a push: receive it, and put it into the open round if it can be merged.

        One that was answered before is answered the same again.

        Raises:
            LinkError: The particle is gone, or it has no right to push now.
        """
        swarm = self._swarm
        if swarm.center is None or not peer.admitted or peer.push is not None:
            msg = "a push out of turn: before the welcome, or before the answer to the last one"
            raise LinkError(msg)
        entry = swarm.ledger[peer.index]
        if push.sequence < entry.sequence:
            msg = f"push {push.sequence}, but {entry.sequence} was answered already"
            raise LinkError(msg)
        again = self._answers.again(peer.index, push.sequence)
        if again is None:
            entry.answer = None
        # What other settings' pushes have is not known any more, and they are handed back.
        known = self._generations.covers(push)
        brings = self._vectors_of_a_push(swarm.center.schema) if known else push.tensors[:_MOST_VECTORS]
        peer.staged = await peer.take(push.tensors, brings, swarm.empty, keep=False)
        center = swarm.center.now.vectors
        if sum(tensor.nbytes for tensor in peer.staged.values()) <= _SMALL_BYTES:
            sound = is_sound(peer.staged, center)
        else:
            sound = await swarm.in_merge_thread(lambda: is_sound(peer.staged, center))
        if not swarm.holds(peer):
            return
        entry.heard = push.progress
        if again is not None:
            swarm.answer(peer, again.reply, again.tensors)
        elif not self._generations.covers(push):
            self._answers.give(peer, push, say.ReplyStatus.HELD, settings=swarm.settings)
        elif sound:
            peer.push = push
            swarm.rounds.deliver(peer.index, time.monotonic())
        else:
            self._refuse(peer, push)
        swarm.changed.set()

    def _vectors_of_a_push(self, schema: Schema) -> tuple[str, ...]:
        nothing = torch.empty(0)
        algorithm = self._swarm.algorithm
        own = algorithm.push(algorithm.particle_state(nothing), nothing, Fitness(math.nan)).tensors
        return *own, *present(schema, BUFFERS, INTEGERS)

    async def step(self) -> None:
        """Carry out the next decision, or wait until there may be one.

        Raises:
            NoFitnessError: The algorithm needs losses and nobody reports any.
        """
        swarm = self._swarm
        for index, peer in swarm.peers.items():
            if peer.transferring:
                swarm.rounds.moved(index, peer.moved_at)
        decision = swarm.rounds.decide(time.monotonic())
        match decision:
            case Wait():
                alive, least = swarm.rounds.alive, swarm.settings.min_replicas
                swarm.state = SwarmState.WAITING if alive < least else SwarmState.TRAINING
                swarm.message = f"{alive} of at least {least} particles" if alive < least else ""
                await swarm.sleep(decision.until if swarm.rounds.open else time.monotonic() + _IDLE_SECONDS)
            case Hold():
                self._hold(decision)
            case Commit():
                await self._commit(decision)

    def _refuse(self, peer: Peer, push: say.Push) -> None:
        swarm = self._swarm
        assert swarm.center is not None
        log.warning("particle %d pushed weights that are not finite; it adopts the center", peer.index)
        swarm.ledger[peer.index].refused += 1
        swarm.gauges.refused.inc()
        if hopeless := swarm.units.refuse(peer.index, unpack(push.units)):
            log.warning("%d batches gave weights that are not finite for the second time: given up", len(hopeless))
        swarm.rounds.excuse(peer.index, time.monotonic())
        self._answers.give(peer, push, say.ReplyStatus.REFUSED, Message(swarm.center.now.weights))

    def _hold(self, decision: Commit | Hold) -> None:
        swarm = self._swarm
        for index in decision.contributors:
            peer = swarm.peers.get(index)
            if peer is not None and peer.push is not None:
                push, peer.push = peer.push, None
                swarm.gauges.held.inc()
                self._answers.give(peer, push, say.ReplyStatus.HELD)
        swarm.rounds.answered(Hold(decision.contributors), time.monotonic())

    async def _commit(self, decision: Commit) -> None:
        swarm, center = self._swarm, self._swarm.center
        assert center is not None
        peers = {index: swarm.peers[index] for index in decision.contributors}
        pushes = {index: peer.push for index, peer in peers.items() if peer.push is not None}
        deliveries = {index: _delivery(push, peers[index].staged) for index, push in pushes.items()}
        round_ = Round(number=center.now.round + 1, seed=swarm.settings.seed, members=swarm.rounds.present)
        # Already now: while the merge runs a contributor may go, and then its units must not go to anybody else.
        for push in pushes.values():
            swarm.units.commit(unpack(push.units))
        started = time.monotonic()
        try:
            replies = await swarm.in_merge_thread(lambda: center.merge(deliveries, round_))
        except (NoFitnessError, asyncio.CancelledError) as error:
            for index, push in pushes.items():
                swarm.units.take_back(index, unpack(push.units))
            if isinstance(error, asyncio.CancelledError) or self._hopeless(deliveries):
                raise
            log.warning("%s", error)
            self._hold(decision)
            return
        swarm.gauges.merge_seconds.observe(time.monotonic() - started)
        swarm.last_sync = time.time()
        for index, push in pushes.items():
            peer = peers[index]
            swarm.ledger.commit(index, round_.number, push.progress, deliveries[index].contribution.fitness)
            if swarm.holds(peer):
                peer.push = None
            self._answers.give(peer, push, say.ReplyStatus.MERGED, replies[index])
        swarm.ledger.release(swarm.wanted)
        swarm.rounds.answered(decision, time.monotonic())
        self._note(deliveries)
        self._committed()

    def _hopeless(self, deliveries: Container[int]) -> bool:
        """Whether nobody is left to hope for, now that these have no finite loss.

        Where losses were reported before, those of others who are away or have finished were finite.
        """
        swarm = self._swarm
        known = swarm.best is not None or swarm.wanted - swarm.unfinished
        return all(index in deliveries for index in (swarm.wanted if known else swarm.training))

    def _note(self, deliveries: Mapping[int, Delivery]) -> None:
        swarm = self._swarm
        losses = {index: delivery.contribution.fitness.mean for index, delivery in deliveries.items()}
        known = {index: loss for index, loss in losses.items() if math.isfinite(loss)}
        if known:
            best = min(known, key=lambda index: known[index])
            swarm.best = known[best], best
        swarm.gauges.committed(swarm.rounds.present, len(deliveries), known)
        swarm.journal.note(
            "round",
            round=swarm.round,
            generation=swarm.settings.generation,
            contributors=sorted(deliveries),
            samples=swarm.ledger.samples,
            losses={str(index): round(loss, 6) for index, loss in known.items()},
        )


def _delivery(push: say.Push, staged: Tensors) -> Delivery:
    own = {name: tensor for name, tensor in staged.items() if name not in MODEL_VECTORS}
    fitness = Fitness(float("nan") if push.fitness is None else push.fitness, push.standard_error)
    return Delivery(
        Contribution(Message(own, dict(push.numbers)), fitness, push.new_samples),
        {name: staged[name] for name in (BUFFERS, INTEGERS) if name in staged},
    )
