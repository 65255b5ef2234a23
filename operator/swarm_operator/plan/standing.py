"""How the swarm stands: the one word for the whole job, and the numbers behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from swarm_api.report import Presence
from swarm_api.status import JobState, ParticleCounts
from swarm_operator.plan.facts import Phase
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.outcome import Outcome
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.view import View

_HAS_RUN = (JobState.RUNNING, JobState.DEGRADED, JobState.WAITING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The desired particles by how they are."""

    swarm: Swarm
    outcome: Outcome | None
    suspending: bool
    gone: bool
    """Whether no child lives."""
    trains: bool
    """Whether rounds commit."""
    has_run: bool
    """Whether they did before, since the start or the last resume."""
    floor: int
    attached: tuple[Lineage, ...]
    finished: tuple[Lineage, ...]
    """Trained to the end; the process of one may still run."""
    running: tuple[Lineage, ...]
    """Their process runs."""
    absent: tuple[Lineage, ...]
    """Neither attached nor finished."""

    @classmethod
    def of(cls, view: View, swarm: Swarm, outcome: Outcome | None) -> Self:
        """Sort the particles."""
        attached = swarm.attached(view)
        complete = outcome is not None and outcome.state is JobState.COMPLETE
        finished = _those(
            swarm, lambda each: each.attempt.finished or (_said_finished(each) and (complete or not each.over))
        )
        present = {each.index for each in (*attached, *finished)}
        return cls(
            swarm=swarm,
            outcome=outcome,
            suspending=view.job.spec.suspend,
            gone=not any(True for each in swarm.all for _ in each.lingering),
            trains=swarm.trains(view) and len(present) >= view.job.spec.particles.min_replicas,
            has_run=view.before.state in _HAS_RUN,
            floor=view.job.spec.particles.min_replicas,
            attached=attached,
            finished=finished,
            running=_those(swarm, _runs),
            absent=_those(swarm, lambda each: each.index not in present),
        )

    @property
    def ready(self) -> int:
        """Particles that count as present."""
        return len(self.attached) + len(self.finished)

    @property
    def counts(self) -> ParticleCounts:
        """For the status."""
        return ParticleCounts(
            desired=self.swarm.replicas,
            running=len(self.running),
            ready=self.ready,
            quarantined=len(_those(self.swarm, lambda each: each.attempt.quarantined)),
        )

    def state(self, before: JobState) -> JobState:
        """One word. While a suspended job still stops, it is what it was before."""
        if self.outcome:
            return self.outcome.state
        if self.suspending:
            return JobState.SUSPENDED if self.gone else before
        if self.trains:
            return JobState.DEGRADED if self.absent else JobState.RUNNING
        if self.has_run:
            return JobState.WAITING
        synchronizer = self.swarm.synchronizer.live
        some = self.running or (synchronizer and synchronizer.phase is Phase.RUNNING)
        return JobState.STARTING if some else JobState.PENDING


def _those(swarm: Swarm, belongs: Callable[[Lineage], bool]) -> tuple[Lineage, ...]:
    return tuple(each for each in swarm.desired if belongs(each))


def _said_finished(each: Lineage) -> bool:
    """Whether the report calls it finished, though its process may have yet to exit."""
    return each.reported is not None and each.reported.presence is Presence.FINISHED


def _runs(each: Lineage) -> bool:
    return any(member.phase is Phase.RUNNING for member in each.lingering)
