"""One particle's side of a swarm algorithm: when to exchange, what to push, and how to apply what comes back."""

import logging
import time
from typing import Protocol

import torch
from torch.optim import Optimizer

from swarm_trainer import vectors
from swarm_trainer.algorithms.base import Algorithm, Message, State, When
from swarm_trainer.fitness import FitnessMeter
from swarm_trainer.session import Session
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.messages import Push, Reply, ReplyStatus

log = logging.getLogger("swarm.particle")

_PAUSE_SECONDS = 1.0


class Rules(Protocol):
    """What the exchange needs of the settings."""

    period: int
    max_detached_steps: int


class Exchange:
    """Hooks around the inner optimizer's step. The weights change only inside these calls."""

    def __init__(
        self,
        *,
        session: Session,
        weights: FlatWeights,
        optimizer: Optimizer,
        algorithm: Algorithm,
        period: int,
        max_detached_steps: int,
        leader: int,
    ) -> None:
        self._session = session
        self._weights = weights
        self._optimizer = optimizer
        self._algorithm = algorithm
        self._period = period
        self._max_detached_steps = max_detached_steps
        self._state: State = algorithm.particle_state(weights.gather())
        self._sequence = 0
        self._since_exchange = 0
        self._since_merge = 0
        self._samples_at_merge = session.progress.samples
        self.meter = FitnessMeter()
        self.leader = leader
        """Lowest index attached, as of the last reply."""
        algorithm.before_step(self._state, weights.gather())

    def before_step(self) -> None:
        """The gradient is there, the optimizer has not moved the weights yet."""
        if self._algorithm.when is not When.AFTER and self._since_exchange >= self._period:
            self.now()

    def after_step(self) -> None:
        """The optimizer has moved the weights."""
        self._since_exchange += 1
        self._since_merge += 1
        progress = self._session.progress
        self._session.progress = progress.model_copy(update={"step": progress.step + 1})
        x = self._weights.gather()
        self._algorithm.after_step(self._state, x, None, self._learning_rate())
        self._weights.scatter()
        if self._algorithm.when is When.AFTER and self._since_exchange >= self._period:
            self.now()
        self._algorithm.before_step(self._state, x)
        self._session.at_step()
        self._pause_if_alone_too_long()

    def rest(self) -> None:
        """At the end: push the steps since the last exchange, that nothing is lost."""
        if self._since_exchange:
            self.now()

    def now(self) -> None:
        """Exchange once. Without a synchronizer, or below minReplicas, the particle just trains on.

        Raises:
            UnsupportedModelError: The weights are no longer what was attached.
            RefusedError: This particle was replaced.
        """
        self._since_exchange = 0
        self._sequence += 1
        x = self._weights.gather()
        fitness = self.meter.take()
        message = self._algorithm.push(self._state, x, fitness)
        progress = self._session.progress
        push = Push(
            sequence=self._sequence,
            fitness=fitness.mean,
            standard_error=fitness.standard_error,
            new_samples=progress.samples - self._samples_at_merge,
            numbers=message.numbers,
            tensors=(),
            progress=progress,
        )
        outgoing = {name: tensor.detach().cpu().contiguous() for name, tensor in message.tensors.items()}
        outgoing |= vectors.read(self._weights, vectors.BUFFERS, vectors.INTEGERS)
        answer = self._session.exchange(push.model_copy(update={"tensors": tuple(outgoing)}), outgoing)
        if answer is None:
            self._algorithm.refused(self._state, x, message)
            return
        reply, tensors = answer
        self.leader = reply.leader
        self._apply(reply, tensors, x, message)

    def _apply(self, reply: Reply, tensors: vectors.Tensors, x: torch.Tensor, message: Message) -> None:
        own = {
            name: tensors.pop(name) for name in (vectors.BUFFERS, vectors.INTEGERS, vectors.FROZEN) if name in tensors
        }
        match reply.status:
            case ReplyStatus.MERGED:
                there = {name: tensor.to(x.device, non_blocking=True) for name, tensor in tensors.items()}
                self._algorithm.pull(self._state, x, Message(there, dict(reply.numbers)), self._learning_rate())
                self._since_merge = 0
                self._samples_at_merge = self._session.progress.samples
            case ReplyStatus.HELD:
                self._algorithm.refused(self._state, x, message)
            case ReplyStatus.REFUSED:
                log.warning("the weights were not finite; going on from the swarm's center")
                x.copy_(tensors[vectors.X])
                self._state = self._algorithm.particle_state(x)
        self._weights.scatter()
        vectors.write(self._weights, own)

    def _learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _pause_if_alone_too_long(self) -> None:
        if self._since_merge < self._max_detached_steps:
            return
        log.warning("%d steps without a commit (maxDetachedSteps): waiting for the swarm", self._since_merge)
        while not self._session.attached:
            self._session.wait_attached(_PAUSE_SECONDS)
        while self._since_merge >= self._max_detached_steps:
            self.now()
            if self._since_merge:
                time.sleep(_PAUSE_SECONDS)
