"""The swarm's center: the algorithm's state, and the parts of a model that every algorithm treats alike.

Float buffers (running statistics) follow the mean of a round's contributors, integer buffers their maximum, frozen
weights stay as the first particle brought them. All methods but the constructor run in the merge thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from swarm_trainer.algorithms.base import Algorithm, Contribution, Message, Round, State
from swarm_trainer.vectors import BUFFERS, FROZEN, INTEGERS, MODEL_VECTORS, Tensors, X
from swarm_trainer.weights import Schema


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one particle brought to a round."""

    contribution: Contribution
    buffers: Mapping[str, torch.Tensor]


class Center:
    """Everything a newcomer, an evaluation or the model file needs."""

    def __init__(self, algorithm: Algorithm, schema: Schema, state: State, vectors: Tensors) -> None:
        self._algorithm = algorithm
        self.schema = schema
        self._state = state
        self._vectors = vectors

    @classmethod
    def found(cls, algorithm: Algorithm, schema: Schema, tensors: Tensors) -> "Center":
        """The first center: one particle's weights."""
        x = tensors.pop(X)
        return cls(algorithm, schema, algorithm.center_state(x), tensors)

    @classmethod
    def rebuild(cls, algorithm: Algorithm, schema: Schema, states: Mapping[int, Tensors]) -> "Center":
        """A center from the particles' own weights, after a synchronizer lost its memory."""
        state = algorithm.rebuild({index: tensors[X] for index, tensors in states.items()})
        first = states[min(states)]
        vectors = {name: first[name].clone() for name in MODEL_VECTORS if name in first}
        _fold(vectors, [states[index] for index in sorted(states)])
        return cls(algorithm, schema, state, vectors)

    def unshare(self) -> None:
        """Move to fresh memory, so that replies still on their way keep the values they were made with."""
        self._state = {name: _copy(value) for name, value in self._state.items()}
        self._vectors = {name: value.clone() if name != FROZEN else value for name, value in self._vectors.items()}

    def merge(self, deliveries: Mapping[int, Delivery], round_: Round) -> dict[int, Message]:
        """Merge a round; each reply carries what the contributor needs, buffers included."""
        contributions = {index: delivery.contribution for index, delivery in deliveries.items()}
        replies = self._algorithm.merge(self._state, contributions, round_)
        _fold(self._vectors, [deliveries[index].buffers for index in sorted(deliveries)])
        extra = {name: self._vectors[name] for name in (BUFFERS, INTEGERS) if name in self._vectors}
        return {index: Message({**reply.tensors, **extra}, dict(reply.numbers)) for index, reply in replies.items()}

    def newcomer(self, index: int) -> Tensors:
        """What a particle that joins starts from."""
        return {**self._algorithm.join(self._state, index).tensors, **self._vectors}

    def leave(self, index: int) -> None:
        """Forget what the algorithm keeps of this particle."""
        self._algorithm.leave(self._state, index)

    def weights(self) -> Tensors:
        """The center as it is: for evaluation and for the model file."""
        x = self._state[X]
        assert isinstance(x, torch.Tensor)
        return {X: x, **self._vectors}


def is_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether no value is NaN or infinite; one pass, no temporary."""
    return all(
        bool(torch.isfinite(tensor.sum()))
        for tensor in tensors.values()
        if tensor.is_floating_point() and tensor.numel()
    )


def _fold(vectors: Tensors, brought: list[Mapping[str, torch.Tensor]]) -> None:
    if BUFFERS in vectors:
        mean = vectors[BUFFERS].zero_()
        for tensors in brought:
            mean.add_(tensors[BUFFERS], alpha=1 / len(brought))
    if INTEGERS in vectors:
        for tensors in brought:
            torch.maximum(vectors[INTEGERS], tensors[INTEGERS], out=vectors[INTEGERS])


def _copy(value: torch.Tensor | float) -> torch.Tensor | float:
    return value.clone() if isinstance(value, torch.Tensor) else value
