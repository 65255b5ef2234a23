"""A page of plain lines, for pipes, files and CI."""

import time
from collections.abc import Callable
from typing import Final, TextIO

from swarm_api.job import SwarmTrainingJob
from swarm_api.status import JobState
from swarm_operator.page.words import clock, count, duration, elapsed, is_warning, loss_text, news, plain, title
from swarm_operator.plan.facts import Event

EVERY: Final = 5.0
"""Seconds between two lines about progress."""


class LinePage:
    """One line per event, one for each condition that turns bad, and one about progress now and then."""

    def __init__(self, stream: TextIO, *, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._now = now
        self._job: SwarmTrainingJob | None = None
        self._state: JobState | None = None
        self._said_at = 0.0
        self._progress = ""
        self._told: frozenset[tuple[str, str]] = frozenset()
        self._heard: list[str] = []
        """What events said since the last update; a new condition often says the same."""

    def update(self, job: SwarmTrainingJob) -> None:
        """Write the progress if the state changed or the last line is old, and conditions that are new."""
        self._job = job
        now = self._now()
        if job.status.state is not self._state or now - self._said_at >= EVERY:
            self._say_progress(job, now)
        bad = news(job.status)
        for condition in bad:
            heard = any(condition.message.startswith(message) for message in self._heard)
            if (condition.type, condition.reason) not in self._told and not heard:
                text = f"{title(condition)}: {condition.message or condition.reason}"
                self._say(now, f"WARNING {text}" if is_warning(condition, job.status.state) else text)
        self._told = frozenset((condition.type, condition.reason) for condition in bad)
        self._heard.clear()

    def event(self, event: Event) -> None:
        """Write it, with the lines below its first one indented."""
        if event.message:
            self._heard.append(event.message.removesuffix(" …"))
        about = f"{event.reason} {event.regarding}".rstrip()
        message = f"{about}: {event.message}" if event.message else about
        self._say(self._now(), f"WARNING {message}" if event.warning else message)

    def close(self) -> None:
        """Write the last progress, unless it was the last that was said of it."""
        if self._job is not None:
            self._say_progress(self._job, self._now())
        self._job = None

    def _say_progress(self, job: SwarmTrainingJob, now: float) -> None:
        progress = _progress(job, now)
        if progress != self._progress:
            self._say(now, progress)
        self._progress, self._said_at, self._state = progress, now, job.status.state

    def _say(self, now: float, text: str) -> None:
        first, *rest = plain(text).splitlines() or [""]
        lines = "\n".join((f"{clock(now)} {first}", *(f"         {line}" for line in rest)))
        encoding = self._stream.encoding or "utf-8"
        print(lines.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)


def _progress(job: SwarmTrainingJob, now: float) -> str:
    """Running  round 120  4/4 particles  loss 0.1234  42 %  3.1k samples/s."""
    status, training = job.status, job.status.training
    parts = [str(status.state)]
    if training.round:
        parts.append(f"round {training.round:,}")
    parts.append(f"{status.particles.ready}/{status.particles.desired} particles")
    if training.best_loss is not None:
        parts.append(f"loss {loss_text(training.best_loss)}")
    if training.progress_percent:
        parts.append(f"{training.progress_percent} %")
    took = elapsed(status, now)
    if status.state.ended:
        parts.append(f"{count(training.samples_seen)} samples")
        if took is not None:
            parts.append(f"in {duration(took)}")
    elif training.samples_per_second:
        parts.append(f"{count(training.samples_per_second)} samples/s")
    return "  ".join(parts)
