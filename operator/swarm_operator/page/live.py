"""A live page in a terminal."""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from swarm_api.job import SwarmTrainingJob
from swarm_operator.page.forecast import Forecast
from swarm_operator.page.view import EVENTS, Told, View
from swarm_operator.plan.facts import Event

REDRAWS: Final = 4
"""Most per second. The page is drawn from a thread, so the clock on it runs while nothing happens."""


class LivePage:
    """Draws on the terminal's other screen while the job runs, and leaves its last state on the usual one.

    The other screen has no history that a redraw could garble, whatever else writes or the window is made to.
    """

    def __init__(self, console: Console, *, now: Callable[[], float] = time.time) -> None:
        self._console = console
        self._now = now
        self._job: SwarmTrainingJob | None = None
        self._events: tuple[Told, ...] = ()
        self._forecast = Forecast()
        self._live = Live(
            console=console, screen=True, refresh_per_second=REDRAWS, get_renderable=lambda: self._draw() or Text()
        )
        self._live.start()

    def update(self, job: SwarmTrainingJob) -> None:
        """Show this from the next redraw on."""
        self._forecast.observe(job.status.training.progress_percent, self._now())
        self._job = job

    def event(self, event: Event) -> None:
        """Show it under the others, with the time."""
        self._events = (*self._events, Told(self._now(), event))[-EVENTS:]

    def close(self) -> None:
        """Restore the terminal, then print the last state; again: nothing."""
        if not self._live.is_started:
            return
        self._live.stop()
        view = self._draw()
        if view is not None:
            self._console.print(view)

    def _draw(self) -> View | None:
        if self._job is None:
            return None
        now = self._now()
        return View(job=self._job, events=self._events, now=now, remaining=self._forecast.remaining(now))
