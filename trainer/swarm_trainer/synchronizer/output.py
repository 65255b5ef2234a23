"""The trained model as a file that plain torch and safetensors load."""

import os
from pathlib import Path

from safetensors.torch import save_file

from swarm_trainer.synchronizer.center import Center
from swarm_trainer.vectors import state_dict

MODEL_FILE = "model.safetensors"


def write_model(center: Center, folder: Path, *, job: str) -> Path:
    """Write the center under its state_dict names, whole or not at all; returns the file."""
    target = folder / MODEL_FILE
    partial = folder / f".{MODEL_FILE}.partial"
    tensors = state_dict(center.schema, center.now.weights)
    save_file(tensors, partial, metadata={"format": "pt", "job": job, "round": str(center.now.round)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    return target
