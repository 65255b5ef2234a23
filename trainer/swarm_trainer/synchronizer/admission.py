"""How particles become members: the first ones found the swarm, later ones join it."""

import asyncio
import logging
import time

from pydantic import ValidationError

from swarm_api.settings import Settings
from swarm_trainer.errors import LinkError
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.synchronizer.founding import Founding
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import Tensors
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say

log = logging.getLogger("swarm.synchronizer")


class Admission:
    """Decides what each particle starts from; `founding` decides on whose weights the swarm does."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._founding = Founding(swarm.settings)

    def apply(self, settings: Settings) -> None:
        """Count with these settings from now on."""
        self._founding.settings = settings

    async def attached(self, peer: Peer, attach: say.Attach) -> None:
        """A particle wants to be a member; until the swarm is founded it waits.

        Raises:
            LinkError: It has another model, or attached before.
        """
        swarm = self._swarm
        if peer.attach is not None:
            msg = "a second attach on one connection"
            raise LinkError(msg)
        if mismatch := self._mismatch(attach):
            msg = f"particle {peer.index} brings another model than the swarm's: {mismatch}"
            await peer.say(say.Stop(message=msg))
            raise LinkError(msg)
        peer.attach = attach
        if swarm.center is None:
            self._founding.arrived(peer.index, time.monotonic(), returning=attach.returning, round_=attach.round)
            swarm.changed.set()
        else:
            self._admit(peer, keeps=attach.returning, expected=attach.returning)

    def left(self, peer: Peer) -> None:
        """It is gone before the swarm was founded, or after."""
        self._founding.left(peer.index)

    async def found(self) -> None:
        """Wait for the first particles, make the center from their weights, and admit all that are there."""
        swarm = self._swarm
        states = await self._founders()
        schema = swarm.schema
        assert schema is not None
        weights = {peer.index: tensors for peer, tensors in states.items()}
        if self._founding.rebuilding:
            last = self._founding.last_round
            swarm.center = await swarm.in_merge_thread(
                lambda: Center.rebuild(swarm.algorithm, schema, weights, last_round=last)
            )
            log.info("center rebuilt from particles %s at round %d", sorted(weights), swarm.round)
        else:
            founder = min(weights)
            swarm.center = await swarm.in_merge_thread(lambda: Center.found(swarm.algorithm, schema, weights[founder]))
            log.info("center founded on the weights of particle %d", founder)
        for _, peer in sorted(swarm.peers.items()):
            if peer.attach is not None:
                self._admit(peer, keeps=peer in states or peer.attach.returning, expected=True)

    async def _founders(self) -> dict[Peer, Tensors]:
        swarm = self._swarm
        while True:
            waiting = {index: peer for index, peer in swarm.peers.items() if peer.attach is not None}
            founders, until = self._founding.decide(frozenset(waiting), time.monotonic())
            if not founders:
                await swarm.sleep(until)
            elif states := await self._states([waiting[index] for index in founders]):
                return states

    async def _states(self, peers: list[Peer]) -> dict[Peer, Tensors]:
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

    def _admit(self, peer: Peer, *, keeps: bool, expected: bool) -> None:
        swarm, attach = self._swarm, peer.attach
        assert attach is not None
        assert swarm.center is not None
        entry = swarm.ledger.attach(peer.identity, attach.progress if attach.returning else None)
        where = swarm.ledger.swarm_progress()
        tensors = {} if keeps else swarm.center.newcomer(peer.index)
        swarm.rounds.join(peer.index, expected=expected)
        peer.admitted = True
        welcome = say.Welcome(
            action=say.Action.KEEP if keeps else say.Action.ADOPT,
            tensors=tuple(tensors),
            settings=swarm.settings,
            round=swarm.round,
            leader=swarm.leader,
            progress=where.model_copy(update={"step": entry.progress.step, "samples": entry.progress.samples}),
        )
        swarm.answer(peer, welcome, tensors)
        swarm.note("attached", peer)
        log.info("particle %d.%d attached: %s", peer.index, peer.identity.incarnation, welcome.action)
        swarm.changed.set()
