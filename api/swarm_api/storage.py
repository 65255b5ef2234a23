"""`spec.synchronizer.output` and `.checkpoint`: what outlives the pods, and where."""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from swarm_api.base import Model, Name

_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"


class AccessMode(StrEnum):
    """Who may mount a volume."""

    ONCE = "ReadWriteOnce"
    ONCE_POD = "ReadWriteOncePod"
    MANY = "ReadWriteMany"


class VolumeRequests(Model):
    """What a volume must have at least."""

    storage: Annotated[int, Field(ge=1)] | Annotated[str, Field(max_length=32, pattern=_QUANTITY)]
    """Its size, such as 10Gi."""


class VolumeResources(Model):
    """As in a claim's spec."""

    requests: VolumeRequests


class VolumeClaim(Model):
    """A PersistentVolumeClaim made for this job, with the fields of its spec. It outlives the job."""

    storage_class_name: Name | None = None
    """Unset: the cluster's default class."""
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=3)] = (AccessMode.ONCE,)
    """What the volume must allow."""
    resources: VolumeResources


class Storage(Model):
    """Either an existing claim or one made for the job; the synchronizer alone mounts it."""

    existing_claim: Annotated[Name, Field(min_length=1)] | None = None
    """Name of a PersistentVolumeClaim in the job's namespace."""
    volume_claim: VolumeClaim | None = None
    path: Annotated[str, Field(max_length=255)] | None = None

    @model_validator(mode="after")
    def one_place(self) -> Self:
        """Exactly one of the two."""
        if (self.existing_claim is None) is (self.volume_claim is None):
            raise ValueError("needs either existingClaim or volumeClaim: set one of them")
        return self

    @field_validator("path")
    @classmethod
    def path_stays_inside(cls, path: str | None) -> str | None:
        """A relative path that leads nowhere else."""
        if path is not None and (not path or path.startswith("/") or ".." in path.split("/")):
            raise ValueError(f"{path!r} must be a relative path without '..', such as models/mnist")
        return path

    def folder(self, job: str) -> str:
        """The folder in the volume that belongs to the job of this name, relative to the volume's root."""
        return self.path or job


class Output(Storage):
    """Where the trained model goes: either an existing claim or one made for the job."""

    path: Annotated[str, Field(max_length=255)] | None = None
    """Folder in the volume; unset: one with the job's name."""


class Checkpoint(Storage):
    """How often the center is kept while the swarm trains, and where: an existing claim or one made for the job."""

    interval_seconds: Annotated[int, Field(ge=1, le=86_400)] = 30
    """At least so many seconds between two checkpoints while the swarm trains; each is written in the background."""
    keep: Annotated[int, Field(ge=1, le=100)] = 3
    """How many of the newest checkpoints are kept."""
    path: Annotated[str, Field(max_length=255)] | None = None
    """Folder in the volume; unset: `checkpoints` in one with the job's name."""

    def folder(self, job: str) -> str:
        """As for the output, which may lie on the same claim."""
        return self.path or f"{job}/checkpoints"
