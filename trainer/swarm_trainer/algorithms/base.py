"""The one interface of all swarm algorithms: push -> merge -> pull on a flat vector.

A particle turns its weights into a message (`push`), the synchronizer turns the messages of a round into one
reply each (`merge`), the particle applies its reply (`pull`). State lives in plain dicts of tensors and numbers
on both sides, so it can be sent, saved and restored without knowing the algorithm.

`x` is always one flat, contiguous, floating tensor of shape (D,): all weights of the model. It may be a view of
the live weights, so it is changed in place. Messages may alias `x` or state: whoever keeps one copies it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import torch

State = dict[str, torch.Tensor | float]
"""Of a particle or of the center. Tensors have shape (D,) or (); numbers are Python floats."""


class When(Enum):
    """Where in an optimizer step the exchange sits."""

    BEFORE = "before"
    """With the weights the gradient was taken at, before the optimizer moves them (EASGD)."""
    GRADIENT = "gradient"
    """With the gradient instead of the weights, before the optimizer uses it (SSGD)."""
    AFTER = "after"
    """With the weights after the optimizer moved them."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """Mean training loss since the last exchange. Lower is fitter."""

    mean: float
    """NaN or infinite: has weight 0 and is never best."""
    standard_error: float = 0.0
    """Of the mean; 0 where it is unknown."""


@dataclass(frozen=True, slots=True)
class Message:
    """What travels: named tensors of shape (D,) and named numbers."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contribution:
    """One particle's message as the synchronizer merges it."""

    message: Message
    fitness: Fitness
    samples: int = 0
    """Samples it trained since its last committed push."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a merge may know besides the messages. Every draw of randomness comes from (seed, number, index)."""

    number: int
    """Counts commits from 1. An asynchronous commit is a round of one."""
    seed: int
    members: int
    """Particles attached or finished: p of the formulas; at least the number of contributions."""


class Algorithm(ABC):
    """A swarm algorithm. Instances hold hyper-parameters only; they are shared by both sides of a test."""

    when: ClassVar[When] = When.AFTER
    overlaps: ClassVar[bool] = False
    """The reply is pulled at the first exchange after it arrived, and training does not wait for it."""
    needs_fitness: ClassVar[bool] = False
    """The script must call `particle.report(loss=...)`."""

    @property
    def barrier(self) -> bool:
        """Whether a round merges all members at once (True) or each push by itself."""
        return True

    def particle_state(self, x: torch.Tensor) -> State:
        """What a particle keeps besides its weights, for one that starts at x."""
        del x
        return {}

    def center_state(self, x: torch.Tensor) -> State:
        """What the synchronizer keeps; `x` is always in it: the weights for evaluation, joining and hand-over."""
        return {"x": x.clone()}

    def before_step(self, state: State, x: torch.Tensor) -> None:
        """Before the forward pass of every step."""

    def after_step(self, state: State, x: torch.Tensor, gradient: torch.Tensor | None, lr: float) -> None:
        """After the inner optimizer moved x; gradient only for algorithms that ask for it."""

    def push(self, state: State, x: torch.Tensor, fitness: Fitness) -> Message:
        """The particle's message. What it changes in state is final only when the reply arrives: see `refused`."""
        del state, fitness
        return Message({"x": x})

    def refused(self, state: State, x: torch.Tensor, message: Message) -> None:
        """The push was not merged (below minReplicas, connection lost): take back what `push` changed."""

    @abstractmethod
    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        """Change the center and answer everyone who contributed.

        Sums run in the order of the indices, so that a round is reproducible bit for bit. `contributions` has
        one entry for an asynchronous algorithm, and at least one for others.
        """

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        """Apply the reply to the particle's weights, in place."""
        del state, lr
        x.copy_(reply.tensors["x"])

    def join(self, center: State, index: int) -> Message:
        """What a newcomer starts from."""
        del index
        x = center["x"]
        assert isinstance(x, torch.Tensor)
        return Message({"x": x})

    def leave(self, center: State, index: int) -> None:
        """A particle is gone: forget what the center keeps of it."""

    def rebuild(self, positions: Mapping[int, torch.Tensor]) -> State:
        """A center from the particles' weights, for a synchronizer that lost its own: their mean.

        Whatever else the center held (momentum, bests) is lost, and an algorithm that keeps such says so.
        """
        mean = torch.stack([positions[index] for index in sorted(positions)]).mean(0)
        return self.center_state(mean)
