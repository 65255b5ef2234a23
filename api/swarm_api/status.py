"""`status` of a SwarmTrainingJob: what a person sees, and what the plan must remember.

Strings are bounded in the schema only: what was observed is told, never refused here.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from swarm_api.base import Model

Word = Annotated[str, Field(json_schema_extra={"maxLength": 1024})]
"""A name, a CamelCase reason, or the like."""
Text = Annotated[str, Field(json_schema_extra={"maxLength": 32_768})]
"""Written for a person."""
Time = Annotated[str, Field(json_schema_extra={"format": "date-time", "maxLength": 32})]
"""RFC 3339, in UTC."""

Figure = Annotated[float, AfterValidator(lambda value: float(f"{value:.6g}"))]
"""A measurement, with the six digits that a table has room for."""


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

    type: Word
    status: Word
    """True, False or Unknown."""
    reason: Word
    """One CamelCase word, for programs."""
    message: Text
    """The same for a person."""
    last_transition_time: Time
    """When status became what it is."""
    observed_generation: int = 0
    """The metadata.generation that this condition describes."""


class ParticleCounts(Model):
    """How many particles there are and how they are."""

    desired: int = 0
    """As many as spec.particles.replicas."""
    running: int = 0
    """Processes or pods that run."""
    ready: int = 0
    """Attached to the synchronizer, or finished."""
    quarantined: int = 0
    """Given up."""
    summary: Word = Field(default_factory=lambda counts: f"{counts['ready']}/{counts['desired']}")
    """Ready and desired in one word, such as 3/4."""


class ParticleStatus(Model):
    """One particle as a person wants to see it."""

    index: int
    """A replacement has the same."""
    incarnation: int = 0
    """How often it was started."""
    pod: Word = ""
    node: Word = ""
    phase: Word = "Pending"
    """Pending, Starting, Running, Detached (it runs, and the synchronizer has lost it), Exited (and it is not yet
    known whether it finished), Finished, BackOff, Quarantined, Stopping or Stopped (by suspend or the job's end)."""
    failures: int = 0
    """Charged failures inside the window."""
    last_exit_code: int | None = None
    """Of the last incarnation that ended; negative: the signal."""
    last_reason: Word = ""
    """How that ended, or why it is pending."""
    step: int = 0
    """Optimizer steps, over all incarnations."""
    staleness_rounds: int = 0
    """Rounds since its last contribution."""
    loss: Figure | None = None
    """Mean since its last exchange."""
    is_best: bool = False
    """Whether its loss was the lowest of the last round."""


class Training(Model):
    """How far the training is, from the synchronizer's report."""

    round: int = 0
    """Rounds committed."""
    step: int = 0
    """Highest step of any particle."""
    samples_seen: int = 0
    """By all particles."""
    best_loss: Figure | None = None
    """Lowest of the last round."""
    best_particle: int | None = None
    """Whose that was."""
    progress_percent: int = 0
    """Of the epochs that the particles announced; 0 where none did."""
    samples_per_second: Figure = 0.0
    """Of all particles."""
    last_sync_time: Time | None = None
    """Of the last commit."""
    algorithm_generation: int = 0
    """metadata.generation of the settings that the rounds follow."""


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
    failures: Annotated[tuple[Time, ...], Field(max_length=128)] = ()
    """Times of charged failures inside the window, oldest first."""
    setbacks: int = 0
    """Ends in a row that came early or without a contribution: the exponent of the back-off."""
    ended_at: Time | None = None
    """When this incarnation was seen to end, or was told to; unset while it lives."""
    detect_seconds: float | None = None
    """From that end to its being seen; unset once a replacement contributes, and where no replacement was needed."""
    finished: bool = False
    """Exit 0 and finished in the report."""
    quarantined: bool = False
    """Given up: its failures are spent."""
    last_exit_code: int | None = None
    last_reason: Word = ""


class JobStatus(Model):
    """The whole status."""

    observed_generation: int = 0
    """The metadata.generation that this status describes."""
    start_time: Time | None = None
    completion_time: Time | None = None
    state: JobState = JobState.PENDING
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    particles: ParticleCounts = ParticleCounts()
    selector: Word = ""
    """Of the particles' pods, for the scale subresource."""
    particle_statuses: Annotated[tuple[ParticleStatus, ...], Field(max_length=1024)] = ()
    """Of a large swarm only the best particle and those that are not well."""
    training: Training = Training()
    recovery: Recovery = Recovery()
    attempts: Annotated[dict[str, Attempt], Field(max_length=1025)] = Field(default_factory=dict)
    """Keyed by particle index as text, and `synchronizer`."""
    attached: bool = False
    """Whether any particle ever attached, since the start or the last resume."""

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
