"""What the report says of the training, and how long the last recovery took."""

from typing import Final

from swarm_api.report import ParticleReport, Presence, SwarmState
from swarm_api.status import ParticleStatus, Recovery, Training
from swarm_operator.plan.ends import INTENDED, Reason
from swarm_operator.plan.facts import Phase
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.standing import Standing
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.times import stamp
from swarm_operator.plan.view import View

ALL_LISTED: Final = 64
"""Up to so many particles every one is listed; of more only the best and those that are not well."""
MOST_LISTED: Final = 128


def training(view: View, swarm: Swarm) -> Training:
    """How far the training is; as before while a new synchronizer gathers the swarm."""
    report, synchronizer = view.report, swarm.synchronizer
    current = report is not None and report.incarnation == synchronizer.attempt.incarnation
    stopped = synchronizer.over and synchronizer.attempt.last_reason in INTENDED
    if report is None or not current or stopped or report.state is SwarmState.STARTING:
        return view.before.training
    return Training(
        round=report.round,
        step=max((particle.step for particle in report.particles), default=0),
        samples_seen=sum(particle.samples for particle in report.particles),
        best_loss=report.best_loss,
        best_particle=report.best_particle,
        progress_percent=int(100 * min(1.0, max(0.0, report.progress))),
        samples_per_second=report.samples_per_second,
        last_sync_time=None if report.last_sync_time is None else stamp(report.last_sync_time),
        algorithm_generation=report.settings_generation,
    )


def recover(view: View, swarm: Swarm) -> tuple[Swarm, Recovery]:
    """Count what was replaced, and note how long the last particle took that contributes again.

    Returns the swarm without the marks of those that have recovered.
    """
    recovery = view.before.recovery
    replaced = sum(_replaced(each) for each in swarm.all)
    back = [each for each in swarm.desired if _recovered(each)]
    if replaced:
        recovery = recovery.model_copy(update={"count": recovery.count + replaced})
    for each in sorted(back, key=lambda each: each.reported.first_contribution_time or 0.0 if each.reported else 0.0):
        recovery = recovery.model_copy(update=_phases(each))
    indices = {each.index for each in back}
    return swarm.cleared(indices) if indices else swarm, recovery


def particle_statuses(view: View, standing: Standing) -> tuple[ParticleStatus, ...]:
    """The particles as a person wants to see them."""
    present = {each.index: "Running" for each in standing.attached}
    present |= {each.index: "Finished" for each in standing.finished}
    listed = [
        _status(view, each, present.get(each.index) or _phase(view, standing, each)) for each in standing.swarm.desired
    ]
    if len(listed) > ALL_LISTED:
        well = ("Running", "Finished")
        listed = [each for each in listed if each.is_best or each.phase not in well]
        listed = sorted(listed, key=lambda each: not each.is_best)[:MOST_LISTED]
    return tuple(sorted(listed, key=lambda each: each.index))


def _status(view: View, each: Lineage, phase: str) -> ParticleStatus:
    attempt, newest, report = each.attempt, each.newest, view.report
    reported = view.particles.get(each.index)
    behind = report.round - reported.last_round if report and reported and reported.last_round else 0
    return ParticleStatus(
        index=each.index,
        incarnation=attempt.incarnation,
        pod=each.name if newest else "",
        node=newest.node if newest else "",
        phase=phase,
        failures=len(attempt.failures),
        last_exit_code=attempt.last_exit_code,
        last_reason=newest.reason if phase == "Pending" and newest else attempt.last_reason,
        step=reported.step if reported else 0,
        staleness_rounds=max(0, behind) if phase == "Running" else 0,
        loss=reported.loss if reported else None,
        is_best=report is not None and report.best_particle == each.index,
    )


def _phase(view: View, standing: Standing, each: Lineage) -> str:
    """Of one that is neither attached nor finished."""
    attempt, newest = each.attempt, each.newest
    if attempt.quarantined:
        return "Quarantined"
    if standing.outcome or view.job.spec.suspend:
        return "Stopping" if view.job.spec.suspend and any(each.lingering) else "Stopped"
    if each.over:
        return "BackOff" if each.wait(view.now) else "Starting"
    if newest is None or newest.phase is Phase.PENDING:
        return "Pending"
    if newest.ended_phase:
        return "Exited"
    detached = each.reported is not None and each.reported.presence is Presence.DETACHED
    return "Detached" if detached or attempt.contributed else "Starting"


def _replaced(each: Lineage) -> bool:
    """Whether a successor came into sight of one that nobody wished away."""
    old, new = each.before, each.attempt
    return 0 < old.incarnation < new.incarnation and old.last_reason not in (*INTENDED, Reason.COMPLETED)


def _recovered(each: Lineage) -> bool:
    contributes = each.reported is not None and each.reported.first_contribution_time is not None
    return each.attempt.detect_seconds is not None and not each.over and each.newest is not None and contributes


def _phases(each: Lineage) -> dict[str, float | None]:
    """The phases of a recovery, in seconds."""
    member, reported = each.newest, each.reported
    assert member is not None
    assert isinstance(reported, ParticleReport)
    assert reported.first_contribution_time is not None
    started = member.created if member.started is None else member.started
    attached = min(reported.attached_time, reported.first_contribution_time)
    return {
        "detect_seconds": each.attempt.detect_seconds,
        "schedule_seconds": _span(member.created, started),
        "start_seconds": _span(started, attached),
        "rejoin_seconds": _span(attached, reported.first_contribution_time),
    }


def _span(start: float, end: float) -> float:
    return round(max(0.0, end - start), 3)
