"""The swarm algorithms: small classes over flat tensors, one module each, and a table of them."""

from collections.abc import Callable
from typing import Any

from swarm_api import algorithm as settings
from swarm_trainer.algorithms.base import Algorithm, Contribution, Fitness, Message, Round, State, When
from swarm_trainer.algorithms.easgd import EASGD
from swarm_trainer.algorithms.local_sgd import LocalSGD
from swarm_trainer.algorithms.psops import PSOPS

__all__ = [
    "EASGD",
    "PSOPS",
    "Algorithm",
    "Contribution",
    "Fitness",
    "LocalSGD",
    "Message",
    "Round",
    "State",
    "When",
    "build",
]

_ALGORITHMS: dict[settings.AlgorithmName, tuple[Callable[..., Algorithm], str]] = {
    settings.AlgorithmName.PSOPS: (PSOPS, "psops"),
    settings.AlgorithmName.LOCAL_SGD: (LocalSGD, "local_sgd"),
    settings.AlgorithmName.EASGD: (EASGD, "easgd"),
}
"""Class, and the member of the settings whose fields are its keyword arguments."""


def build(chosen: settings.Algorithm) -> Algorithm:
    """The algorithm that `spec.algorithm` names, with its settings; those left out have the same defaults here."""
    make, member = _ALGORITHMS[chosen.name]
    values = getattr(chosen, member)
    arguments: dict[str, Any] = (
        {} if values is None else {name: getattr(values, name) for name in type(values).model_fields}
    )
    return make(**arguments)
