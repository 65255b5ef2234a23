"""The conditions of the status: states, not transitions, each with why."""

from typing import Final

from swarm_api.report import SwarmState
from swarm_api.status import Condition, JobState
from swarm_operator.plan import words
from swarm_operator.plan.ends import said_finished
from swarm_operator.plan.standing import Standing
from swarm_operator.plan.times import stamp
from swarm_operator.plan.view import NOT_SUSPENDED, View

LONGEST: Final = 4000
"""Characters of a message."""
START_SECONDS: Final = 30.0
"""A synchronizer may take so long until its report can be read before anyone complains."""

_Said = tuple[bool, str, str]
"""Status, reason and message."""


def conditions(view: View, standing: Standing) -> tuple[Condition, ...]:
    """All of them, always in the same order; the time of one changes only when its status does."""
    said = {
        "Accepted": (True, "Accepted", "the job can be run as it is written"),
        "Running": _running(view, standing),
        "Degraded": _degraded(view, standing),
        "Suspended": _suspended(view, standing),
        "Complete": _ended(standing, JobState.COMPLETE),
        "Failed": _ended(standing, JobState.FAILED),
        "ReportUnavailable": _unavailable(view, standing),
        "NothingKept": _nothing_kept(view),
        "CheckpointFailing": _checkpoint_failing(view, standing),
        "OutputFailing": _output_failing(view, standing),
    }
    return tuple(_condition(view, kind, *parts) for kind, parts in said.items())


def _condition(view: View, kind: str, holds: bool, reason: str, message: str) -> Condition:
    before, status = view.job.status.condition(kind), "True" if holds else "False"
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message if len(message) <= LONGEST else f"{message[: LONGEST - 2]} …",
        last_transition_time=before.last_transition_time if before and before.status == status else stamp(view.now),
        observed_generation=view.job.metadata.generation,
    )


def _running(view: View, standing: Standing) -> _Said:
    if standing.outcome:
        return False, standing.outcome.state.value, "the job has ended"
    if standing.suspending:
        return False, "Suspended", "the job is suspended"
    if standing.trains:
        return True, "Training", _present(standing)
    return False, *_not_training(view, standing)


def _not_training(view: View, standing: Standing) -> tuple[str, str]:
    """Reason and message, for what holds the job up: the synchronizer, or too few particles."""
    synchronizer, floor = standing.swarm.synchronizer, standing.floor
    if standing.has_run and standing.swarm.report(view) is None:
        why = words.trouble(view, synchronizer)
        if synchronizer.live:
            why = "the new synchronizer has not reported yet"
        return "SynchronizerAbsent", f"{why}; the particles train on by themselves meanwhile"
    if standing.has_run and standing.ready >= floor:
        return "SwarmForming", f"{_there(standing)}; the synchronizer is about to begin a round with them"
    if standing.has_run:
        absent = words.troubles(view, standing.absent)
        return "BelowMinimum", f"{_there(standing)} and minReplicas is {floor}, so nothing commits: {absent}"
    holdups = [] if synchronizer.live and standing.swarm.report(view) else [synchronizer]
    why = words.troubles(view, [*holdups, *standing.absent])
    if standing.state(view.before.state) is JobState.PENDING:
        return "Pending", f"nothing runs yet: {why}"
    there = _there(standing)
    return "Starting", f"{there}: {why}" if why else f"{there}; the first round is about to begin"


def _degraded(view: View, standing: Standing) -> _Said:
    if standing.outcome:
        return False, standing.outcome.state.value, "the job has ended"
    if standing.suspending:
        return False, "Suspended", "the job is suspended"
    if not (standing.trains or standing.has_run):
        return False, "Starting", "the swarm has not trained yet"
    if not standing.absent:
        return False, "AllPresent", _present(standing)
    if standing.swarm.report(view) is None:
        return True, *_not_training(view, standing)
    given_up = any(each.attempt.quarantined for each in standing.absent)
    reason = "ParticleQuarantined" if given_up else "ParticlesMissing"
    return True, reason, f"{_present(standing)}; {words.troubles(view, standing.absent)}"


def resumption(view: View) -> str:
    """From where a resumed job would go on, as the end of a sentence."""
    if view.keeps_checkpoints:
        return "resuming goes on from the last checkpoint"
    return "no checkpoint is kept, so resuming starts the training from the beginning"


def _suspended(view: View, standing: Standing) -> _Said:
    if standing.outcome or not standing.suspending:
        return False, NOT_SUSPENDED, "the job is not suspended"
    if not standing.gone:
        stopping = sum(1 for each in standing.swarm.all for _ in each.lingering)
        return False, "Suspending", f"{words.count(stopping, 'process', 'processes')} must still stop"
    return True, "Suspended", f"nothing runs; {resumption(view)}"


def _ended(standing: Standing, state: JobState) -> _Said:
    outcome = standing.outcome
    if outcome and outcome.state is state:
        return True, outcome.reason, outcome.message
    return False, f"Not{state.value}", "the job has ended otherwise" if outcome else "the job goes on"


def _unavailable(view: View, standing: Standing) -> _Said:
    synchronizer = standing.swarm.synchronizer.live
    awaited = (
        synchronizer is not None
        and standing.swarm.report(view) is None
        and view.now - (synchronizer.started or synchronizer.created) < START_SECONDS
    )
    done = synchronizer is not None and said_finished(view, synchronizer)
    if view.complaint and not (awaited or done or standing.outcome):
        return True, "Unreadable", f"the synchronizer's report cannot be read: {view.complaint}"
    return False, "NothingToComplainOf", "the report is read, or nobody is there to give one"


def _nothing_kept(view: View) -> _Said:
    if view.keeps_model or view.keeps_checkpoints:
        return False, "Kept", f"{'the model' if view.keeps_model else 'a checkpoint'} outlives the pods"
    why = "neither synchronizer.output nor synchronizer.checkpoint is set: the trained model is lost with the last pod"
    return True, "NoOutput", why


def _checkpoint_failing(view: View, standing: Standing) -> _Said:
    report = standing.swarm.report(view)
    if report is None or report.checkpoint is None or not report.checkpoint.error:
        return False, "NothingToComplainOf", "no checkpoint has failed"
    return True, "CannotWrite", f"{report.checkpoint.error}; the training goes on"


def _output_failing(view: View, standing: Standing) -> _Said:
    report = standing.swarm.report(view)
    if report is None or report.state is not SwarmState.TRAINING or not report.message:
        return False, "NothingToComplainOf", "no attempt to write the model has failed"
    return True, "CannotWrite", f"{report.message}; the synchronizer holds the model and tries again"


def _present(standing: Standing) -> str:
    """All 4 particles train, 3 of 4 particles train, 2 of 4 particles train and 1 has finished."""
    training, finished, replicas = len(standing.attached), len(standing.finished), standing.swarm.replicas
    if training == replicas > 1:
        return f"all {replicas} particles train"
    if training == 0 and finished == replicas:
        return f"{'both' if replicas == 2 else 'all'} particles have finished" if replicas > 1 else "it has finished"
    text = f"{training} of {words.count(replicas, 'particle')} {'trains' if training == 1 else 'train'}"
    return f"{text} and {finished} {'has' if finished == 1 else 'have'} finished" if finished else text


def _there(standing: Standing) -> str:
    """1 of 4 particles is there: attached, or finished."""
    return f"{standing.ready} of {words.count(standing.swarm.replicas, 'particle')} {words.be(standing.ready)} there"
