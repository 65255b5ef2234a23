"""A swarm in one process: the order of calls that the trainer keeps, without wire or processes.

Everything a message carries is copied as the wire would (tensors as bits, numbers through JSON), and merges get
their contributions in a shuffled order.
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from swarm_trainer.algorithms import Algorithm, Contribution, Fitness, Message, Round, When

Gradient = Callable[[int, torch.Tensor], torch.Tensor]
Measure = Callable[[int, torch.Tensor], Fitness]


def over_the_wire(message: Message) -> Message:
    numbers = json.loads(json.dumps(message.numbers, allow_nan=False))
    assert all(type(value) is float for value in numbers.values())
    return Message({name: tensor.clone() for name, tensor in message.tensors.items()}, numbers)


def contribution(x: torch.Tensor, fitness: Fitness | float = 1.0) -> Contribution:
    return Contribution(Message({"x": x}), fitness if isinstance(fitness, Fitness) else Fitness(fitness))


class Particle:
    def __init__(self, algorithm: Algorithm, x: torch.Tensor, optimizer: Mapping[str, Any]) -> None:
        self.x = x.clone()
        self.weights = torch.nn.Parameter(self.x)  # Shares memory with x, as flat weights do.
        self.optimizer = torch.optim.SGD([self.weights], **optimizer)
        self.state = algorithm.particle_state(self.x)
        self.steps = 0

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


class Swarm:
    """Particles `0..p-1` at `starts`; the center at `center`, or at the first of them."""

    def __init__(
        self,
        algorithm: Algorithm,
        starts: Sequence[torch.Tensor] | Mapping[int, torch.Tensor],
        gradient: Gradient | None = None,
        *,
        lr: float = 0.1,
        period: int = 1,
        center: torch.Tensor | None = None,
        fitness: Measure = lambda index, x: Fitness(1.0),
        seed: int = 0,
        **optimizer: Any,
    ) -> None:
        self.algorithm = algorithm
        self.gradient = gradient or (lambda index, x: torch.zeros_like(x))
        self.period = period
        self.fitness = fitness
        self.seed = seed
        self.optimizer = {"lr": lr, **optimizer}
        places = starts if isinstance(starts, Mapping) else dict(enumerate(starts))
        self.particles = {index: Particle(algorithm, x, self.optimizer) for index, x in places.items()}
        self.center = algorithm.center_state(places[min(places)] if center is None else center)
        self.rounds = 0
        self.replies: dict[int, Message] = {}

    @property
    def c(self) -> torch.Tensor:
        x = self.center["x"]
        assert isinstance(x, torch.Tensor)
        return x

    def x(self) -> torch.Tensor:
        """All positions, shape (p, D), by index."""
        return torch.stack([self.particles[index].x for index in sorted(self.particles)])

    def step(self, only: Iterable[int] | None = None) -> None:
        """One optimizer step of each of these particles, exchange included."""
        chosen = sorted(self.particles) if only is None else sorted(only)
        gradients = {}
        for index in chosen:
            particle = self.particles[index]
            self.algorithm.before_step(particle.state, particle.x)
            gradients[index] = self.gradient(index, particle.x)
        if self.algorithm.when is When.BEFORE:
            self.exchange(index for index in chosen if self.particles[index].steps % self.period == 0)
        for index in chosen:
            particle = self.particles[index]
            particle.weights.grad = gradients[index]
            particle.optimizer.step()
            gradient = gradients[index] if self.algorithm.needs_gradient else None
            self.algorithm.after_step(particle.state, particle.x, gradient, particle.lr)
            particle.steps += 1
        if self.algorithm.when is When.AFTER:
            self.exchange(index for index in chosen if self.particles[index].steps % self.period == 0)

    def exchange(self, indices: Iterable[int]) -> None:
        members = list(indices)
        for together in [members] if self.algorithm.barrier else [[index] for index in members]:
            if together:
                self._round(together)

    def _round(self, indices: list[int]) -> None:
        self.rounds += 1
        pushed = {}
        for index in indices:
            particle = self.particles[index]
            fitness = self.fitness(index, particle.x)
            message = over_the_wire(self.algorithm.push(particle.state, particle.x, fitness))
            pushed[index] = Contribution(message, fitness)
        arrived = dict(sorted(pushed.items(), key=lambda item: hash((item[0], self.rounds))))
        round_ = Round(self.rounds, self.seed, len(self.particles))
        self.replies = self.algorithm.merge(self.center, arrived, round_)
        for index in indices:
            particle = self.particles[index]
            self.algorithm.pull(particle.state, particle.x, over_the_wire(self.replies[index]), particle.lr)

    def join(self, index: int) -> None:
        start = over_the_wire(self.algorithm.join(self.center, index)).tensors["x"]
        self.particles[index] = Particle(self.algorithm, start, self.optimizer)

    def leave(self, index: int) -> None:
        del self.particles[index]
        self.algorithm.leave(self.center, index)

    def saved(self) -> dict[str, Any]:
        """Plain containers, tensors and numbers only."""
        return copy.deepcopy(
            {
                "center": self.center,
                "rounds": self.rounds,
                "particles": {
                    index: {"x": p.x, "state": p.state, "steps": p.steps, "optimizer": p.optimizer.state_dict()}
                    for index, p in self.particles.items()
                },
            }
        )

    def restore(self, saved: dict[str, Any]) -> None:
        saved = copy.deepcopy(saved)
        self.center, self.rounds = saved["center"], saved["rounds"]
        self.particles = {}
        for index, kept in saved["particles"].items():
            particle = self.particles[index] = Particle(self.algorithm, kept["x"], self.optimizer)
            particle.state, particle.steps = kept["state"], kept["steps"]
            particle.optimizer.load_state_dict(kept["optimizer"])


def quadratic(h: float | Sequence[float] = 1.0, optimum: float | Sequence[float] = 0.0) -> Gradient:
    """Of h_i (x - x*_i)^2 / 2 in every coordinate."""

    def gradient(index: int, x: torch.Tensor) -> torch.Tensor:
        curvature = h if isinstance(h, float) else h[index]
        return curvature * (x - (optimum if isinstance(optimum, float) else optimum[index]))

    return gradient


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)
