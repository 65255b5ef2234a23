"""One particle's side of a swarm algorithm: when to exchange, what to push, and how to apply what comes back."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.optim import Optimizer

from swarm_api.settings import Settings
from swarm_trainer import vectors
from swarm_trainer.algorithms import build
from swarm_trainer.algorithms.base import Algorithm, Fitness, Message, State, When
from swarm_trainer.fitness import FitnessMeter
from swarm_trainer.inbox import Return
from swarm_trainer.session import Session
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.messages import Push, Reply, ReplyStatus
from swarm_trainer.wire.units import Units

log = logging.getLogger("swarm.particle")

_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Pushed:
    """What the answer to a push refers to."""

    step: int
    samples: int
    message: Message
    x: torch.Tensor
    """The live weights while the particle waits for the answer; else a copy of what they were."""
    units: tuple[Units, ...]
    """That it trained since the last committed push."""

    def kept(self) -> "_Pushed":
        """Independent of the live weights, for a particle that steps on before the answer comes."""
        x = self.x.clone()
        tensors = {name: x if tensor is self.x else tensor.clone() for name, tensor in self.message.tensors.items()}
        return replace(self, x=x, message=replace(self.message, tensors=tensors))


class Exchange:
    """Hooks around the inner optimizer's step. The weights change only inside these calls.

    A push whose connection ends before the answer is *pending*: the particle trains on, and no other push leaves until
    the synchronizer has said what became of it. Then its answer, if it was merged, is applied as the difference that
    it makes to the weights that were pushed. So nothing is merged twice and no step is lost.
    """

    def __init__(
        self,
        *,
        session: Session,
        weights: FlatWeights,
        optimizers: Sequence[Optimizer],
        settings: Settings,
        leader: int,
    ) -> None:
        self._session = session
        self._weights = weights
        self._optimizers = optimizers
        self._sequence = 0
        self._pending: _Pushed | None = None
        self._coming: Settings | None = None
        """New settings, which take effect between two steps."""
        self._since_exchange = 0
        self._step_at_merge = session.position.step
        self._samples_at_merge = session.position.samples
        self._fitness: Fitness | None = None
        """Of steps that were pushed and not merged: it stands for them again."""
        self._gradient: torch.Tensor | None = None
        self.meter = FitnessMeter()
        self.leader = leader
        """Lowest index attached, as of the last reply."""
        self.replicas = settings.replicas
        """Particles that the job asks for, as of the last reply."""
        self._settings = settings
        self._algorithm = build(settings.algorithm)
        self._state: State = self._algorithm.particle_state(weights.gather())
        self._begin_step()

    def before_step(self) -> None:
        """The gradient is there, the optimizer has not moved the weights yet."""
        if self._algorithm.when is not When.AFTER and self._due:
            self._push()

    def after_step(self) -> None:
        """The optimizer has moved the weights."""
        self._session.leases.stepped()
        self._since_exchange += 1
        self._session.position.step += 1
        if self._acts("after_step"):
            self._end_step(self._gather_gradient())
        self._catch_up()
        if self._algorithm.when is When.AFTER and self._due:
            self.now()
        self._begin_step()

    def rest(self, *, patience: float = 0.0, until: Callable[[], bool] = lambda: False) -> bool:
        """At the end: push the steps since the last merge, that nothing is lost.

        Args:
            patience: Seconds to wait for a synchronizer that is not there, or that holds the push.
            until: Ends that patience.

        Returns:
            Whether all steps are merged; else it is said how many are lost.
        """
        deadline = time.monotonic() + patience
        while self._unmerged and not self.now():
            left = deadline - time.monotonic()
            if left <= 0 or self._hopeless or until():
                log.warning("the last %d steps are lost: %s", self._unmerged, self._obstacle)
                break
            if self._session.attached:
                time.sleep(min(left, _PAUSE_SECONDS))
            else:
                self._session.wait_attached(left, until)
        self._let_go()
        return not self._unmerged

    @property
    def alone_too_long(self) -> bool:
        """Whether the particle has taken maxDetachedSteps without a commit: it must not train on."""
        return self._unmerged >= self._settings.sync.max_detached_steps

    def wait_for_the_swarm(self) -> None:
        """Try to exchange, after a moment."""
        log.warning("%d steps without a commit (maxDetachedSteps): waiting for the swarm", self._unmerged)
        if self._session.wait_attached(_PAUSE_SECONDS):
            self.now()
        if self.alone_too_long:
            time.sleep(_PAUSE_SECONDS)

    def now(self) -> bool:
        """Between two steps: exchange once. Without a synchronizer, or below minReplicas, the particle just trains on.

        Returns:
            Whether all steps are merged. A push that was held, or that nobody answered, is made again later.

        Raises:
            UnsupportedModelError: The weights are no longer what was attached.
            RefusedError: This particle was replaced.
        """
        while True:
            self._catch_up()
            if not self._unmerged:
                return True
            if not self._push() or self._coming is None:
                return not self._unmerged

    @property
    def period(self) -> int:
        """Steps from one exchange to the next."""
        return self._settings.algorithm.sync_period

    @property
    def _due(self) -> bool:
        return self._since_exchange >= self.period

    @property
    def _unmerged(self) -> int:
        """Steps that no commit knows of yet."""
        return self._session.position.step - self._step_at_merge

    @property
    def _hopeless(self) -> bool:
        """Whether the held push has no finite loss, which the algorithm needs: no wait will give it one."""
        held = self._fitness if self._pending is None and not self.meter.heard else None
        return self._algorithm.needs_fitness and held is not None and not math.isfinite(held.mean)

    @property
    def _obstacle(self) -> str:
        if self._hopeless:
            return "they have no finite loss"
        return "fewer than minReplicas particles are there" if self._session.attached else "there is no synchronizer"

    def _push(self) -> bool:
        """Push and apply the answer; whether there was one."""
        self._hear()
        if self._pending is not None or self._coming is not None or not self._session.attached:
            return False
        position = self._session.position
        if self._fitness is None or self.meter.heard:
            self._fitness = self.meter.take()
        self._sequence += 1
        x = self._weights.gather()
        message = self._algorithm.push(self._state, x, self._fitness)
        pushed = _Pushed(position.step, position.samples, message, x, self._session.leases.trained())
        outgoing = {name: tensor.detach().cpu().contiguous() for name, tensor in message.tensors.items()}
        outgoing |= vectors.read(self._weights, vectors.BUFFERS, vectors.INTEGERS)
        push = Push(
            sequence=self._sequence,
            generation=self._settings.generation,
            fitness=self._fitness.mean,
            standard_error=self._fitness.standard_error,
            new_samples=position.samples - self._samples_at_merge,
            numbers=message.numbers,
            tensors=tuple(outgoing),
            progress=position.progress(),
            units=pushed.units,
        )
        answer = self._session.exchange(push, outgoing)
        if answer is None:
            self._pending = pushed.kept()
            return False
        self._settle(pushed, *answer)
        return True

    def _catch_up(self) -> None:
        """Between two steps: late answers and new settings take effect."""
        self._hear()
        if self._coming is not None:
            self._follow(self._coming)
            self._coming = None

    def _hear(self) -> None:
        for back in self._session.at_step():
            pushed, self._pending = self._pending, None
            if pushed is not None and back.welcome.reply is None:
                self._algorithm.refused(self._state, self._weights.gather(), pushed.message)
            elif pushed is not None:
                self._settle_late(pushed, back)
            self.leader, self.replicas = back.welcome.leader, back.welcome.settings.replicas
            if back.welcome.settings != self._settings:
                self._coming = back.welcome.settings

    def _settle_late(self, pushed: _Pushed, back: Return) -> None:
        assert back.welcome.reply is not None
        log.info("push of step %d was answered before the connection ended; applying it now", pushed.step)
        self._settle(pushed, back.welcome.reply, back.tensors)

    def _settle(self, pushed: _Pushed, reply: Reply, tensors: vectors.Tensors) -> None:
        """Apply the answer to a push; from then on another may leave."""
        x = self._weights.gather()
        own = {
            name: tensors.pop(name) for name in (vectors.BUFFERS, vectors.INTEGERS, vectors.FROZEN) if name in tensors
        }
        self.leader, self.replicas = reply.leader, reply.replicas
        merged_at, fitness = (pushed.step, pushed.samples), self._fitness
        self._fitness = None
        match reply.status:
            case ReplyStatus.MERGED:
                there = {name: tensor.to(x.device, non_blocking=True) for name, tensor in tensors.items()}
                self._pull(x, pushed, Message(there, dict(reply.numbers)))
                self._session.leases.committed(pushed.units)
            case ReplyStatus.HELD:
                self._algorithm.refused(self._state, x, pushed.message)
                merged_at, self._fitness = (self._step_at_merge, self._samples_at_merge), fitness
                self._coming = reply.settings or self._coming
            case ReplyStatus.FORGOTTEN:
                log.warning("the push of step %d was merged, and its answer is lost", pushed.step)
                self._algorithm.refused(self._state, x, pushed.message)
                self._session.leases.committed(pushed.units)
            case ReplyStatus.REFUSED:
                log.warning("the weights were not finite; going on from the swarm's center")
                x.copy_(tensors[vectors.X])
                self._state = self._algorithm.particle_state(x)
                self._recover()
                # Also what was trained while the answer was on its way.
                self._session.lose()
                merged_at = self._session.position.step, self._session.position.samples
        self._step_at_merge, self._samples_at_merge = merged_at
        if reply.settings is None:
            self._since_exchange = self._session.position.step - pushed.step
        self._weights.scatter()
        vectors.write(self._weights, own)

    def _pull(self, x: torch.Tensor, pushed: _Pushed, reply: Message) -> None:
        if pushed.x is x:
            self._algorithm.pull(self._state, x, reply, self._learning_rate())
            return
        since = x - pushed.x
        x.copy_(pushed.x)
        self._algorithm.pull(self._state, x, reply, self._learning_rate())
        x.add_(since)

    def _follow(self, settings: Settings) -> None:
        """Go on under these settings. Another algorithm starts from the weights alone."""
        chosen, before = settings.algorithm, self._settings.algorithm
        if chosen != before:
            algorithm = build(chosen)
            if chosen.name is not before.name:
                log.info("the swarm goes on with %s instead of %s", chosen.name, before.name)
                self._let_go()
                self._state = algorithm.particle_state(self._weights.gather())
            self._algorithm = algorithm
        self._settings = settings

    def _let_go(self) -> None:
        """No step of this algorithm will follow, and what its last exchange left for after one is due."""
        if self._algorithm.when is When.BEFORE:
            self._end_step(self._weights.gather_gradient().zero_() if self._algorithm.needs_gradient else None)

    def _begin_step(self) -> None:
        if self._acts("before_step"):
            self._algorithm.before_step(self._state, self._weights.gather())
            self._weights.scatter()

    def _end_step(self, gradient: torch.Tensor | None) -> None:
        self._algorithm.after_step(self._state, self._weights.gather(), gradient, self._learning_rate())
        self._weights.scatter()

    def _acts(self, hook: str) -> bool:
        """Whether the algorithm has this hook: weights are not gathered for nothing."""
        return getattr(type(self._algorithm), hook) is not getattr(Algorithm, hook)

    def _gather_gradient(self) -> torch.Tensor | None:
        """Of the step that was just taken, for an algorithm that asks for it."""
        if not self._algorithm.needs_gradient:
            return None
        self._gradient = self._weights.gather_gradient(self._gradient)
        return self._gradient

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
