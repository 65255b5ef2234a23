"""The trained model as a file that plain torch and safetensors load."""

import contextlib
import os
from pathlib import Path

from swarm_trainer.checkpoint.snapshot import save, sync_folder
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.vectors import state_dict

MODEL_FILE = "model.safetensors"


def write_model(center: Center, folder: Path, *, job: str) -> Path:
    """Write the center under its state_dict names, whole or not at all; returns the file.

    Raises:
        OSError: It cannot be written.
    """
    target = folder / MODEL_FILE
    partial = folder / f".{MODEL_FILE}.partial"
    tensors = state_dict(center.schema, center.now.weights)
    try:
        save(tensors, partial, {"job": job, "round": str(center.now.round)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(folder)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    return target
