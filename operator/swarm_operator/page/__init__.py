"""What a person sees of `swarm run`: a live page in a terminal, plain lines in a pipe, a picture afterwards."""

import sys
from importlib.util import find_spec
from typing import Protocol

from swarm_api.job import SwarmTrainingJob
from swarm_operator.page.lines import LinePage
from swarm_operator.plan.facts import Event

__all__ = ["Page", "open_page"]


class Page(Protocol):
    """Shows one job until it is closed. Its methods return at once and may be called as often as one likes."""

    def update(self, job: SwarmTrainingJob) -> None:
        """The job as it is now."""
        ...

    def event(self, event: Event) -> None:
        """Something that just happened."""
        ...

    def close(self) -> None:
        """Leave the last state readable and the terminal as it was; again: nothing."""
        ...


def open_page(*, terminal: bool) -> Page:
    """A page on standard output: live where `terminal` is one that can be drawn on, else plain lines."""
    if terminal and find_spec("rich"):
        from rich.console import Console

        from swarm_operator.page.live import LivePage

        console = Console()
        if console.is_interactive and not console.is_dumb_terminal and not console.options.ascii_only:
            return LivePage(console)
    return LinePage(sys.stdout)
