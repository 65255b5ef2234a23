"""What all parts of the synchronizer share: who is there, what was merged, and how to answer."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from swarm_api.report import SwarmState
from swarm_api.settings import Settings
from swarm_trainer.algorithms import Algorithm, build
from swarm_trainer.checkpoint.snapshot import Part
from swarm_trainer.errors import LinkError
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.journal import Journal
from swarm_trainer.synchronizer.ledger import Ledger
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.rounds import Pace, Rounds
from swarm_trainer.synchronizer.units import Table
from swarm_trainer.vectors import Tensors, room
from swarm_trainer.weights import Schema

log = logging.getLogger("swarm.synchronizer")

T = TypeVar("T")

_SETTLE_SECONDS = 5.0


class Swarm:
    """Used from the event loop only; what takes long runs in the one merge thread."""

    def __init__(self, settings: Settings, *, journal: Journal, gauges: Gauges) -> None:
        self.settings = settings
        self.journal = journal
        self.gauges = gauges
        self.algorithm = build(settings.algorithm)
        self.schema: Schema | None = None
        """The model's, as the first particle brought it."""
        self.center: Center | None = None
        """None until the swarm is founded."""
        self.peers: dict[int, Peer] = {}
        """Who is connected, by index; members are those that were admitted."""
        self.ledger = Ledger()
        self.units = Table(settings.replicas)
        self.parts: dict[str, Part] = {"ledger": self.ledger, "units": self.units}
        """What goes into checkpoints beside the center."""
        self.rounds = Rounds(_pace(settings, barrier=self.algorithm.barrier))
        for index in settings.finished:
            self.rounds.finish(index)
        self.state = SwarmState.STARTING
        self.message = ""
        self.best: tuple[float, int] | None = None
        """Loss and index of the fittest of the last round."""
        self.last_sync: float | None = None
        """Unix seconds of the last commit."""
        self.changed = asyncio.Event()
        """Set whenever there may be something to decide."""
        self._answers: set[asyncio.Task[None]] = set()
        self._merging = ThreadPoolExecutor(1, thread_name_prefix="merge")

    @property
    def round(self) -> int:
        """Commits so far."""
        return self.center.now.round if self.center is not None else 0

    @property
    def leader(self) -> int:
        """The lowest index of the members."""
        members = (index for index in range(self.settings.replicas) if index in self.peers)
        return next((index for index in members if self.peers[index].admitted), 0)

    @property
    def wanted(self) -> frozenset[int]:
        """Indices that were not given up, finished or not."""
        return frozenset(range(self.settings.replicas)) - frozenset(self.settings.given_up)

    @property
    def unfinished(self) -> frozenset[int]:
        """Indices that the training still waits for, whether they are there or not."""
        awaited = self.wanted - frozenset(self.settings.finished)
        return awaited - self.ledger.finished()

    @property
    def training(self) -> frozenset[int]:
        """Members that are attached and have not finished."""
        return frozenset(index for index, peer in self.peers.items() if peer.admitted) - self.ledger.finished()

    def use(self, settings: Settings, algorithm: Algorithm) -> None:
        """These hold from now on."""
        self.settings, self.algorithm = settings, algorithm
        self.units.replicas = settings.replicas
        self.rounds.pace = _pace(settings, barrier=algorithm.barrier)

    def holds(self, peer: Peer) -> bool:
        """Whether this peer is still the one of its index."""
        return self.peers.get(peer.index) is peer

    def empty(self, name: str) -> torch.Tensor:
        """Memory for a vector of the model."""
        assert self.schema is not None
        return room(self.schema, name)

    def answer(
        self,
        peer: Peer,
        message: BaseModel,
        tensors: Tensors | None = None,
        *,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        """Send without waiting for it: a slow receiver holds nobody up, and one that is gone is cut off.

        Args:
            peer: To whom.
            message: What.
            tensors: Those that it announces.
            sent: Called once all of it has left.
        """

        async def send() -> None:
            try:
                await peer.say(message, tensors)
            except LinkError as error:
                log.info("particle %d did not take its answer: %s", peer.index, error)
                peer.close()
            else:
                sent()

        task = asyncio.get_running_loop().create_task(send())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def in_merge_thread(self, work: Callable[[], T]) -> T:
        """Run arithmetic off the event loop, one piece after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._merging, work)

    def forget(self, index: int) -> None:
        """A member is gone for now: whatever the algorithm keeps of it goes too."""
        if self.center is not None:
            self._merging.submit(self.center.leave, index)

    async def sleep(self, until: float | None) -> None:
        """Until something changed, or until this monotonic time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self.changed.wait()
        self.changed.clear()

    def note(self, kind: str, peer: Peer, **fields: Any) -> None:
        """A line of the journal about one particle."""
        self.journal.note(
            kind,
            particle=peer.index,
            incarnation=peer.identity.incarnation,
            round=self.round,
            samples=self.ledger.samples,
            **fields,
        )

    async def settle(self) -> None:
        """Let answers under way arrive."""
        if self._answers:
            await asyncio.wait(self._answers, timeout=_SETTLE_SECONDS)

    def close(self) -> None:
        """Cut everyone off and wait for the merge thread. May be called twice."""
        for peer in list(self.peers.values()):
            peer.close()
        self._merging.shutdown(wait=True)


def _pace(settings: Settings, *, barrier: bool) -> Pace:
    sync = settings.sync
    return Pace(
        min_replicas=settings.min_replicas,
        quorum_of=sync.quorum_of,
        deadline=sync.deadline_seconds,
        grace=None if sync.grace_milliseconds is None else sync.grace_milliseconds / 1000,
        barrier=barrier,
    )
