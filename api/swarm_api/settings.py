"""What the synchronizer needs to know of the spec. It alone tells the particles, so none can disagree."""

from collections.abc import Callable
from typing import Self

from swarm_api.algorithm import Algorithm
from swarm_api.base import Model
from swarm_api.job import Join, SwarmTrainingJob, Sync
from swarm_api.status import Attempt
from swarm_api.storage import Checkpoint


class Keeping(Model):
    """Of checkpoints, wherever they are kept."""

    interval_seconds: int = 30
    keep: int = 3

    @classmethod
    def of(cls, checkpoint: Checkpoint | None) -> Self:
        """As the job asks for, else the defaults: one machine keeps checkpoints of every job."""
        if checkpoint is None:
            return cls()
        return cls(interval_seconds=checkpoint.interval_seconds, keep=checkpoint.keep)


class Settings(Model):
    """One generation of settings; a new one takes effect between two commits, without a restart."""

    generation: int
    job: str
    uid: str
    seed: int
    replicas: int
    min_replicas: int
    algorithm: Algorithm
    sync: Sync
    join: Join = Join()
    checkpoint: Keeping = Keeping()
    finished: tuple[int, ...] = ()
    """Indices that trained to their end already; a synchronizer that starts late does not wait for them."""
    given_up: tuple[int, ...] = ()
    """Indices in quarantine: the swarm ends without them."""

    @classmethod
    def of(cls, job: SwarmTrainingJob) -> Self:
        """The settings that this job asks for now."""
        return cls(
            generation=job.metadata.generation,
            job=job.metadata.name,
            uid=job.metadata.uid,
            seed=job.spec.seed,
            replicas=job.spec.particles.replicas,
            min_replicas=job.spec.particles.min_replicas,
            algorithm=job.spec.algorithm,
            sync=job.spec.sync,
            join=job.spec.particles.join,
            checkpoint=Keeping.of(job.spec.synchronizer.checkpoint),
            finished=_indices(job, lambda attempt: attempt.finished),
            given_up=_indices(job, lambda attempt: attempt.quarantined),
        )


def _indices(job: SwarmTrainingJob, belongs: Callable[[Attempt], bool]) -> tuple[int, ...]:
    attempts = job.status.attempts.items()
    return tuple(sorted(int(key) for key, attempt in attempts if key.isdigit() and belongs(attempt)))
