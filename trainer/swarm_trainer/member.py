"""A particle that belongs to a swarm."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from swarm_api import exits
from swarm_trainer import vectors
from swarm_trainer.algorithms import build
from swarm_trainer.data import particle_seed
from swarm_trainer.ending import Ending
from swarm_trainer.errors import RefusedError
from swarm_trainer.exchange import Exchange
from swarm_trainer.particle import Particle
from swarm_trainer.session import Session
from swarm_trainer.steps import Steps
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.messages import Action, Goodbye, Metrics

log = logging.getLogger("swarm.particle")

_GOODBYE_SECONDS = 5.0
_REUNION_SECONDS = 60.0
"""How long a particle that has finished waits for a synchronizer that is away, to give it its last steps."""


class Member(Particle):
    """Attached for as long as the process lives."""

    def __init__(self, surroundings: Surroundings, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        super().__init__()
        self._weights = FlatWeights(model, optimizers)
        Steps(optimizers, self._weights.parameters, begin=self._before_step, end=self._after_step)
        self._session = Session(surroundings, self._weights.schema, self._snapshot)
        self._in_center = False
        self._done = False
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
        self._exchange = Exchange(
            session=self._session,
            weights=self._weights,
            optimizers=optimizers,
            algorithm=build(settings.algorithm),
            period=settings.algorithm.sync_period,
            max_detached_steps=settings.sync.max_detached_steps,
            leader=welcome.leader,
            replicas=settings.replicas,
        )
        self._ending = Ending(self._at_exit)

    @property
    def leader(self) -> bool:
        """Whether this particle has the lowest index of those attached, as of its last exchange."""
        return self._exchange.leader == self.index

    def epochs(self, count: int) -> Iterator[int]:
        """As for one particle; after the last, what was not pushed yet is."""
        for epoch in super().epochs(count):
            # Whoever is scaled away finishes its epoch with the share it had.
            self.replicas = max(self._exchange.replicas, self.index + 1)
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

    def _snapshot(self) -> vectors.Tensors:
        return vectors.read(self._weights, vectors.X, vectors.BUFFERS, vectors.INTEGERS, vectors.FROZEN)

    def _moved(self, samples: int) -> None:
        position = self._session.position
        position.samples += samples
        position.epoch, position.fraction = self._epoch, self._fraction

    @torch.no_grad()
    def _before_step(self) -> None:
        if not self._done:
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
                self._say_goodbye(finished=False)
        if self._ending.asked:
            self._ending.obey()

    @torch.no_grad()
    def _finish(self) -> None:
        if not self._done:
            self._done = True
            with self._ending_when_refused():
                self._exchange.rest(patience=_REUNION_SECONDS)
            self._say_goodbye(finished=True)

    def _say_goodbye(self, *, finished: bool) -> None:
        goodbye = Goodbye(finished=finished, progress=self._session.position.progress())
        self._session.tell(goodbye, timeout=_GOODBYE_SECONDS)

    def _at_exit(self) -> None:
        if not self._ending.failed:
            self._finish()
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
