"""How particles become members: the first ones found the swarm, later ones join it."""

import asyncio
import logging
import time
from collections.abc import Sequence

from pydantic import ValidationError

from swarm_api.job import OptimizerState
from swarm_trainer.checkpoint.snapshot import Manifest
from swarm_trainer.errors import LinkError, SwarmError
from swarm_trainer.synchronizer.answers import Answers
from swarm_trainer.synchronizer.center import Center, Version
from swarm_trainer.synchronizer.checkpoints import Checkpoints, under
from swarm_trainer.synchronizer.founding import Found, Founding, Lost, Rebuild, Restore, Wait
from swarm_trainer.synchronizer.generations import Generations
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import Tensors
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.units import Unit, pack

log = logging.getLogger("swarm.synchronizer")


class Admission:
    """Decides what each particle starts from; `founding` decides on whose weights the swarm does."""

    def __init__(self, swarm: Swarm, answers: Answers, generations: Generations, checkpoints: Checkpoints) -> None:
        self._swarm = swarm
        self._answers = answers
        self._generations = generations
        self._checkpoints = checkpoints
        self._founding = Founding(swarm.settings)

    async def attached(self, peer: Peer, attach: say.Attach) -> None:
        """A particle wants to be a member: it waits until the swarm is founded, then for the end of a commit.

        Raises:
            LinkError: It has another model, or attached before.
        """
        swarm = self._swarm
        if peer.attach is not None:
            msg = "a second attach on one connection"
            raise LinkError(msg)
        if mismatch := self._mismatch(attach):
            msg = (
                f"particle {peer.index} brings another model than the swarm's: {mismatch}; start a new job, or restore "
                "the model that this one began with"
            )
            await peer.say(say.Stop(message=msg))
            raise LinkError(msg)
        peer.attach = attach
        if swarm.center is None:
            self._founding.arrived(peer.index, time.monotonic(), returning=attach.returning, round_=attach.round)
        swarm.changed.set()

    def admit(self) -> None:
        """Let those in who wait. Not while a commit is under way: it may hold a push of one that returned meanwhile."""
        for _, peer in sorted(self._swarm.peers.items()):
            if peer.attach is not None and not peer.admitted:
                keeps = peer.attach.returning
                self._admit(peer, peer.attach, keeps=keeps, expected=keeps, late=True)

    def left(self, peer: Peer) -> None:
        """It is gone before the swarm was founded, or after."""
        self._founding.left(peer.index)

    async def found(self) -> None:
        """Make the center, from a checkpoint or from the first particles, and admit all that are there.

        Raises:
            SwarmError: There is nothing left to make it from.
        """
        swarm, founding = self._swarm, self._founding
        kept = await self._checkpoints.recall()
        if kept is not None:
            founding.kept, founding.finished = kept[0].round, swarm.ledger.finished()
        keepers: frozenset[Peer] = frozenset()
        while swarm.center is None:
            await self._generations.begin()
            founding.settings = swarm.settings
            waiting = {index: peer for index, peer in swarm.peers.items() if peer.attach is not None}
            decision = founding.decide(frozenset(waiting), time.monotonic())
            match decision:
                case Wait(until):
                    await swarm.sleep(until)
                case Lost():
                    msg = (
                        "every particle has finished, and neither a particle nor a checkpoint has the model any more: "
                        "set spec.synchronizer.checkpoint, so that it outlives the synchronizer"
                    )
                    raise SwarmError(msg)
                case Restore():
                    assert kept is not None
                    self._restore(*kept)
                case Found(founder):
                    keepers = await self._gather(decision, [waiting[founder]])
                case Rebuild(founders):
                    keepers = await self._gather(decision, [waiting[index] for index in founders])
        for index in swarm.ledger.finished():
            swarm.rounds.finish(index)
        entering = [
            (not attach.returning, index, attach) for index, peer in swarm.peers.items() if (attach := peer.attach)
        ]
        late = not all(new for new, _, _ in entering)
        # Who returns knows where the swarm is, and newcomers start there.
        for new, index, attach in sorted(entering, key=lambda each: each[:2]):
            peer = swarm.peers[index]
            self._admit(peer, attach, keeps=peer in keepers or not new, expected=True, late=late)

    def _restore(self, manifest: Manifest, version: Version) -> None:
        swarm = self._swarm
        version = under(swarm.algorithm, swarm.settings, manifest, version)
        swarm.center = Center(swarm.algorithm, manifest.weights, version)
        self._checkpoints.restored(manifest)
        swarm.journal.note("restored", round=swarm.round, samples=swarm.ledger.samples)
        log.info("center restored from checkpoint %d-%d", manifest.round, manifest.epoch)

    async def _gather(self, decision: Found | Rebuild, founders: Sequence[Peer]) -> frozenset[Peer]:
        """Make the center from the weights of those of them that give theirs; who did keeps them."""
        states = await self._states(founders)
        swarm, schema = self._swarm, self._swarm.schema
        assert schema is not None
        weights = {peer.index: tensors for peer, tensors in states.items()}
        if not weights:
            return frozenset()
        match decision:
            case Found(founder):
                swarm.center = await swarm.in_merge_thread(
                    lambda: Center.found(swarm.algorithm, schema, weights[founder])
                )
                log.info("center founded on the weights of particle %d", founder)
            case Rebuild(_, last):
                swarm.center = await swarm.in_merge_thread(
                    lambda: Center.rebuild(swarm.algorithm, schema, weights, last_round=last)
                )
                swarm.ledger.forget(weights)
                swarm.units.settle_before(min(peer.attach.progress.epoch for peer in states if peer.attach is not None))
                log.info("center rebuilt from particles %s at round %d", sorted(weights), swarm.round)
                if swarm.algorithm.rebuild_loses:
                    log.warning("lost with the last synchronizer: %s", swarm.algorithm.rebuild_loses)
        return frozenset(states)

    async def _states(self, peers: Sequence[Peer]) -> dict[Peer, Tensors]:
        """Their weights; who does not begin to send within the deadline is cut off and may come back later."""
        loop = asyncio.get_running_loop()
        wanted: dict[Peer, asyncio.Future[Tensors]] = {peer: loop.create_future() for peer in peers}
        for peer, state in wanted.items():
            peer.state = state
            self._swarm.answer(peer, say.SendState())
        await asyncio.wait(wanted.values(), timeout=self._swarm.settings.sync.deadline_seconds)
        for peer, state in wanted.items():
            if not (state.done() or peer.transferring):
                peer.close()
        await asyncio.wait(wanted.values())
        for peer in peers:
            peer.state = None
        return {
            peer: state.result() for peer, state in wanted.items() if self._swarm.holds(peer) and not state.cancelled()
        }

    def _mismatch(self, attach: say.Attach) -> str:
        try:
            schema = Schema.model_validate(attach.model)
        except ValidationError as error:
            return f"its description cannot be read: {error}"
        if self._swarm.schema is None:
            self._swarm.schema = schema
        return self._swarm.schema.mismatch(schema)

    def _admit(self, peer: Peer, attach: say.Attach, *, keeps: bool, expected: bool, late: bool) -> None:
        """Make it a member. late: others have trained before it came."""
        swarm = self._swarm
        assert swarm.center is not None
        entry = swarm.ledger.attach(peer.identity, attach.progress if attach.returning else None)
        where = swarm.ledger.swarm_progress()
        own = {} if keeps else swarm.center.newcomer(peer.index)
        again = self._answers.again(peer.index, attach.pending) if keeps else None
        epoch, revoked = self._units(peer, attach, where.epoch)
        swarm.rounds.join(peer.index, expected=expected)
        peer.admitted = True
        welcome = say.Welcome(
            action=say.Action.KEEP if keeps else say.Action.ADOPT,
            tensors=tuple(own),
            settings=swarm.settings,
            reply=again.reply if again is not None else None,
            round=swarm.round,
            leader=swarm.leader,
            progress=where.model_copy(
                update={"epoch": epoch, "step": entry.progress.step, "samples": entry.progress.samples}
            ),
            inherits=late and not keeps and swarm.settings.join.optimizer_state is OptimizerState.PEER,
            revoked=pack(revoked),
        )
        swarm.answer(peer, welcome, again.tensors if again is not None else own)
        swarm.note("attached", peer)
        log.info("particle %d.%d attached: %s", peer.index, peer.identity.incarnation, welcome.action)
        swarm.changed.set()

    def _units(self, peer: Peer, attach: say.Attach, epoch: int) -> tuple[int, list[Unit]]:
        """The epoch that it enters, of a swarm that is in this one; and what a returning one must leave to others."""
        units = self._swarm.units
        if attach.returning:
            units.enter(peer.index, attach.progress.epoch)
            return epoch, units.returned(peer.index, attach.work)
        epoch = units.entry(peer.index, epoch, paced=self._swarm.rounds.paced)
        units.enter(peer.index, epoch)
        return epoch, []
