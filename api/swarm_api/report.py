"""What the synchronizer tells the operator: served as JSON at /report, folded into the status."""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Final

from pydantic import FailFast

from swarm_api.base import Model

PROTOCOL_VERSION: Final = 1
"""Of report and handshake. The operator accepts this one and the previous."""


class SwarmState(StrEnum):
    """What the synchronizer is doing."""

    STARTING = "Starting"
    """Waiting for the first particles."""
    TRAINING = "Training"
    WAITING = "Waiting"
    """Fewer than minReplicas are present: nothing commits, particles train on by themselves."""
    FINISHED = "Finished"
    """All particles finished and the model is written."""
    FAILED = "Failed"
    """Training cannot go on; `message` says what to change."""


class Presence(StrEnum):
    """How the synchronizer sees one particle."""

    ATTACHED = "Attached"
    DETACHED = "Detached"
    FINISHED = "Finished"


class ParticleReport(Model):
    """One particle as the synchronizer knows it."""

    index: int
    incarnation: int
    instance_uid: str
    presence: Presence
    step: int = 0
    """Optimizer steps, over all incarnations."""
    samples: int = 0
    contributions: int = 0
    """Pushes of this incarnation that were committed."""
    last_round: int = 0
    """Last round it contributed to."""
    loss: float | None = None
    loss_standard_error: float | None = None
    silent_seconds: float = 0.0
    """Since anything was heard of it."""
    refused: int = 0
    """Pushes refused because they were not finite."""
    attached_time: float = 0.0
    """Unix seconds."""
    first_contribution_time: float | None = None
    """Unix seconds; of this incarnation."""


class CheckpointReport(Model):
    """How the checkpoints stand."""

    round: int = 0
    """Of the newest one that was written or restored; 0: none yet."""
    time: float | None = None
    """Unix seconds of the newest that this synchronizer wrote."""
    error: str = ""
    """Why none can be written now; empty: the last one was, or none was due yet."""


class Report(Model):
    """The swarm as the synchronizer sees it."""

    protocol: int = PROTOCOL_VERSION
    uid: str
    """Of the job."""
    incarnation: int
    """Of the synchronizer; the epoch that fences its particles."""
    state: SwarmState = SwarmState.STARTING
    message: str = ""
    """Why it is Waiting or Failed; while it is Training, why the model of a training that is over is not written."""
    round: int = 0
    best_loss: float | None = None
    """Lowest fitness of the last committed round."""
    best_particle: int | None = None
    progress: float = 0.0
    """0..1 of the epochs that the particles announced; 0 where none did."""
    samples_per_second: float = 0.0
    last_sync_time: float | None = None
    """Unix seconds of the last commit."""
    settings_generation: int = 0
    checkpoint: CheckpointReport | None = None
    """None: none are kept."""
    particles: Annotated[tuple[ParticleReport, ...], FailFast()] = ()
    """What is wrong with the first is told: a complaint of each of a million would take gigabytes."""

    def particle(self, index: int) -> ParticleReport | None:
        """The newest known of this index."""
        return self.by_index.get(index)

    @cached_property
    def by_index(self) -> dict[int, ParticleReport]:
        """The particles, for whoever looks up a thousand of them."""
        return {particle.index: particle for particle in reversed(self.particles)}
