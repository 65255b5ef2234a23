"""The model's own vectors on the wire: under which names they travel and how much room they need.

`x` is the exchange vector; whatever else an algorithm sends has its size and dtype. Buffers, integers and frozen
weights are the trainer's business, so no algorithm may use their names.
"""

from typing import Final

import torch

from swarm_trainer.errors import LinkError
from swarm_trainer.weights import FlatWeights, Kind, Schema
from swarm_trainer.wire.messages import Donation

X: Final[str] = "x"
BUFFERS: Final[str] = "buffers"
INTEGERS: Final[str] = "integers"
FROZEN: Final[str] = "frozen"

MODEL_VECTORS: Final = (BUFFERS, INTEGERS, FROZEN)

_KINDS: Final = {BUFFERS: Kind.BUFFER, INTEGERS: Kind.INTEGER, FROZEN: Kind.FROZEN}

Tensors = dict[str, torch.Tensor]


def room(schema: Schema, name: str) -> torch.Tensor:
    """Uninitialised CPU memory for the vector of this name."""
    layout = schema.layouts[_KINDS.get(name, Kind.WEIGHT)]
    return torch.empty(layout.size, dtype=layout.dtype)


def largest_donation(schema: Schema) -> int:
    """Bytes that a particle's optimizer and registered state may have: 16 times the model's, and 64 MiB."""
    return 16 * sum(layout.size * layout.dtype.itemsize for layout in schema.layouts.values()) + (64 << 20)


def donation_rooms(schema: Schema, donation: Donation) -> Tensors:
    """Memory for the bytes of a donation's parts.

    Raises:
        LinkError: They are more than any model of this size needs.
    """
    size = sum(part.nbytes for part in donation.parts)
    if size > largest_donation(schema):
        msg = f"a donation of {size} bytes exceeds the limit of {largest_donation(schema)}"
        raise LinkError(msg)
    return {part.name: torch.empty(part.nbytes, dtype=torch.uint8) for part in donation.parts if part.nbytes}


def present(schema: Schema, *names: str) -> tuple[str, ...]:
    """Those of these vectors that a model of this schema has."""
    return tuple(name for name in names if schema.layouts[_KINDS.get(name, Kind.WEIGHT)].size)


def read(weights: FlatWeights, *names: str) -> Tensors:
    """Fresh CPU copies of those of these vectors that the model has."""
    return {name: weights.read(_KINDS.get(name, Kind.WEIGHT)).cpu() for name in present(weights.schema, *names)}


def write(weights: FlatWeights, tensors: Tensors) -> None:
    """Set the model's vectors from those that are given."""
    for name, tensor in tensors.items():
        weights.write(_KINDS.get(name, Kind.WEIGHT), tensor)


def state_dict(schema: Schema, tensors: Tensors) -> Tensors:
    """Tensors under their state_dict names; a vector that is not given must be empty for this model."""
    x, buffers, integers, frozen = (
        tensors[name] if name in tensors else room(schema, name) for name in (X, BUFFERS, INTEGERS, FROZEN)
    )
    return schema.state_dict(x, buffers, integers, frozen)
