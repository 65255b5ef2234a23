"""The heart of the synchronizer: particles come, push, are answered and go, all on one event loop.

Decisions are made elsewhere (`rounds`: when and with whom; `center`: how), bytes move elsewhere (`peer`), and the
arithmetic runs in a thread of its own, so heartbeats are answered while a round is merged.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from swarm_api.report import Presence, Report, SwarmState
from swarm_api.settings import Settings
from swarm_trainer.algorithms import build
from swarm_trainer.algorithms.base import Contribution, Fitness, Message, Round
from swarm_trainer.errors import LinkError, SwarmError
from swarm_trainer.synchronizer.center import Center, Delivery, is_finite
from swarm_trainer.synchronizer.founding import Founding
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.journal import Journal
from swarm_trainer.synchronizer.ledger import Ledger
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.rounds import Commit, Hold, Pace, Rounds, Wait
from swarm_trainer.vectors import BUFFERS, INTEGERS, MODEL_VECTORS, Tensors, room
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say

log = logging.getLogger("swarm.synchronizer")

T = TypeVar("T")

_FAREWELL_SECONDS = 60.0
_IDLE_SECONDS = 1.0


class Hub:
    """One job's swarm, from its founding to its end."""

    def __init__(self, settings: Settings, *, epoch: int, journal: Journal, gauges: Gauges) -> None:
        self._settings = settings
        self._epoch = epoch
        self._journal = journal
        self._gauges = gauges
        self._algorithm = build(settings.algorithm)
        self._schema: Schema | None = None
        self._peers: dict[int, Peer] = {}
        self._ledger = Ledger()
        self._rounds = Rounds(_pace(settings, barrier=self._algorithm.barrier))
        self._founding = Founding(settings)
        self._changed = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()
        self._merging = ThreadPoolExecutor(1, thread_name_prefix="merge")
        self._center_at_rest = asyncio.Lock()
        self._state = SwarmState.STARTING
        self._message = ""
        self._last_sync: float | None = None
        self._best: tuple[float, int] | None = None
        self._finished_time = 0.0
        self.center: Center | None = None
        self.round = 0

    async def run(self) -> None:
        """Found the swarm, commit its rounds, and return when every particle has finished.

        Raises:
            SwarmError: Training cannot go on; the message says what to change.
        """
        try:
            await self._found()
            self._state = SwarmState.TRAINING
            while not self._complete():
                await self._step()
        except SwarmError as error:
            self._state, self._message = SwarmState.FAILED, str(error)
            await asyncio.gather(*(self._tell(peer, say.Stop(message=str(error))) for peer in self._peers.values()))
            raise
        self._state = SwarmState.FINISHED

    def apply(self, settings: Settings) -> None:
        """Take what may change while the swarm trains: who has been given up."""
        self._settings = self._settings.model_copy(update={"given_up": settings.given_up})
        self._founding.settings = self._settings
        self._changed.set()

    async def welcome(self, peer: Peer) -> None:
        """Serve one particle until it goes."""
        index = peer.index
        previous = self._peers.pop(index, None)
        if previous is not None:
            self._lost(previous, "replaced by a newer connection")
            previous.close()
        self._peers[index] = peer
        why = "left"
        try:
            while await self._hear(peer, await peer.hear()):
                pass
        except LinkError as error:
            why = str(error)
        finally:
            if self._peers.get(index) is peer:
                del self._peers[index]
                self._lost(peer, why)

    def report(self) -> Report:
        """The swarm as it is now."""
        replicas = self._settings.replicas
        return Report(
            uid=self._settings.uid,
            incarnation=self._epoch,
            state=self._state,
            message=self._message,
            round=self.round,
            best_loss=self._best[0] if self._best else None,
            best_particle=self._best[1] if self._best else None,
            progress=1.0 if self._state is SwarmState.FINISHED else round(self._ledger.fraction(replicas), 4),
            samples_per_second=round(self._ledger.samples_per_second(), 1),
            last_sync_time=self._last_sync,
            settings_generation=self._settings.generation,
            particles=self._ledger.reports({index: peer.silent_seconds for index, peer in self._peers.items()}),
        )

    async def settle(self) -> None:
        """Let answers under way arrive; for a clean end."""
        if self._answers:
            await asyncio.wait(self._answers, timeout=5.0)

    def close(self) -> None:
        """Cut everyone off."""
        for peer in list(self._peers.values()):
            peer.close()
        self._merging.shutdown(wait=True)

    async def _hear(self, peer: Peer, message: BaseModel) -> bool:
        match message:
            case say.Attach():
                await self._attached(peer, message)
            case say.Heartbeat():
                self._note_progress(peer, message.progress)
                await peer.say(say.Alive())
            case say.Push():
                await self._pushed(peer, message)
            case say.State():
                tensors = await peer.take(message.tensors, self._empty, keep=True)
                if peer.state is not None and not peer.state.done():
                    peer.state.set_result(tensors)
            case say.FetchCenter():
                async with self._center_at_rest:
                    tensors = {} if self.center is None else self.center.weights()
                    self._answer(peer, peer.say(say.Center(round=self.round, tensors=tuple(tensors)), tensors))
            case say.Metrics():
                self._journal.note(
                    "metrics",
                    particle=peer.index,
                    incarnation=peer.identity.incarnation,
                    samples=self._ledger.samples,
                    of=message.of,
                    values=message.values,
                )
            case say.Goodbye():
                self._note_progress(peer, message.progress)
                if message.finished:
                    self._finished(peer)
                return message.finished
        return True

    async def _attached(self, peer: Peer, attach: say.Attach) -> None:
        schema = Schema.model_validate(attach.model)
        if self._schema is None:
            self._schema = schema
        elif mismatch := self._schema.mismatch(schema):
            await peer.say(say.Stop(message=f"particle {peer.index} brings another model than the swarm's: {mismatch}"))
            msg = f"another model: {mismatch}"
            raise LinkError(msg)
        peer.attach = attach
        if self.center is None:
            self._founding.arrived(peer.index, time.monotonic(), returning=attach.returning, round_=attach.round)
            self._changed.set()
        else:
            await self._admit(peer)

    async def _found(self) -> None:
        while True:
            waiting = {index: peer for index, peer in self._peers.items() if peer.attach is not None}
            founders, until = self._founding.decide(frozenset(waiting), time.monotonic())
            if not founders:
                await self._sleep(until)
                continue
            states = await self._states([waiting[index] for index in founders])
            if states:
                break
        schema = self._schema
        assert schema is not None
        if self._founding.rebuilding:
            self.round = self._founding.last_round
            self.center = await self._merge_thread(lambda: Center.rebuild(self._algorithm, schema, states))
            log.info("center rebuilt from particles %s at round %d", sorted(states), self.round)
        else:
            founder = min(states)
            self.center = await self._merge_thread(lambda: Center.found(self._algorithm, schema, states[founder]))
            log.info("center founded on the weights of particle %d", founder)
        await asyncio.gather(
            *(
                self._admit(peer, founder=index in states, first=True)
                for index, peer in list(self._peers.items())
                if peer.attach is not None and not peer.admitted
            )
        )

    async def _states(self, peers: list[Peer]) -> dict[int, Tensors]:
        loop = asyncio.get_running_loop()
        for peer in peers:
            peer.state = loop.create_future()
            await self._tell(peer, say.SendState())
        states = {}
        for peer in peers:
            assert peer.state is not None
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                states[peer.index] = await asyncio.wait_for(peer.state, self._settings.sync.deadline_seconds)
        return {index: tensors for index, tensors in states.items() if index in self._peers}

    async def _admit(self, peer: Peer, *, founder: bool = False, first: bool = False) -> None:
        attach = peer.attach
        assert attach is not None
        assert self.center is not None
        keeps = founder or attach.returning
        async with self._center_at_rest:
            entry = self._ledger.attach(peer.identity, attach.progress if attach.returning else None)
            where = self._ledger.swarm_progress()
            tensors = {} if keeps else self.center.newcomer(peer.index)
            self._rounds.join(peer.index, expected=first or attach.returning)
            peer.admitted = True
            welcome = say.Welcome(
                action=say.Action.KEEP if keeps else say.Action.ADOPT,
                tensors=tuple(tensors),
                settings=self._settings,
                round=self.round,
                leader=self._leader(),
                progress=where.model_copy(update={"step": entry.progress.step, "samples": entry.progress.samples}),
            )
            self._answer(peer, peer.say(welcome, tensors))
        self._journal.note("attached", **self._about(peer))
        log.info("particle %d.%d attached: %s", peer.index, peer.identity.incarnation, welcome.action)
        self._changed.set()

    async def _pushed(self, peer: Peer, push: say.Push) -> None:
        peer.staged = await peer.take(push.tensors, self._empty, keep=False)
        self._note_progress(peer, push.progress)
        if self.center is None or not peer.admitted:
            msg = "a push before the welcome"
            raise LinkError(msg)
        if not await self._merge_thread(lambda: is_finite(peer.staged)):
            self._ledger[peer.index].refused += 1
            self._gauges.refused.inc()
            log.warning("particle %d pushed weights that are not finite; it adopts the center", peer.index)
            async with self._center_at_rest:
                tensors = self.center.weights()
                self._answer(peer, peer.say(self._reply(push, say.ReplyStatus.REFUSED, tensors), tensors))
            return
        if self._peers.get(peer.index) is peer:
            peer.push = push
            self._rounds.deliver(peer.index, time.monotonic())
            self._changed.set()

    async def _step(self) -> None:
        decision = self._rounds.decide(time.monotonic())
        match decision:
            case Wait():
                present = self._rounds.present
                short = present < self._settings.min_replicas
                self._state = SwarmState.WAITING if short else SwarmState.TRAINING
                self._message = f"{present} of at least {self._settings.min_replicas} particles" if short else ""
                await self._sleep(decision.until if self._rounds.open else time.monotonic() + _IDLE_SECONDS)
            case Hold():
                for index in decision.contributors:
                    peer = self._peers[index]
                    assert peer.push is not None
                    self._gauges.held.inc()
                    self._answer(peer, peer.say(self._reply(peer.push, say.ReplyStatus.HELD)))
                    peer.push = None
                self._rounds.answered(decision, time.monotonic())
            case Commit():
                await self._commit(decision)

    async def _commit(self, decision: Commit) -> None:
        center = self.center
        assert center is not None
        peers = {index: self._peers[index] for index in decision.contributors}
        pushes = {index: peer.push for index, peer in peers.items() if peer.push is not None}
        deliveries = {index: _delivery(push, peers[index].staged) for index, push in pushes.items()}
        round_ = Round(number=self.round + 1, seed=self._settings.seed, members=self._rounds.present)
        async with self._center_at_rest:
            if self._answers:
                await self._merge_thread(center.unshare)
            started = time.monotonic()
            replies = await self._merge_thread(lambda: center.merge(deliveries, round_))
            self._gauges.merge_seconds.observe(time.monotonic() - started)
            self.round = round_.number
            self._last_sync = time.time()
            for index, push in pushes.items():
                peer, reply = peers[index], replies[index]
                self._ledger.commit(index, self.round, push.progress, deliveries[index].contribution.fitness)
                if self._peers.get(index) is peer:
                    peer.push = None
                    message = self._reply(push, say.ReplyStatus.MERGED, reply.tensors, reply.numbers)
                    self._answer(peer, peer.say(message, reply.tensors))
        alive = Commit(tuple(index for index in decision.contributors if self._peers.get(index) is peers[index]))
        self._rounds.answered(alive, time.monotonic())
        self._note_round(deliveries)

    def _note_round(self, deliveries: dict[int, Delivery]) -> None:
        losses = {index: delivery.contribution.fitness.mean for index, delivery in deliveries.items()}
        known = {index: loss for index, loss in losses.items() if abs(loss) < float("inf")}
        if known:
            best = min(known, key=lambda index: known[index])
            self._best = known[best], best
        self._gauges.committed(self._rounds.present, len(deliveries), known)
        self._journal.note(
            "round",
            round=self.round,
            contributors=sorted(deliveries),
            samples=self._ledger.samples,
            losses={str(index): round(loss, 6) for index, loss in known.items()},
        )

    def _reply(
        self,
        push: say.Push,
        status: say.ReplyStatus,
        tensors: Tensors | None = None,
        numbers: dict[str, float] | None = None,
    ) -> say.Reply:
        return say.Reply(
            sequence=push.sequence,
            status=status,
            round=self.round,
            leader=self._leader(),
            numbers=numbers or {},
            tensors=tuple(tensors or ()),
        )

    def _finished(self, peer: Peer) -> None:
        self._ledger[peer.index].presence = Presence.FINISHED
        self._rounds.finish(peer.index)
        self._finished_time = time.monotonic()
        self._journal.note("finished", **self._about(peer))
        log.info("particle %d.%d finished", peer.index, peer.identity.incarnation)
        self._changed.set()

    def _lost(self, peer: Peer, why: str) -> None:
        peer.push = None
        self._founding.left(peer.index)
        if peer.admitted and self._ledger[peer.index].presence is Presence.ATTACHED:
            self._ledger[peer.index].presence = Presence.DETACHED
            self._rounds.leave(peer.index)
            if self.center is not None:
                self._merging.submit(self.center.leave, peer.index)
            self._journal.note("detached", why=why, **self._about(peer))
            log.info("particle %d.%d is gone: %s", peer.index, peer.identity.incarnation, why)
        self._changed.set()

    def _about(self, peer: Peer) -> dict[str, int]:
        return {
            "particle": peer.index,
            "incarnation": peer.identity.incarnation,
            "round": self.round,
            "samples": self._ledger.samples,
        }

    def _note_progress(self, peer: Peer, progress: say.Progress) -> None:
        if peer.admitted:
            self._ledger[peer.index].heard = progress

    def _complete(self) -> bool:
        awaited = set(range(self._settings.replicas)) - set(self._settings.given_up)
        if not awaited or not awaited <= self._ledger.finished() or self._rounds.open:
            return False
        # Those that finished may still evaluate the center, so the hub stays until they hang up.
        return not self._peers or time.monotonic() - self._finished_time > _FAREWELL_SECONDS

    def _leader(self) -> int:
        admitted = [index for index, peer in self._peers.items() if peer.admitted]
        return min(admitted, default=0)

    def _empty(self, name: str) -> torch.Tensor:
        assert self._schema is not None
        return room(self._schema, name)

    def _answer(self, peer: Peer, saying: Coroutine[Any, Any, None]) -> None:
        async def answer() -> None:
            try:
                await saying
            except LinkError as error:
                log.info("particle %d did not take its answer: %s", peer.index, error)
                peer.close()

        task = asyncio.get_running_loop().create_task(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _tell(self, peer: Peer, message: BaseModel) -> None:
        with contextlib.suppress(LinkError):
            await peer.say(message)

    async def _merge_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._merging, work)

    async def _sleep(self, until: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        self._changed.clear()


def _delivery(push: say.Push, staged: Tensors) -> Delivery:
    own = {name: tensor for name, tensor in staged.items() if name not in MODEL_VECTORS}
    fitness = Fitness(float("nan") if push.fitness is None else push.fitness, push.standard_error)
    return Delivery(
        Contribution(Message(own, dict(push.numbers)), fitness, push.new_samples),
        {name: staged[name] for name in (BUFFERS, INTEGERS) if name in staged},
    )


def _pace(settings: Settings, *, barrier: bool) -> Pace:
    sync = settings.sync
    return Pace(
        min_replicas=settings.min_replicas,
        quorum_of=sync.quorum_of,
        deadline=sync.deadline_seconds,
        grace=None if sync.grace_milliseconds is None else sync.grace_milliseconds / 1000,
        barrier=barrier,
    )
