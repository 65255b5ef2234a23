"""`status` of a SwarmTrainingJob: what a person sees, and what the plan must remember."""

from enum import StrEnum

from pydantic import Field

from swarm_api.base import Model


class JobState(StrEnum):
    """One word for the whole job, derived from the conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    DEGRADED = "Degraded"
    WAITING = "Waiting"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (JobState.COMPLETE, JobState.FAILED)


class Condition(Model):
    """A `metav1.Condition`: a state, never a transition; reason and message always say why."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int = 0


class ParticleCounts(Model):
    """How many particles there are and how they are."""

    desired: int = 0
    running: int = 0
    """Processes or pods that run."""
    ready: int = 0
    """Attached to the synchronizer, or finished."""
    quarantined: int = 0


class ParticleStatus(Model):
    """One particle as a person wants to see it."""

    index: int
    incarnation: int = 0
    pod: str = ""
    node: str = ""
    phase: str = "Pending"
    """Pending, Starting, Running, Detached (it runs, and the synchronizer has lost it), Exited (and it is not yet
    known whether it finished), Finished, BackOff, Quarantined or Stopped (by suspend, or by the end of the job)."""
    failures: int = 0
    """Charged failures inside the window."""
    last_exit_code: int | None = None
    last_reason: str = ""
    step: int = 0
    staleness_rounds: int = 0
    loss: float | None = None
    is_best: bool = False


class Training(Model):
    """How far the training is, from the synchronizer's report."""

    round: int = 0
    step: int = 0
    """Highest step of any particle."""
    samples_seen: int = 0
    best_loss: float | None = None
    best_particle: int | None = None
    progress_percent: int = 0
    samples_per_second: float = 0.0
    last_sync_time: str | None = None
    algorithm_generation: int = 0


class Recovery(Model):
    """Replacements so far, and how long the last one took by phase."""

    count: int = 0
    """Of particles and synchronizers that ended by themselves or by others."""
    detect_seconds: float | None = None
    """From the end of a particle to its being seen."""
    schedule_seconds: float | None = None
    """From the replacement's creation to its process."""
    start_seconds: float | None = None
    """From there to its attaching."""
    rejoin_seconds: float | None = None
    """From there to its first contribution."""


class Attempt(Model):
    """What the plan must remember of one particle, or of the synchronizer, across its own restarts."""

    incarnation: int = 0
    """Highest one ever seen. A pod or process is deleted only after this holds its incarnation."""
    contributed: bool = False
    """Whether this incarnation is known to have contributed to a round."""
    failures: tuple[str, ...] = ()
    """Times of charged failures inside the window, oldest first."""
    setbacks: int = 0
    """Ends in a row that came early or without a contribution: the exponent of the back-off."""
    ended_at: str | None = None
    """When this incarnation was seen to end, or was told to; unset while it lives."""
    detect_seconds: float | None = None
    """From that end to its being seen; unset once a replacement contributes, and where no replacement was needed."""
    finished: bool = False
    """Exit 0 and finished in the report."""
    quarantined: bool = False
    last_exit_code: int | None = None
    last_reason: str = ""


class JobStatus(Model):
    """The whole status."""

    observed_generation: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    state: JobState = JobState.PENDING
    conditions: tuple[Condition, ...] = ()
    particles: ParticleCounts = ParticleCounts()
    selector: str = ""
    particle_statuses: tuple[ParticleStatus, ...] = ()
    training: Training = Training()
    recovery: Recovery = Recovery()
    attempts: dict[str, Attempt] = Field(default_factory=dict)
    """Keyed by particle index as text, and `synchronizer`."""
    attached: bool = False
    """Whether any particle ever attached, since the start or the last resume."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
