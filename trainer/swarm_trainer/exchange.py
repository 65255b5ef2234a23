"""One particle's side of a swarm algorithm: when to exchange, what to push, and how to apply what comes back."""

import logging
import math
import time
from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from swarm_trainer import vectors
from swarm_trainer.algorithms.base import Algorithm, Fitness, Message, State, When
from swarm_trainer.fitness import FitnessMeter
from swarm_trainer.session import Session
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.messages import Push, Reply, ReplyStatus

log = logging.getLogger("swarm.particle")

_PAUSE_SECONDS = 1.0


class Exchange:
    """Hooks around the inner optimizer's step. The weights change only inside these calls."""

    def __init__(
        self,
        *,
        session: Session,
        weights: FlatWeights,
        optimizers: Sequence[Optimizer],
        algorithm: Algorithm,
        period: int,
        max_detached_steps: int,
        leader: int,
        replicas: int,
    ) -> None:
        self._session = session
        self._weights = weights
        self._optimizers = optimizers
        self._algorithm = algorithm
        self.period = period
        """Steps from one exchange to the next."""
        self._max_detached_steps = max_detached_steps
        self._state: State = algorithm.particle_state(weights.gather())
        self._sequence = 0
        self._since_exchange = 0
        self._since_merge = 0
        self._samples_at_merge = session.position.samples
        self._fitness = Fitness(math.nan, math.inf)
        self.meter = FitnessMeter()
        self.leader = leader
        """Lowest index attached, as of the last reply."""
        self.replicas = replicas
        """Particles that the job asks for, as of the last reply."""
        self._acts_every_step = any(
            getattr(type(algorithm), hook) is not getattr(Algorithm, hook) for hook in ("before_step", "after_step")
        )
        algorithm.before_step(self._state, weights.gather())
        weights.scatter()

    def before_step(self) -> None:
        """The gradient is there, the optimizer has not moved the weights yet."""
        if self._algorithm.when is not When.AFTER and self._since_exchange >= self.period:
            self.now()

    def after_step(self) -> None:
        """The optimizer has moved the weights."""
        self._session.leases.stepped()
        self._since_exchange += 1
        self._since_merge += 1
        self._session.position.step += 1
        if self._acts_every_step:
            x = self._weights.gather()
            self._algorithm.after_step(self._state, x, None, self._learning_rate())
            self._weights.scatter()
        if self._algorithm.when is When.AFTER and self._since_exchange >= self.period:
            self.now()
        if self._acts_every_step:
            self._algorithm.before_step(self._state, self._weights.gather())
            self._weights.scatter()
        self._session.at_step()

    def rest(self, *, patience: float = 0.0) -> None:
        """At the end: push the steps since the last merge, that nothing is lost.

        Args:
            patience: Seconds to wait for a synchronizer that is not there.
        """
        deadline = time.monotonic() + patience
        while self._since_merge and not self.now():
            if not self._session.wait_attached(deadline - time.monotonic()):
                log.warning("no synchronizer to push the last %d steps to", self._since_merge)
                break
        if self._algorithm.when is When.BEFORE:
            # No step will follow, and what the exchange left for after it is due.
            self._algorithm.after_step(self._state, self._weights.gather(), None, self._learning_rate())
            self._weights.scatter()

    @property
    def alone_too_long(self) -> bool:
        """Whether the particle has taken maxDetachedSteps without a commit: it must not train on."""
        return self._since_merge >= self._max_detached_steps

    def wait_for_the_swarm(self) -> None:
        """Try to exchange, after a moment."""
        log.warning("%d steps without a commit (maxDetachedSteps): waiting for the swarm", self._since_merge)
        if self._session.wait_attached(_PAUSE_SECONDS):
            self.now()
        if self.alone_too_long:
            time.sleep(_PAUSE_SECONDS)

    def now(self) -> bool:
        """Exchange once. Without a synchronizer, or below minReplicas, the particle just trains on.

        Returns:
            Whether a synchronizer answered.

        Raises:
            UnsupportedModelError: The weights are no longer what was attached.
            RefusedError: This particle was replaced.
        """
        if self._since_exchange:
            self._fitness = self.meter.take()
        fitness = self._fitness
        self._since_exchange = 0
        self._sequence += 1
        x = self._weights.gather()
        message = self._algorithm.push(self._state, x, fitness)
        progress = self._session.position.progress()
        push = Push(
            sequence=self._sequence,
            fitness=fitness.mean,
            standard_error=fitness.standard_error,
            new_samples=progress.samples - self._samples_at_merge,
            numbers=message.numbers,
            tensors=(),
            progress=progress,
            units=self._session.leases.trained(),
        )
        outgoing = {name: tensor.detach().cpu().contiguous() for name, tensor in message.tensors.items()}
        outgoing |= vectors.read(self._weights, vectors.BUFFERS, vectors.INTEGERS)
        answer = self._session.exchange(push.model_copy(update={"tensors": tuple(outgoing)}), outgoing)
        if answer is None:
            self._algorithm.refused(self._state, x, message)
            return False
        reply, tensors = answer
        self.leader, self.replicas = reply.leader, reply.replicas
        if reply.status is ReplyStatus.MERGED:
            self._session.leases.committed(push.units)
        elif reply.status is ReplyStatus.REFUSED:
            self._session.leases.refused(push.units)
        self._apply(reply, tensors, x, message)
        return True

    def _apply(self, reply: Reply, tensors: vectors.Tensors, x: torch.Tensor, message: Message) -> None:
        own = {
            name: tensors.pop(name) for name in (vectors.BUFFERS, vectors.INTEGERS, vectors.FROZEN) if name in tensors
        }
        match reply.status:
            case ReplyStatus.MERGED:
                there = {name: tensor.to(x.device, non_blocking=True) for name, tensor in tensors.items()}
                self._algorithm.pull(self._state, x, Message(there, dict(reply.numbers)), self._learning_rate())
            case ReplyStatus.HELD:
                self._algorithm.refused(self._state, x, message)
            case ReplyStatus.REFUSED:
                log.warning("the weights were not finite; going on from the swarm's center")
                x.copy_(tensors[vectors.X])
                self._state = self._algorithm.particle_state(x)
                self._recover()
        if reply.status is not ReplyStatus.HELD:
            self._since_merge = 0
            self._samples_at_merge = self._session.position.samples
        self._weights.scatter()
        vectors.write(self._weights, own)

    def _recover(self) -> None:
        """Forget what the lost weights left behind: their gradient, and what is not finite in the optimizers' state."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for state in optimizer.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor) and value.is_floating_point():
                        value.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def _learning_rate(self) -> float:
        return float(self._optimizers[0].param_groups[0]["lr"])
