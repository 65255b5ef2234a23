"""The plan: one pure function from what is wanted and what is there to what should happen next."""

import math
from typing import Final

from swarm_api.job import SwarmTrainingJob
from swarm_api.names import GROUP
from swarm_api.status import JobStatus
from swarm_operator.plan.actions import Plan
from swarm_operator.plan.conditions import conditions
from swarm_operator.plan.events import events
from swarm_operator.plan.facts import Observed
from swarm_operator.plan.lineage import STOP_PATIENCE
from swarm_operator.plan.outcome import Outcome, decide
from swarm_operator.plan.progress import particle_statuses, recover, training
from swarm_operator.plan.standing import Standing
from swarm_operator.plan.steps import leftovers, steps, wanted, withheld
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.times import stamp, unix
from swarm_operator.plan.view import View

WRITE_SECONDS: Final = 0.2
"""When a deletion waits for the status to be written, the next plan comes after so long."""


def plan(job: SwarmTrainingJob, observed: Observed, now: float) -> Plan:
    """What should happen next to a job.

    Its only memory is `job.status`, the status of the plan before; so a plan made twice says the same, and one
    whose status was lost is made again. What it needs of `observed` is that it never goes back behind what an
    earlier plan of this job was told; it may lag.

    Args:
        job: As the user wants it, with the last status.
        observed: The children that exist and the synchronizer's report.
        now: Unix seconds.
    """
    if (job.metadata.model_extra or {}).get("deletionTimestamp"):
        return Plan(actions=(), status=job.status)
    view = View.of(job, observed, now)
    swarm = Swarm.of(view)
    if job.status.state.ended:
        ended_for = now - unix(job.status.completion_time) if job.status.completion_time else math.inf
        actions, later = leftovers(swarm, job.status.state, ended_for=ended_for)
        return Plan(actions=actions, status=job.status, requeue_after=later)
    outcome = decide(view, swarm)
    if outcome is None:
        swarm = swarm.stopping(view)
    status, swarm = _status(view, swarm, outcome)
    return Plan(
        actions=steps(view, swarm, outcome),
        status=status,
        events=events(view, swarm, status),
        requeue_after=_requeue_after(view, swarm, outcome),
    )


def _status(view: View, swarm: Swarm, outcome: Outcome | None) -> tuple[JobStatus, Swarm]:
    swarm, recovery = recover(view, swarm)
    standing = Standing.of(view, swarm, outcome)
    started = view.before.start_time or (None if view.job.spec.suspend else stamp(view.now))
    status = JobStatus(
        observed_generation=view.job.metadata.generation,
        start_time=started,
        completion_time=stamp(view.now) if outcome else None,
        state=standing.state(view.before.state),
        conditions=conditions(view, standing),
        particles=standing.counts,
        selector=f"{GROUP}/job-name={view.job.metadata.name},{GROUP}/role=particle",
        particle_statuses=particle_statuses(view, standing),
        training=training(view, swarm),
        recovery=recovery,
        attempts={each.key: each.attempt for each in swarm.all},
        attached=view.before.attached or (swarm.report(view) is not None and bool(view.particles)),
    )
    return status, swarm


def _requeue_after(view: View, swarm: Swarm, outcome: Outcome | None) -> float | None:
    """Seconds until time alone changes the plan."""
    if outcome is not None:
        return leftovers(swarm, outcome.state, ended_for=0.0)[1]
    waits = [each.wait(view.now) for each in wanted(view, swarm) if each.replaceable]
    waits += [each.unsettled for each in swarm.all if each.unsettled is not None]
    waits += [
        unix(each.attempt.ended_at) + STOP_PATIENCE - view.now
        for each in swarm.particles
        if view.job.spec.suspend and each.attempt.ended_at and any(each.lingering)
    ]
    window = view.job.spec.particles.failure_policy.window_seconds
    waits += [
        unix(each.attempt.failures[0]) + window - view.now
        for each in swarm.all
        if each.attempt.failures and not each.attempt.quarantined
    ]
    if withheld(view, swarm):
        waits.append(WRITE_SECONDS)
    return min((max(0.001, wait) for wait in waits if wait > 0), default=None)
