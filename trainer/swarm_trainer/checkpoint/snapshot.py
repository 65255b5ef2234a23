"""One checkpoint as a folder: tensors in safetensors' own format, and a manifest that vouches for both.

It is read by whoever comes after a crash, so nothing in it is believed before its digest has been checked.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from swarm_trainer.algorithms.base import State
from swarm_trainer.errors import SwarmError
from swarm_trainer.synchronizer.center import Version
from swarm_trainer.vectors import Tensors, X
from swarm_trainer.weights import Schema

MANIFEST_FILE: Final = "manifest.json"
TENSORS_FILE: Final = "center.safetensors"

_STATE, _VECTORS = "state.", "vectors."


class DamagedError(SwarmError):
    """A checkpoint is not what was written; the message says where."""


class Part(Protocol):
    """Something beside the center that goes into checkpoints, and goes on from there."""

    def dump(self) -> Any:
        """All of it as JSON, whole and independent of what changes later."""
        ...

    def load(self, dumped: Any) -> None:
        """Go on from what `dump` gave."""
        ...


class Manifest(BaseModel):
    """Everything but the tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    format: Literal[2] = 2
    job: str
    uid: str
    """Of the job: a folder may hold checkpoints of several."""
    epoch: int
    """Of the synchronizer that wrote it."""
    round: int
    generation: int
    """Of the settings."""
    algorithm: str
    weights: Schema
    """Of the model."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """Of the algorithm's state."""
    parts: dict[str, Any] = Field(default_factory=dict)
    """By name, what each of them dumped."""
    tensors_sha256: str = ""

    @property
    def order(self) -> tuple[int, int]:
        """Newer is greater: the swarm followed the higher epoch, whatever an older one still did."""
        return self.epoch, self.round


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint that is not on disk yet. The version's tensors are never written to, so nothing is copied."""

    manifest: Manifest
    version: Version


def snapshot(version: Version, parts: Mapping[str, Part], **origin: Any) -> Snapshot:
    """The center and the parts at one moment; origin: job, uid, epoch, generation, algorithm, weights."""
    numbers = {name: value for name, value in version.state.items() if not isinstance(value, torch.Tensor)}
    dumped = {name: part.dump() for name, part in parts.items()}
    return Snapshot(Manifest(round=version.round, numbers=numbers, parts=dumped, **origin), version)


def write(folder: Path, snapshot: Snapshot) -> None:
    """Make the folder; when this returns, all of it is on the disk.

    Raises:
        OSError: It cannot be written; what was is left behind.
    """
    folder.mkdir()
    tensors = folder / TENSORS_FILE
    save(_unshared(snapshot.version), tensors, {})
    digest = _synced_digest(tensors)
    manifest = snapshot.manifest.model_copy(update={"tensors_sha256": digest}).model_dump(mode="json")
    with (folder / MANIFEST_FILE).open("w") as file:
        json.dump({"sha256": _digest(manifest), "manifest": manifest}, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint on disk whose manifest is whole."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Saved":
        """Read the manifest.

        Raises:
            DamagedError: It is not what was written.
        """
        path = folder / MANIFEST_FILE
        try:
            found = json.loads(path.read_bytes())
            if _digest(found["manifest"]) != found["sha256"]:
                msg = f"{path} does not have its own digest"
                raise DamagedError(msg)
            return cls(folder, Manifest.model_validate(found["manifest"]))
        except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
            msg = f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            raise DamagedError(msg) from error

    def version(self) -> Version:
        """Read the tensors.

        Raises:
            DamagedError: They are not what was written.
        """
        path = self.folder / TENSORS_FILE
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != self.manifest.tensors_sha256:
                msg = f"{path} does not have the digest that its manifest gives"
                raise DamagedError(msg)
            # Mapped memory would die with a volume that is taken away.
            tensors = load_file(path, backend="pread")
        except (OSError, SafetensorError) as error:
            msg = f"{path} cannot be read: {error}"
            raise DamagedError(msg) from error
        state: State = {**self.manifest.numbers, **dict(_named(tensors, _STATE))}
        return Version(self.manifest.round, state, dict(_named(tensors, _VECTORS)))


def sync_folder(folder: Path) -> None:
    """See to it that what was made or renamed in the folder stays so after a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network filesystems know no such call for folders.
            raise
    finally:
        os.close(descriptor)


def save(tensors: Tensors, file: Path, metadata: Mapping[str, str]) -> None:
    """Tensors in safetensors' own format; not synced.

    Raises:
        OSError: They cannot be written.
    """
    try:
        save_file(tensors, file, metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        raise _system_error(error) from error


def _system_error(error: SafetensorError) -> OSError:
    """The same as the system said it: safetensors' words name a temporary file, another one at each try."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def _unshared(version: Version) -> Tensors:
    """All tensors by name. A state may hold one tensor twice, which the format cannot say."""
    named = {f"{_STATE}{name}": value for name, value in version.state.items() if isinstance(value, torch.Tensor)}
    named |= {f"{_VECTORS}{name}": value for name, value in version.vectors.items()}
    seen: set[int] = set()
    for name, tensor in sorted(named.items(), key=lambda item: item[0] != f"{_STATE}{X}"):
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        named[name] = tensor if whole and tensor.is_contiguous() and place not in seen else tensor.clone().contiguous()
        seen.add(place)
    return named


def _named(tensors: Tensors, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _synced_digest(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(manifest: Any) -> str:
    """Of the same JSON, however it is laid out."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
