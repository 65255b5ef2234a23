"""What every backend reads from a pod template in the same way: which container trains, what a synchronizer runs."""

from collections.abc import Sequence
from typing import Final

from swarm_api.names import TRAINER_CONTAINER

SYNCHRONIZER_COMMAND: Final = ("python", "-m", "swarm_trainer.synchronizer")
"""What a synchronizer runs, unless its template has a command."""


def training_container(names: Sequence[str]) -> int | None:
    """Position of the container whose end decides: the one named trainer, else the only one; None: neither is there."""
    if TRAINER_CONTAINER in names:
        return names.index(TRAINER_CONTAINER)
    return 0 if len(names) == 1 else None
