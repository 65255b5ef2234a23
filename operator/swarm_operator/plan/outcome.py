"""Whether the job is at its end, and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from swarm_api.report import SwarmState
from swarm_api.status import JobState
from swarm_operator.plan import words
from swarm_operator.plan.ends import Reason, exited_0, said_finished
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.swarm import Swarm
from swarm_operator.plan.view import View

NEVER_ATTACHED_AFTER = 2
"""Failures of each particle, when none of them ever attached: the script is broken, so more starts do not help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The end of the job."""

    state: JobState
    reason: str
    message: str


def decide(view: View, swarm: Swarm) -> Outcome | None:
    """The end of the job, or None while it goes on."""
    synchronizer = swarm.synchronizer
    if synchronizer.attempt.finished or _finished_while_told_to_stop(view, synchronizer):
        given_up = sum(particle.attempt.quarantined for particle in swarm.desired)
        without = f" without {words.count(given_up, 'particle')} that failed too often" if given_up else ""
        model = "the model is written" if view.keeps_model else "no output is set, so no model was written"
        reason = "ModelWritten" if view.keeps_model else "Finished"
        return Outcome(state=JobState.COMPLETE, reason=reason, message=f"the swarm finished{without}; {model}")
    if impossible := _impossible(view, swarm):
        return impossible
    if view.job.spec.suspend:
        return None
    if synchronizer.attempt.quarantined:
        return _failed(
            "SynchronizerFailed", f"{words.budget_spent(view, synchronizer)}{words.last_words(synchronizer)}"
        )
    return _never_attached(view, swarm) or _too_many_failures(view, swarm) or _model_lost(view, swarm)


def _finished_while_told_to_stop(view: View, synchronizer: Lineage) -> bool:
    newest = synchronizer.newest
    return newest is not None and newest.ended_phase and exited_0(newest) and said_finished(view, newest)


def _failed(reason: str, message: str) -> Outcome:
    return Outcome(state=JobState.FAILED, reason=reason, message=message)


def _impossible(view: View, swarm: Swarm) -> Outcome | None:
    """The synchronizer says that training cannot go on: in its report, or with its last breath."""
    synchronizer, report = swarm.synchronizer, view.report
    said = report is not None and report.incarnation == synchronizer.attempt.incarnation
    message = report.message if report is not None and said and report.state is SwarmState.FAILED else None
    if synchronizer.attempt.last_reason == Reason.CANNOT_GO_ON and synchronizer.over:
        message = message or words.output(synchronizer)
    elif message is None:
        return None
    return _failed("TrainingFailed", message or "the synchronizer says that training cannot go on; see its log")


def _never_attached(view: View, swarm: Swarm) -> Outcome | None:
    """Fast word of a broken script. Without any report nobody can say that none attached."""
    if view.report is None or view.report.particles or view.before.attached:
        return None
    if any(len(particle.attempt.failures) < NEVER_ATTACHED_AFTER for particle in swarm.desired):
        return None
    last = _last_to_fail(swarm.desired)
    return _failed(
        "NeverAttached",
        f"no particle ever attached to the synchronizer, and each failed twice; the last, {last.who}, "
        f"{words.ending(last)}{words.last_words(last)}",
    )


def _too_many_failures(view: View, swarm: Swarm) -> Outcome | None:
    given_up = [particle for particle in swarm.desired if particle.attempt.quarantined]
    possible, floor = swarm.replicas - len(given_up), view.job.spec.particles.min_replicas
    if possible >= floor:
        return None
    last = _last_to_fail(given_up)
    return _failed(
        "TooManyFailures",
        f"{words.count(len(given_up), 'particle')} of {swarm.replicas} {words.be(len(given_up))} given up and "
        f"minReplicas is {floor}: {words.budget_spent(view, last)}{words.last_words(last)}",
    )


def _model_lost(view: View, swarm: Swarm) -> Outcome | None:
    """The center lives in the synchronizer, the particles and checkpoints: without all there is nothing to go on from.

    Where checkpoints are kept, the next synchronizer knows whether there is one.
    """
    if view.keeps_checkpoints or not (swarm.synchronizer.over and swarm.done):
        return None
    return _failed(
        "ModelLost",
        f"every particle had finished, but the synchronizer {words.ending(swarm.synchronizer)} before it had written "
        f"the model, and nothing is left to rebuild it from{words.last_words(swarm.synchronizer)}",
    )


def _last_to_fail(particles: Iterable[Lineage]) -> Lineage:
    return max(particles, key=lambda particle: (particle.attempt.ended_at or "", particle.end is not None))
