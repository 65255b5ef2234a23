"""A model's weights and buffers as flat vectors, and the description that lets another machine read them."""

from swarm_trainer.weights.flat import FlatWeights
from swarm_trainer.weights.schema import Entry, Kind, Layout, Schema

__all__ = ["Entry", "FlatWeights", "Kind", "Layout", "Schema"]
