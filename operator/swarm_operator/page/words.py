"""Numbers, times and states in the words that all pages use."""

import re
import signal
import time
from datetime import datetime

from swarm_api.job import SwarmTrainingJob
from swarm_api.names import particle_name
from swarm_api.status import Condition, JobState, JobStatus, ParticleStatus
from swarm_operator.plan.facts import Event

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_FINE_WHEN_TRUE = ("Accepted", "Running")
"""Types that are news when they are not True; all others are news when they are."""


def clock(when: float) -> str:
    """12:03:41 in local time; `when` in Unix seconds."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def duration(seconds: float) -> str:
    """0:42, 12:03, 1:02:03 or 2 d 01:02:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}:{second:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def count(number: float) -> str:
    """950, 3.1k, 12k or 1.2M: at most three digits."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 9.95 and unit:
            return f"{number:.1f}{unit}"
        if number < 999.5:
            return f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}P"


def loss_text(loss: float | None) -> str:
    """Four decimals, or an exponent where those would say nothing; a dash for no loss."""
    if loss is None:
        return "-"
    return f"{loss:.4f}" if loss == 0 or 0.001 <= abs(loss) < 10_000 else f"{loss:.2e}"


def number_of(amount: int, thing: str) -> str:
    """1 failure, 2 failures, 1,210 rounds."""
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def plain(text: str) -> str:
    """The text without what could move a cursor or colour a terminal; line breaks stay.

    Messages carry the last output of training scripts, and so progress bars, of which the last state is kept.
    """
    known = _ESCAPES.sub("", text.encode("utf-8", "replace").decode("utf-8"))
    shown = (line.rstrip().rpartition("\r")[2] for line in known.split("\n"))
    return "\n".join(_CONTROLS.sub(" ", line).rstrip() for line in shown).strip("\n")


def one_line(text: str) -> str:
    """First and last line of a text: of a traceback, what failed and how."""
    lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].removesuffix(':')}: {lines[-1]}"


def said(event: Event) -> str:
    """What an event tells, on one line."""
    return one_line(event.message) or event.reason


def algorithm(job: SwarmTrainingJob) -> str:
    """PSOPS every 10 steps."""
    period = job.spec.algorithm.sync_period
    return f"{job.spec.algorithm.name} every {'step' if period == 1 else f'{period} steps'}"


def elapsed(status: JobStatus, now: float) -> float | None:
    """Seconds from the job's start until its end, or until `now`; None before the start."""
    if status.start_time is None:
        return None
    end = now if status.completion_time is None else datetime.fromisoformat(status.completion_time).timestamp()
    return max(0.0, end - datetime.fromisoformat(status.start_time).timestamp())


def news(status: JobStatus) -> tuple[Condition, ...]:
    """The conditions worth a word: what is not fine, and the end. Not to run is no news before start and after end."""
    idle = status.state in (JobState.PENDING, JobState.SUSPENDED) or status.state.ended
    return tuple(
        condition
        for condition in status.conditions
        if (condition.status == "True") is not (condition.type in _FINE_WHEN_TRUE)
        and not (condition.type == "Running" and idle)
    )


def title(condition: Condition) -> str:
    """Degraded, or Not Running."""
    return condition.type if condition.status == "True" else f"Not {condition.type}"


def is_warning(condition: Condition, state: JobState) -> bool:
    """Whether someone should look: not where all is well, the user asked for it, or every start goes so."""
    starts = condition.type == "Running" and state is JobState.STARTING
    return not starts and condition.type not in ("Complete", "Suspended")


def phase_words(particle: ParticleStatus) -> str:
    """The phase, and for one that does not run why."""
    end = _end_words(particle)
    if particle.phase == "BackOff":
        return f"Back-off after {end or 'its end'}" + (
            f", {number_of(particle.failures, 'failure')}" if particle.failures else ""
        )
    if particle.phase == "Quarantined":
        return f"Quarantined, {number_of(particle.failures, 'failure')}" + (f": {end}" if end else "")
    if particle.phase == "Starting" and particle.last_exit_code is not None:
        return f"Starting again after {end}"
    if particle.phase == "Detached":
        return "Detached: runs, but the synchronizer has lost it"
    if particle.phase == "Pending" and particle.last_reason:
        return f"Pending: {particle.last_reason}"
    return particle.phase


def _end_words(particle: ParticleStatus) -> str:
    code, reason = particle.last_exit_code, particle.last_reason
    if code is None or reason not in ("", "Error", "Killed", "Completed"):
        return reason
    if code >= 0:
        return f"exit {code}"
    names = {member.value: member.name for member in signal.Signals}
    return names.get(-code, f"signal {-code}")


def place(job: SwarmTrainingJob, particle: ParticleStatus) -> str:
    """Where a particle runs; its pod only when that is not the name that index and incarnation already say."""
    known = particle_name(job.metadata.name, particle.index, particle.incarnation)
    return " ".join(part for part in (particle.node, particle.pod) if part and part != known)
