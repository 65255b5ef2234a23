"""The heart of the synchronizer: particles come, push, are answered and go, all on one event loop.

The arithmetic runs in a thread of its own, so heartbeats are answered while a round is merged.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from pydantic import BaseModel

from swarm_api.report import Presence, Report, SwarmState
from swarm_api.settings import Settings
from swarm_trainer.checkpoint.store import Store
from swarm_trainer.errors import LinkError, SwarmError
from swarm_trainer.synchronizer.admission import Admission
from swarm_trainer.synchronizer.answers import Answers
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.synchronizer.checkpoints import Checkpoints
from swarm_trainer.synchronizer.commits import Commits
from swarm_trainer.synchronizer.donors import Donors
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.generations import Generations
from swarm_trainer.synchronizer.journal import Journal
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import MODEL_VECTORS, X, present
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.auth import Identity
from swarm_trainer.wire.units import Spans, pack, unpack

log = logging.getLogger("swarm.synchronizer")

_FAREWELL_SECONDS = 60.0


class Hub:
    """One job's swarm, from its founding to its end."""

    def __init__(
        self, settings: Settings, *, epoch: int, journal: Journal, gauges: Gauges, store: Store | None = None
    ) -> None:
        """`store` holds the checkpoints; without one none are kept."""
        self._epoch = epoch
        self._swarm = Swarm(settings, journal=journal, gauges=gauges)
        answers = Answers(self._swarm)
        self._checkpoints = Checkpoints(self._swarm, store)
        self._generations = Generations(self._swarm, answers)
        self._admission = Admission(self._swarm, answers, self._generations, self._checkpoints)
        self._commits = Commits(self._swarm, answers, self._generations, self._checkpoints.committed)
        self._donors = Donors(self._swarm)
        self._finished_time = 0.0

    @property
    def center(self) -> Center | None:
        """None until the swarm is founded."""
        return self._swarm.center

    @property
    def known(self) -> Mapping[int, Identity]:
        """By index, the newest incarnation that a synchronizer before this one knew: older ones stay outside."""
        return self._checkpoints.known

    async def run(self) -> None:
        """Found the swarm, commit its rounds, and return when every particle has finished.

        Raises:
            SwarmError: Training cannot go on; the message says what to change.
        """
        swarm = self._swarm
        try:
            await self._admission.found()
            swarm.state = SwarmState.TRAINING
            while not self._complete():
                await self._generations.begin()
                self._admission.admit()
                await self._commits.step()
        except SwarmError as error:
            swarm.state, swarm.message = SwarmState.FAILED, str(error)
            for peer in swarm.peers.values():
                swarm.answer(peer, say.Stop(message=str(error)))
            await swarm.settle()
            raise
        if swarm.units.left:
            log.warning("%d batches were not trained: nobody was left to do it", swarm.units.left)
        await swarm.settle()

    def keep(self) -> None:
        """Write a last checkpoint, if there was a round since the last one."""
        self._checkpoints.last()

    def finish(self) -> None:
        """The model is written: report the end."""
        self._swarm.state, self._swarm.message = SwarmState.FINISHED, ""

    def complain(self, message: str) -> None:
        """All is trained, and the model cannot be written: the report says why, and the log once."""
        swarm = self._swarm
        if message != swarm.message:
            log.error("%s", message)
        swarm.state, swarm.message = SwarmState.TRAINING, message

    def apply(self, settings: Settings) -> None:
        """Go on under these settings from the end of the commit that is under way."""
        self._generations.announce(settings)

    async def welcome(self, peer: Peer) -> None:
        """Serve one particle until it goes."""
        peers, index = self._swarm.peers, peer.index
        previous = peers.pop(index, None)
        if previous is not None:
            self._lost(previous, "replaced by a newer connection")
            previous.close()
        peers[index] = peer
        why = "left"
        reassuring = asyncio.get_running_loop().create_task(peer.reassure())
        try:
            staying = True
            while staying:
                message = await peer.hear()
                # What was read from a connection that has been replaced meanwhile counts no more.
                with peer.attending():
                    staying = self._swarm.holds(peer) and await self._hear(peer, message)
        except LinkError as error:
            why = str(error)
        finally:
            reassuring.cancel()
            if self._swarm.holds(peer):
                del peers[index]
                self._lost(peer, why)

    def report(self) -> Report:
        """The swarm as it is now."""
        swarm = self._swarm
        progress = swarm.ledger.fraction(swarm.settings.replicas, swarm.settings.finished)
        return Report(
            uid=swarm.settings.uid,
            incarnation=self._epoch,
            state=swarm.state,
            message=swarm.message,
            round=swarm.round,
            best_loss=swarm.best[0] if swarm.best else None,
            best_particle=swarm.best[1] if swarm.best else None,
            progress=1.0 if swarm.state is SwarmState.FINISHED else round(progress, 4),
            samples_per_second=round(swarm.ledger.samples_per_second(), 1),
            last_sync_time=swarm.last_sync,
            settings_generation=swarm.settings.generation,
            checkpoint=self._checkpoints.report,
            particles=swarm.ledger.reports({index: peer.silent_seconds for index, peer in swarm.peers.items()}),
        )

    def cut(self) -> None:
        """Cut everyone off; nothing changes the center any more. May be called twice."""
        self._swarm.close()

    def close(self) -> None:
        """The same, and wait for a checkpoint that is being written. May be called twice."""
        self.cut()
        self._checkpoints.close()

    async def _hear(self, peer: Peer, message: BaseModel) -> bool:
        """Do what it says; False: it left."""
        swarm = self._swarm
        match message:
            case say.Attach():
                await self._admission.attached(peer, message)
            case say.Heartbeat():
                self._note_progress(peer, message.progress)
                await peer.say(say.Alive())
            case say.Push():
                await self._commits.pushed(peer, message)
            case say.State():
                if peer.state is None or swarm.schema is None:
                    msg = "weights that nobody asked for"
                    raise LinkError(msg)
                whole = present(swarm.schema, X, *MODEL_VECTORS)
                tensors = await peer.take(message.tensors, whole, swarm.empty, keep=True)
                if peer.state is not None and not peer.state.done():
                    peer.state.set_result(tensors)
            case say.Lease():
                self._lease(peer, message)
            case say.Skip():
                swarm.units.skip(peer.index, message.stream, unpack(message.units))
            case say.Release():
                swarm.units.release(peer.index, unpack(message.units))
            case say.FetchCenter():
                now = swarm.center.now if swarm.center is not None else None
                tensors = now.weights if now is not None else {}
                swarm.answer(peer, say.Center(round=now.round if now else 0, tensors=tuple(tensors)), tensors)
            case say.FetchDonation():
                self._donors.wanted(peer)
            case say.Donation():
                await self._donors.given(peer, message)
            case say.Metrics():
                swarm.note("metrics", peer, of=message.of, values=message.values)
            case say.Goodbye():
                self._note_progress(peer, message.progress)
                if message.finished:
                    self._finished(peer)
                    swarm.answer(peer, say.Farewell())
                elif peer.admitted:
                    swarm.ledger[peer.index].presence = Presence.ATTACHED
                return message.finished
        return True

    def _lease(self, peer: Peer, lease: say.Lease) -> None:
        if not peer.admitted:
            msg = "it asks for units of work before the welcome"
            raise LinkError(msg)
        swarm = self._swarm
        units = swarm.units.lease(
            peer.index, lease.stream, lease.count, calls=Spans(lease.calls), paced=swarm.rounds.paced
        )
        swarm.answer(peer, say.Leased(stream=lease.stream, units=pack(units)))

    def _finished(self, peer: Peer) -> None:
        if not peer.admitted:
            msg = "a goodbye before the welcome"
            raise LinkError(msg)
        swarm = self._swarm
        swarm.ledger[peer.index].presence = Presence.FINISHED
        swarm.rounds.finish(peer.index)
        swarm.units.finish(peer.index)
        self._finished_time = time.monotonic()
        swarm.note("finished", peer)
        log.info("particle %d.%d finished", peer.index, peer.identity.incarnation)
        swarm.changed.set()

    def _lost(self, peer: Peer, why: str) -> None:
        swarm = self._swarm
        peer.push = None
        self._admission.left(peer)
        if peer.admitted and swarm.ledger[peer.index].presence is Presence.ATTACHED:
            swarm.ledger.detach(peer.index)
            swarm.rounds.leave(peer.index)
            swarm.units.leave(peer.index)
            swarm.forget(peer.index)
            swarm.note("detached", peer, why=why)
            log.info("particle %d.%d is gone: %s", peer.index, peer.identity.incarnation, why)
        swarm.changed.set()

    def _note_progress(self, peer: Peer, progress: say.Progress) -> None:
        if peer.admitted:
            self._swarm.ledger[peer.index].heard = progress

    def _complete(self) -> bool:
        swarm = self._swarm
        done = swarm.ledger.finished() or swarm.settings.finished
        if swarm.unfinished or not done or swarm.rounds.open:
            return False
        # Those that finished may still evaluate the center, so the hub stays until they hang up.
        return not swarm.peers or time.monotonic() - self._finished_time > _FAREWELL_SECONDS
