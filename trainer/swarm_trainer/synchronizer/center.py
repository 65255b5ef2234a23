"""The swarm's center: the algorithm's state, and the parts of a model that every algorithm treats alike.

Float buffers (running statistics) follow the mean of a round's contributors, integer buffers their maximum, frozen
weights stay as the first particle brought them.

Every change makes a new version and puts it in the old one's place, and no tensor of a version is ever written to.
So whoever reads gets one round's center whole, however long it takes to send it and whatever is merged meanwhile.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from swarm_trainer.algorithms.average import average
from swarm_trainer.algorithms.base import Algorithm, Contribution, Message, Round, State
from swarm_trainer.vectors import BUFFERS, INTEGERS, MODEL_VECTORS, Tensors, X
from swarm_trainer.weights import Schema


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one particle brought to a round."""

    contribution: Contribution
    buffers: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Version:
    """The center as one round left it: for evaluation, for a newcomer, for the model file."""

    round: int
    state: State
    vectors: Tensors
    """Buffers, integers and frozen weights."""

    @property
    def weights(self) -> Tensors:
        """Everything of the model."""
        x = self.state[X]
        assert isinstance(x, torch.Tensor)
        return {X: x, **self.vectors}


class Center:
    """Read it from anywhere; the methods that change it run one at a time, in the merge thread."""

    def __init__(self, algorithm: Algorithm, schema: Schema, first: Version) -> None:
        self._algorithm = algorithm
        self.schema = schema
        self.now = first

    @classmethod
    def found(cls, algorithm: Algorithm, schema: Schema, tensors: Tensors) -> "Center":
        """The first center: one particle's weights."""
        vectors = {name: tensor for name, tensor in tensors.items() if name in MODEL_VECTORS}
        return cls(algorithm, schema, Version(0, algorithm.center_state(tensors[X]), vectors))

    @classmethod
    def rebuild(
        cls, algorithm: Algorithm, schema: Schema, states: Mapping[int, Tensors], *, last_round: int
    ) -> "Center":
        """A center from the particles' own weights, after a synchronizer lost its memory."""
        state = algorithm.rebuild({index: tensors[X] for index, tensors in states.items()})
        vectors = {name: tensor for name, tensor in states[min(states)].items() if name in MODEL_VECTORS}
        vectors |= _fold([states[index] for index in sorted(states)])
        return cls(algorithm, schema, Version(last_round, state, vectors))

    def merge(self, deliveries: Mapping[int, Delivery], round_: Round) -> dict[int, Message]:
        """Merge a round; each reply carries what the contributor needs, buffers included.

        Raises:
            NoFitnessError: Of the algorithm; the center is as before.
        """
        state = dict(self.now.state)
        contributions = {index: delivery.contribution for index, delivery in deliveries.items()}
        replies = self._algorithm.merge(state, contributions, round_)
        folded = _fold([deliveries[index].buffers for index in sorted(deliveries)], self.now.vectors.get(INTEGERS))
        self.now = Version(round_.number, state, self.now.vectors | folded)
        return {index: Message({**reply.tensors, **folded}, dict(reply.numbers)) for index, reply in replies.items()}

    def follow(self, algorithm: Algorithm, *, anew: bool) -> None:
        """Go on under these settings; anew: they name another algorithm, which takes over nothing but the weights."""
        self._algorithm = algorithm
        if anew:
            state = algorithm.center_state(self.now.weights[X])
            self.now = Version(self.now.round, state, self.now.vectors)

    def newcomer(self, index: int) -> Tensors:
        """What a particle that joins starts from."""
        return {**self._algorithm.join(self.now.state, index).tensors, **self.now.vectors}

    def leave(self, index: int) -> None:
        """Forget what the algorithm keeps of this particle."""
        state = dict(self.now.state)
        self._algorithm.leave(state, index)
        self.now = Version(self.now.round, state, self.now.vectors)


def is_sound(pushed: Tensors, center: Tensors) -> bool:
    """Whether no value is NaN or infinite, but for those buffers that are so in the center: masks hold -inf."""
    return all(
        _is_finite(tensor) or (name == BUFFERS and bool((tensor.isfinite() | (tensor == center[BUFFERS])).all()))
        for name, tensor in pushed.items()
    )


def _is_finite(tensor: torch.Tensor) -> bool:
    """One pass, no temporary."""
    return not tensor.is_floating_point() or math.isfinite(_sum(tensor))


def _sum(tensor: torch.Tensor) -> float:
    # Half precision sums overflow where no value does.
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return float(tensor.sum(dtype=torch.float32 if half else None))


def _fold(brought: Sequence[Mapping[str, torch.Tensor]], least: torch.Tensor | None = None) -> Tensors:
    """The buffers' mean and the integers' maximum, as new tensors, of what a model has of them."""
    folded = {}
    if BUFFERS in brought[0]:
        mean = average([tensors[BUFFERS] for tensors in brought])
        # Infinity minus infinity is none, and what is infinite is so with all of them.
        folded[BUFFERS] = mean if _is_finite(mean) else mean.where(mean.isfinite(), brought[0][BUFFERS])
    if INTEGERS in brought[0]:
        highest = brought[0][INTEGERS].clone() if least is None else torch.maximum(least, brought[0][INTEGERS])
        for tensors in brought[1:]:
            torch.maximum(highest, tensors[INTEGERS], out=highest)
        folded[INTEGERS] = highest
    return folded
