"""PSO-PS: the weights move by particle swarm optimisation on the training loss."""

import math
from collections.abc import Mapping

import torch

from swarm_api.algorithm import Attractor, Draws, Memory
from swarm_trainer.algorithms.average import average
from swarm_trainer.algorithms.base import Algorithm, Contribution, Fitness, Message, Round, State
from swarm_trainer.algorithms.softmax import softmax_weights
from swarm_trainer.errors import NoFitnessError


class PSOPS(Algorithm):
    """Particle swarm optimisation in place of averaging (Ye et al., arXiv 2009.03816; form of Shi, Eberhart 1998).

    After n steps of its optimizer each particle has a position x and a fitness f, its mean loss over them, and moves

        v <- inertia v + cognitive r1 (own best - x) + social r2 (attractor - x), |v| <= max_velocity;    x <- x + v

    with r1, r2 uniform in [0, 1), fixed by (seed, round, index) and independent of the user's generators, and v the
    moves of rounds alone, without SGD's. Attractor: the best particle, the best among `neighbors` on each side in
    the order of the indices present, or the mean of all weighted by loss (`softmax_weights`).

    With memory, the best of each particle (position and loss at an exchange) stands for it, and the best of all
    outlives its owner. Without, only this round's losses count; the own best is x itself, so `cognitive` does nothing.

    A fitness that is missing or not finite has weight 0 and is never best; such a particle still moves.

    Center: `x`, with memory the best ever, without it the last attractor (Ring: this round's best); beside it
    always `best` and `best_loss`, the best ever. `rebuild` starts from the mean and knows no best.
    """

    needs_fitness = True
    rebuild_loses = "the best weights ever and their loss"

    def __init__(
        self,
        *,
        inertia: float = 0.0,
        cognitive: float = 0.0,
        social: float = 1.0,
        attractor: Attractor = Attractor.SOFTMAX,
        neighbors: int = 1,
        temperature: float = 1.0,
        memory: Memory = Memory.NONE,
        draws: Draws = Draws.SCALAR,
        max_velocity: float | None = None,
    ) -> None:
        self.inertia = inertia
        self.cognitive = cognitive
        self.social = social
        self.attractor = attractor
        self.neighbors = neighbors
        self.temperature = temperature
        self.memory = memory
        self.draws = draws
        self.max_velocity = max_velocity

    @property
    def _remembers(self) -> bool:
        return self.memory is Memory.BEST_EVER

    def push(self, state: State, x: torch.Tensor, fitness: Fitness) -> Message:
        """With memory the own best and its loss, if this period has a loss; else x, so that it can be refused."""
        for name in _NUMBERS:
            state.pop(name, None)
        if not self._remembers or not math.isfinite(fitness.mean):
            return Message({"x": x})
        now = _numbers(fitness)
        state.update(now)  # Becomes the best in `pull`: a push that is refused changes no best.
        best = state.get("best")
        if not isinstance(best, torch.Tensor) or fitness.mean < _number(state, "best_loss"):
            return Message({"x": x}, now)
        remembered = Fitness(_number(state, "best_loss"), _number(state, "best_standard_error"))
        return Message({"x": best}, _numbers(remembered))

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        """Reply to each with its attractor and its draw.

        Raises:
            NoFitnessError: No contribution has a finite loss; the center is as before.
        """
        indices = sorted(contributions)
        positions = {index: contributions[index].message.tensors["x"] for index in indices}
        fitness = {index: each for index in indices if math.isfinite((each := _fitness(contributions[index])).mean)}
        if not fitness:
            msg = (
                f"no particle reported a finite loss in round {round_.number}, and PSOPS moves by them: "
                "add `particle.report(loss=loss)` before optimizer.step(); "
                "where the script has this line, its loss is NaN or infinite"
            )
            raise NoFitnessError(msg)
        leader = _best(fitness)
        if fitness[leader].mean < _number(center, "best_loss"):
            center["best"] = positions[leader].clone()
            center["best_loss"] = fitness[leader].mean
        best_ever = center["best"]
        assert isinstance(best_ever, torch.Tensor)

        if self.attractor is Attractor.RING:
            leaders = self._leaders_nearby(indices, fitness)
            copies = {index: positions[index].clone() for index in {leader, *leaders.values()}}
            attractors = {index: copies[leaders[index]] for index in indices}
            center["x"] = copies[leader]
        else:
            if self.attractor is Attractor.SOFTMAX:
                weights = softmax_weights(list(fitness.values()), self.temperature)
                attractor = average([positions[index] for index in fitness], weights)
            else:
                attractor = best_ever if self._remembers else positions[leader].clone()
            attractors = dict.fromkeys(indices, attractor)
            center["x"] = attractor
        if self._remembers:
            center["x"] = best_ever.clone()
        return {index: Message({"x": attractors[index]}, {"draw": round_.draw(index)}) for index in indices}

    def _leaders_nearby(self, indices: list[int], fitness: Mapping[int, Fitness]) -> dict[int, int]:
        """The best of each particle's neighbours, itself among them; where none has a fitness, the best of all."""
        count = len(indices)
        reach = range(-self.neighbors, self.neighbors + 1) if 2 * self.neighbors < count else range(count)
        leaders = {}
        for place, index in enumerate(indices):
            near = (indices[(place + offset) % count] for offset in reach)
            leaders[index] = _best({each: fitness[each] for each in near if each in fitness} or fitness)
        return leaders

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        """Remember x if it is the best so far, then move."""
        del lr
        if _number(state, "loss") < _number(state, "best_loss"):
            state["best"] = x.clone()
            state.pop("best_standard_error", None)
            state.update({f"best_{name}": state[name] for name in _NUMBERS if name in state})
        device = x.device if self.draws is Draws.PER_DIMENSION else torch.device("cpu")
        generator = torch.Generator(device).manual_seed(int(reply.numbers["draw"]))
        velocity = (reply.tensors["x"] - x).mul_(self.social * self._uniform(generator, x))
        best, last = state.get("best"), state.get("velocity")
        if self.cognitive and self._remembers and isinstance(best, torch.Tensor):
            velocity.add_((best - x).mul_(self._uniform(generator, x)), alpha=self.cognitive)
        if self.inertia and isinstance(last, torch.Tensor):
            velocity.add_(last, alpha=self.inertia)
        if self.max_velocity is not None:
            velocity.clamp_(-self.max_velocity, self.max_velocity)
        x.add_(velocity)
        if self.inertia:
            state["velocity"] = velocity

    def _uniform(self, generator: torch.Generator, x: torch.Tensor) -> torch.Tensor | float:
        """In [0, 1): one number, or shape (D,). The social factor is drawn before the cognitive one."""
        if self.draws is Draws.SCALAR:
            return float(torch.rand((), generator=generator, dtype=torch.float64))
        return torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)


_NUMBERS = ("loss", "standard_error")


def _numbers(fitness: Fitness) -> dict[str, float]:
    """As JSON has them: what is infinite is left out."""
    numbers = zip(_NUMBERS, (fitness.mean, fitness.standard_error), strict=True)
    return {name: value for name, value in numbers if math.isfinite(value)}


def _number(state: Mapping[str, torch.Tensor | float], name: str) -> float:
    """What is not there is infinite: no best yet, no standard error known."""
    return float(state.get(name, math.inf))


def _fitness(contribution: Contribution) -> Fitness:
    """Of the position that was pushed: a remembered one brings its own."""
    numbers = contribution.message.numbers
    if "loss" not in numbers:
        return contribution.fitness
    return Fitness(numbers["loss"], _number(numbers, "standard_error"))


def _best(fitness: Mapping[int, Fitness]) -> int:
    """The lowest loss; of equal ones the lowest index."""
    return min(fitness, key=lambda index: (fitness[index].mean, index))
