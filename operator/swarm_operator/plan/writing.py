"""Whether a new status is worth a write: what matters at once, numbers now and then, nothing for nothing."""

from typing import Final

from swarm_api.status import JobStatus, ParticleStatus, Training

STRUCTURE_SECONDS: Final = 1.0
"""Between two writes at least."""
PROGRESS_SECONDS: Final = 10.0
"""Between two writes of which the second only moves numbers."""


def worth_writing(previous: JobStatus, new: JobStatus, since_last_write: float) -> bool:
    """Whether to write `new` now, where `previous` was written `since_last_write` seconds ago.

    A change that must wait is not lost: the next plan differs from `previous` too.
    """
    if since_last_write < STRUCTURE_SECONDS or new == previous:
        return False
    return since_last_write >= PROGRESS_SECONDS or _structure(new) != _structure(previous)


def _structure(status: JobStatus) -> JobStatus:
    particles = tuple(_still(particle) for particle in status.particle_statuses if not _listed_as_best(particle))
    return status.model_copy(update={"training": Training(), "particle_statuses": particles})


def _still(particle: ParticleStatus) -> ParticleStatus:
    return particle.model_copy(update={"step": 0, "staleness_rounds": 0, "loss": None, "is_best": False})


def _listed_as_best(particle: ParticleStatus) -> bool:
    """A healthy one may be listed only because it is the best of many, and the best changes all the time."""
    return particle.is_best and particle.phase == "Running"
