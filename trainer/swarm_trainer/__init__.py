"""Train with a swarm: `particle = swarm_trainer.attach(model, optimizer)`."""

from swarm_trainer.attach import attach
from swarm_trainer.errors import (
    LinkError,
    LinkTimeoutError,
    NotInSwarmError,
    RefusedError,
    SwarmError,
    UnsupportedModelError,
)
from swarm_trainer.particle import Particle

__all__ = [
    "LinkError",
    "LinkTimeoutError",
    "NotInSwarmError",
    "Particle",
    "RefusedError",
    "SwarmError",
    "UnsupportedModelError",
    "attach",
]
