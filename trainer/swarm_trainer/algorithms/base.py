"""The one interface of all swarm algorithms: push -> merge -> pull on a flat vector.

A particle turns its weights into a message (`push`), the synchronizer turns the messages of a round into one
reply each (`merge`), the particle applies its reply (`pull`). State lives in plain dicts of tensors and numbers
on both sides, so it can be sent, saved and restored without knowing the algorithm.

`x` is always one flat, contiguous, floating tensor of shape (D,): all weights of the model. It may be a view of
the live weights, so it is changed in place. Messages may alias `x` or state: whoever keeps one copies it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import torch

from swarm_trainer.algorithms.average import average

State = dict[str, torch.Tensor | float]
"""Of a particle or of the center. Tensors have shape (D,) or (); numbers are Python floats."""


class When(Enum):
    """Where in an optimizer step the exchange sits."""

    BEFORE = "before"
    """With the weights the gradient was taken at, before the optimizer moves them (EASGD)."""
    GRADIENT = "gradient"
    """With the gradient instead of the weights, before the optimizer uses it (SSGD): `push` and `pull` get the
    gradient as x. No weights travel, so the center's x is as old as the last `rebuild`, and `join` sends none."""
    AFTER = "after"
    """With the weights after the optimizer moved them."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """Mean training loss since the last exchange. Lower is fitter."""

    mean: float
    """NaN or infinite: has weight 0 and is never best."""
    standard_error: float = 0.0
    """Of the mean. 0: it is exact; infinite: nothing is known of it, as after a single loss."""


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

    def draw(self, index: int) -> float:
        """A whole number in [0, 2**53) fixed by (seed, number, index): the seed of that particle's generator.

        It is a float that JSON carries exactly, and divided by 2**53 a uniform draw.
        """
        digest = hashlib.blake2b(f"{self.seed}/{self.number}/{index}".encode(), digest_size=8).digest()
        return float(int.from_bytes(digest) >> 11)


class Algorithm(ABC):
    """A swarm algorithm. Instances hold hyper-parameters only; they are shared by both sides of a test."""

    when: ClassVar[When] = When.AFTER
    overlaps: ClassVar[bool] = False
    """The reply is pulled at the first exchange after it arrived, and training does not wait for it."""
    needs_fitness: ClassVar[bool] = False
    """The script must call `particle.report(loss=...)`."""
    rebuild_loses: ClassVar[str] = ""
    """What `rebuild` cannot bring back, for the log; empty: the weights are all there is."""
    needs_gradient: ClassVar[bool] = False
    """`after_step` gets the gradient of the step; for others it is None, and nobody gathers it."""

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
        """After the inner optimizer moved x; gradient, shape (D,), only with `needs_gradient`."""

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

        No tensor of `center` or `contributions` is written to: a new center is a new tensor put into its place.
        So replies, newcomers and checkpoints hold the tensors of a center as long as they like without a copy.
        Replies never hold tensors of `contributions`, whose memory is for the next push.
        """

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        """Apply the reply to the particle's weights, in place.

        x holds the very bits that `merge` had of this push, and the caller sees to it: where the wire rounded
        or the particle stepped on since, it keeps `since = x - pushed`, sets x to pushed, pulls, and adds
        `since` again. So no step is lost, and an algorithm is written as if a particle waited for its reply.
        """
        del state, lr
        x.copy_(reply.tensors["x"])

    def join(self, center: State, index: int) -> Message:
        """What a newcomer starts from; without an "x", it copies the weights of a live particle."""
        del index
        x = center["x"]
        assert isinstance(x, torch.Tensor)
        return Message({"x": x})

    def leave(self, center: State, index: int) -> None:
        """A particle is gone: forget what the center keeps of it."""

    def rebuild(self, positions: Mapping[int, torch.Tensor]) -> State:
        """A center from the particles' weights, for a synchronizer that lost its own: their mean.

        Whatever else the center held (momentum, bests) is lost: see `rebuild_loses`.
        """
        return self.center_state(average([positions[index] for index in sorted(positions)]))
