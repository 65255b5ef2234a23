"""A particle that belongs to a swarm."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from swarm_api import exits
from swarm_trainer import vectors
from swarm_trainer.conversation import Conversation
from swarm_trainer.data import Order, particle_seed, prefetched
from swarm_trainer.drawing import Drawing
from swarm_trainer.ending import Ending
from swarm_trainer.errors import RefusedError
from swarm_trainer.exchange import Exchange
from swarm_trainer.particle import Particle
from swarm_trainer.session import Session
from swarm_trainer.steps import Steps
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.training_state import Stateful, TrainingState
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.messages import Action, Donation, Goodbye, Metrics, Skip
from swarm_trainer.wire.units import Spans, Stream, Unit

log = logging.getLogger("swarm.particle")

_LEAST_WINDOW = 8
"""Units that a particle has in hand, at least."""
_GOODBYE_SECONDS = 5.0
_REUNION_SECONDS = 60.0
"""How long a particle that has finished waits for a synchronizer to merge its last steps and to know of its end."""


class Member(Particle):
    """Attached for as long as the process lives."""

    def __init__(
        self,
        surroundings: Surroundings,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        state: Mapping[str, Stateful],
    ) -> None:
        super().__init__()
        self._weights = FlatWeights(model, optimizers)
        self._training = TrainingState(optimizers, state)
        Steps(optimizers, self._weights.parameters, begin=self._before_step, end=self._after_step)
        conversation = Conversation(surroundings, self._weights.schema, self._snapshot, self._donation)
        self._session = Session(conversation)
        self._in_center = False
        self._done = False
        self._loaders: WeakKeyDictionary[DataLoader[Any], Spans] = WeakKeyDictionary()
        """Numbers of the calls of `batches` with each loader."""
        with self._ending_when_refused():
            welcome, tensors = self._session.attach()
        if welcome.action is Action.ADOPT:
            vectors.write(self._weights, tensors)
        settings = welcome.settings
        self.index = surroundings.identity.index
        self.replicas = settings.replicas
        self.seed = particle_seed(settings.seed, self.index)
        self._swarm_seed = settings.seed
        self._epoch, self._fraction = welcome.progress.epoch, welcome.progress.fraction
        self._session.position.resume(welcome.progress)
        if welcome.inherits:
            self._inherit()
        self._exchange = Exchange(
            session=self._session,
            weights=self._weights,
            optimizers=optimizers,
            settings=settings,
            leader=welcome.leader,
        )
        self._ending = Ending(self._at_exit)

    @property
    def leader(self) -> bool:
        """Whether this particle has the lowest index of those attached, as of its last exchange."""
        return self._exchange.leader == self.index

    def register(self, **state: Stateful) -> None:
        """As for one particle."""
        self._training.register(state)

    def epochs(self, count: int) -> Iterator[int]:
        """As for one particle; after the last, what was not pushed yet is."""
        self._training.begin()
        for epoch in super().epochs(count):
            self.replicas = self._sharing()
            yield epoch
        self._finish()

    def report(self, loss: torch.Tensor | float | None = None, **metrics: torch.Tensor | float) -> None:
        """A loss counts as fitness, and figures go to metrics.jsonl; inside `center()` all are the center's."""
        if loss is not None and not self._in_center:
            self._exchange.meter.add(loss)
        values = {name: float(value) for name, value in metrics.items()}
        if loss is not None and (values or self._in_center):
            values["loss"] = float(loss)
        if values:
            self._session.tell(Metrics(of="center" if self._in_center else "particle", values=values))

    @contextmanager
    def center(self) -> Iterator[None]:
        """The center as it is now; without a synchronizer, the particle's own weights, reported as such."""
        with self._ending_when_refused():
            tensors = self._session.fetch_center()
        if tensors is None:
            log.warning("no synchronizer to ask for the center: these are the particle's own weights")
            yield
            return
        with self._weights.swapped(tensors[vectors.X], tensors.get(vectors.BUFFERS), tensors.get(vectors.INTEGERS)):
            self._in_center = True
            try:
                yield
            finally:
                self._in_center = False

    def _loaded(self, loader: DataLoader[Any], order: Order, stream: Stream) -> Iterator[tuple[Unit, Any]]:
        self._training.begin()
        if self._done:
            share = range(self.index, stream.total, self.replicas)
            yield from order.load(Unit(stream, number) for number in share)
            return
        self._tell_what_was_left()
        self._loaders.setdefault(loader, Spans()).add(stream.call)
        leases, period = self._session.leases, self._exchange.period
        # Enough for what workers prefetch, and for the time that an answer takes.
        begun = leases.begin(stream, window=max(2 * period, prefetched(loader) + period, _LEAST_WINDOW))
        drawing = Drawing(self._session, begun, self._loaders[loader], self._sharing)
        early = True
        try:
            # Workers come to the end of what there is before the script, and by then others may have left some.
            while drawing.more():
                for unit, batch in order.load(drawing.units()):
                    if leases.start(begun, unit):
                        yield unit, batch
            early = False
        finally:
            leases.end(begun, early=early)

    def _tell_what_was_left(self) -> None:
        if self._session.attached:
            for stream, units in self._session.leases.left_early():
                self._session.tell(Skip(stream=stream, units=units))

    def _sharing(self) -> int:
        """Among how many the data is shared out. Whoever is scaled away finishes its epoch with the share it had."""
        return max(self._exchange.replicas, self.index + 1)

    def _snapshot(self) -> vectors.Tensors:
        return vectors.read(self._weights, vectors.X, vectors.BUFFERS, vectors.INTEGERS, vectors.FROZEN)

    def _donation(self) -> tuple[Donation, vectors.Tensors]:
        return self._training.give(vectors.largest_donation(self._weights.schema))

    def _inherit(self) -> None:
        with self._ending_when_refused():
            answer = self._session.fetch_donation()
        self._training.take(*answer or (Donation(problem="the synchronizer went away"), {}))

    def _moved(self, samples: int) -> None:
        position = self._session.position
        position.samples += samples
        position.epoch, position.fraction = self._epoch, self._fraction

    @torch.no_grad()
    def _before_step(self) -> None:
        if not self._done:
            self._training.begin()
            with self._ending_when_refused():
                self._exchange.before_step()

    @torch.no_grad()
    def _after_step(self) -> None:
        if self._done:
            return
        with self._ending_when_refused():
            self._exchange.after_step()
            while self._exchange.alone_too_long and not self._ending.asked:
                self._exchange.wait_for_the_swarm()
            if self._ending.asked:
                self._exchange.rest()
                self._leave()
        if self._ending.asked:
            self._ending.obey()

    @torch.no_grad()
    def _finish(self) -> None:
        if not self._done:
            self._done = True
            self._tell_what_was_left()
            deadline = time.monotonic() + _REUNION_SECONDS
            with self._ending_when_refused():
                merged = self._exchange.rest(patience=_REUNION_SECONDS, until=lambda: self._ending.asked)
                if not merged:
                    self._session.lose()
                left = max(_GOODBYE_SECONDS, deadline - time.monotonic())
                if not self._session.part(
                    self._goodbye(finished=True), patience=left, until=lambda: self._ending.asked
                ):
                    log.warning("no synchronizer knows that this particle has finished")
            self._ending.wait_no_more()

    def _leave(self) -> None:
        self._session.tell(self._goodbye(finished=False), timeout=_GOODBYE_SECONDS)

    def _goodbye(self, *, finished: bool) -> Goodbye:
        return Goodbye(finished=finished, progress=self._session.position.progress())

    def _at_exit(self) -> None:
        if not self._ending.failed:
            self._finish()
        elif self._done:
            self._leave()  # After its last epoch it said that it had.
        self._session.close()

    @contextmanager
    def _ending_when_refused(self) -> Iterator[None]:
        try:
            yield
        except RefusedError as error:
            log.error("%s: %s", error.reason, error)
            self._done = True
            self._session.close()
            raise SystemExit(exits.FENCED if error.reason == "Fenced" else exits.REFUSED) from error
