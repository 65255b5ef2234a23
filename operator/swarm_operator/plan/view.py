"""One job at one moment, as every part of the plan reads it."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Self

from swarm_api.job import SwarmTrainingJob
from swarm_api.report import PROTOCOL_VERSION, ParticleReport, Report
from swarm_api.status import Attempt, JobState, JobStatus, Training
from swarm_operator.plan.facts import Member, Observed, Phase, Role

SYNCHRONIZER = "synchronizer"
"""Key of the synchronizer in `status.attempts`."""
SUSPENDED = "Suspended"
"""Last reason of what was told to stop because the user suspended the job."""
NOT_SUSPENDED = "NotSuspended"
"""Reason of the condition Suspended while nobody asks for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The job, what was remembered of it, and what was observed."""

    job: SwarmTrainingJob
    now: float
    """Unix seconds."""
    before: JobStatus
    """What the last plan wrote; on a resume without the history of what was suspended."""
    resumed: bool
    """Whether this plan starts the swarm again after a suspension."""
    members: dict[tuple[Role, int], tuple[Member, ...]]
    """By role and index, oldest incarnation first."""
    report: Report | None
    """Newest known, of this job and in a protocol we speak."""
    heard: bool
    """Whether that report was read just now, from a synchronizer that runs."""
    complaint: str
    """Why there is no report to be read now."""
    particles: dict[int, ParticleReport]
    """The report's particles by index."""
    keeps_model: bool
    """Whether the trained model goes to where it outlives the pods."""
    keeps_checkpoints: bool
    """Whether training goes on from a checkpoint when every process was lost."""

    @classmethod
    def of(cls, job: SwarmTrainingJob, observed: Observed, now: float) -> Self:
        """Sort what was observed, and drop a report that is not this job's."""
        members: defaultdict[tuple[Role, int], list[Member]] = defaultdict(list)
        for member in observed.members:
            members[member.role, member.index].append(member)
        report, complaint = _readable(job, observed)
        resumed = _was_suspended(job.status) and not job.spec.suspend
        synchronizer = job.spec.synchronizer
        keeps_checkpoints = observed.keeps_all or synchronizer.checkpoint is not None
        return cls(
            job=job,
            now=now,
            before=_afresh(job.status, goes_on=keeps_checkpoints) if resumed else job.status,
            resumed=resumed,
            members={
                key: tuple(sorted(found, key=lambda member: member.incarnation)) for key, found in members.items()
            },
            report=report,
            heard=not complaint and _serves(observed, report),
            complaint=complaint,
            particles={particle.index: particle for particle in report.particles} if report else {},
            keeps_model=observed.keeps_all or synchronizer.output is not None,
            keeps_checkpoints=keeps_checkpoints,
        )

    def attempt(self, key: str) -> Attempt:
        """What was remembered of this particle, or of the synchronizer."""
        return self.before.attempts.get(key, Attempt())

    @property
    def indices(self) -> tuple[int, ...]:
        """Every particle that should exist, exists or ever existed."""
        seen = {index for role, index in self.members if role is Role.PARTICLE}
        known = {int(key) for key in self.before.attempts if key != SYNCHRONIZER}
        return tuple(sorted(seen | known | set(range(self.job.spec.particles.replicas))))


def _readable(job: SwarmTrainingJob, observed: Observed) -> tuple[Report | None, str]:
    report, complaint = observed.report, observed.report_error
    if report is not None and report.uid != job.metadata.uid:
        return None, complaint or f"the report is of a job with uid {report.uid}, not {job.metadata.uid}"
    if report is not None and not PROTOCOL_VERSION - 1 <= report.protocol <= PROTOCOL_VERSION:
        return None, (
            f"the report speaks protocol {report.protocol} and this operator {PROTOCOL_VERSION}: "
            "use an image and an operator of the same release"
        )
    return report, complaint


def _serves(observed: Observed, report: Report | None) -> bool:
    return report is not None and any(
        member.phase is Phase.RUNNING and member.incarnation == report.incarnation
        for member in observed.of(Role.SYNCHRONIZER)
    )


def _was_suspended(status: JobStatus) -> bool:
    """Whether the swarm is gone, or going, for a suspension: without its synchronizer it has no memory."""
    condition, synchronizer = status.condition("Suspended"), status.attempts.get(SYNCHRONIZER, Attempt())
    if condition is None or condition.reason == NOT_SUSPENDED:
        return False
    stopped = synchronizer.ended_at is not None and synchronizer.last_reason == SUSPENDED
    return condition.status == "True" or stopped


def _afresh(status: JobStatus, *, goes_on: bool) -> JobStatus:
    """The status of a job that starts again after a suspension: of the past only the incarnations matter.

    A user may have repaired the template meanwhile, so old failures do not count against the new start. goes_on: from
    a checkpoint, so that the training is still where it was.
    """
    fresh = {
        key: Attempt(incarnation=attempt.incarnation, ended_at=attempt.ended_at, last_reason=SUSPENDED)
        for key, attempt in status.attempts.items()
    }
    return JobStatus(
        conditions=status.conditions,
        recovery=status.recovery,
        training=status.training if goes_on else Training(),
        state=JobState.SUSPENDED,
        attempts=fresh,
    )
