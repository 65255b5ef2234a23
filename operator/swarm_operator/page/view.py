"""The live page as a rich renderable: a pure drawing of a job at one moment, fitted into width and height."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarm_api.job import SwarmTrainingJob
from swarm_api.status import Condition, JobState, ParticleStatus
from swarm_operator.page.words import (
    algorithm,
    clock,
    count,
    duration,
    elapsed,
    is_warning,
    loss_text,
    news,
    number_of,
    phase_words,
    place,
    plain,
    said,
    title,
)
from swarm_operator.plan.facts import Event

WIDEST: Final = 110
"""Columns: wider lines are tiring to read."""
WIDE: Final = 95
"""Columns from which on the table spells its titles out."""
EVENTS: Final = 6
LONGEST: Final = 5
"""Lines of one condition's message."""
LONGEST_FAILURE: Final = 16
"""The same where training failed: its last output says why."""

_COLOURS: Final = {
    JobState.RUNNING: "green",
    JobState.COMPLETE: "green",
    JobState.DEGRADED: "yellow",
    JobState.WAITING: "yellow",
    JobState.FAILED: "red",
}
_TROUBLES: Final = {"Quarantined": "red", "BackOff": "yellow", "Detached": "yellow"}


@dataclass(frozen=True, slots=True)
class Told:
    """An event and when it came, in Unix seconds."""

    time: float
    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A job at the moment `now`, in Unix seconds. Where the height is unlimited everything is shown."""

    job: SwarmTrainingJob
    events: Sequence[Told] = ()
    """Oldest first."""
    now: float
    remaining: float | None = None
    """Seconds until the training is done, where that can be said."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Four sections from top to bottom; in a low terminal particles, conditions and events share what is left."""
        width = max(20, min(options.max_width, WIDEST) - 2)
        status, events = self.job.status, self.events[-EVENTS:]
        notes = [_note(console, condition, status.state, width) for condition in news(status)]
        rows = max(len(status.particle_statuses), status.particles.desired)
        wants = [_section(sum(map(len, notes))), _section(1 + rows) if rows else 0, _section(len(events))]
        if options.height is not None:
            least = [_section(min(len(notes), 3)), _section(3), _section(3)]
            wants = _share(options.height - 4, wants, least)
        for_notes, for_rows, for_events = (max(0, lines - 1) for lines in wants)

        page = Table.grid(padding=0)
        page.add_column(width=width, no_wrap=True)
        page.add_row(self._header())
        page.add_row()
        page.add_row(self._bar(width))
        page.add_row(self._facts(width))
        if for_rows:
            page.add_row()
            page.add_row(_particles(self.job, for_rows - 1, width))
        latest = [
            line
            for told in events[len(events) - for_events :]
            for line in _event(console, told, width, whole=options.height is None)
        ]
        for section in (_fit(notes, for_notes), latest):
            if section:
                page.add_row()
            for line in section:
                page.add_row(line)
        yield Padding(page, (0, 1))

    def _header(self) -> RenderableType:
        status = self.job.status
        took = elapsed(status, self.now)
        name = Text.assemble(
            (self.job.metadata.name, "bold"),
            "   ",
            (f"● {status.state}", _COLOURS.get(status.state, "cyan")),
            "   ",
            (algorithm(self.job), "dim"),
        )
        return _ends(name, Text("" if took is None else duration(took)))

    def _bar(self, width: int) -> RenderableType:
        status, training = self.job.status, self.job.status.training
        percent = 100 if status.state is JobState.COMPLETE else training.progress_percent
        tail = f"{percent:>3} %"
        if not status.state.ended:
            rate = f"{count(training.samples_per_second)} samples/s" if training.samples_per_second else ""
            moves = status.state in (JobState.RUNNING, JobState.DEGRADED)
            left = f"ETA {duration(self.remaining)}" if moves and self.remaining is not None else ""
            tail += f"  {rate:>14}  {left:>11}"
        return _ends(
            ProgressBar(
                total=100,
                completed=percent,
                width=width - len(tail) - 1,
                style="bright_black",
                complete_style=_COLOURS.get(status.state, "cyan"),
                finished_style=_COLOURS.get(status.state, "cyan"),
            ),
            Text(tail),
        )

    def _facts(self, width: int) -> Text:
        """What fits of the numbers that matter, the most wanted first."""
        status, training, recovery = self.job.status, self.job.status.training, self.job.status.recovery
        best = "" if training.best_particle is None else f" (particle {training.best_particle})"
        facts = [
            ("round ", f"{training.round:,}", ""),
            ("", f"{status.particles.ready}/{status.particles.desired}", " particles"),
            ("best loss ", loss_text(training.best_loss), best),
        ]
        if recovery.count:
            facts.append(("", str(recovery.count), f" {number_of(recovery.count, 'replacement').partition(' ')[2]}"))
        facts.append(("", count(training.samples_seen), " samples"))
        line = Text()
        for before, value, after in facts:
            fact = Text.assemble("   " if line else "", (before, "dim"), value, (after, "dim"))
            if line.cell_len + fact.cell_len <= width:
                line.append_text(fact)
        return line


def _section(lines: int) -> int:
    """Its lines and the empty one above."""
    return lines + 1 if lines else 0


def _share(room: int, wants: Sequence[int], least: Sequence[int]) -> list[int]:
    """Give each its least, then what is left to the first ones first."""
    given = [min(pair) for pair in zip(wants, least, strict=True)]
    spare = room - sum(given)
    for index, want in enumerate(wants):
        more = max(0, min(want - given[index], spare))
        given[index] += more
        spare -= more
    return given


def _ends(left: RenderableType, right: Text) -> Table:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(left, right)
    return line


def _particles(job: SwarmTrainingJob, rows: int, width: int) -> Table:
    """The particles by index; of too many the best and the troubled ones stay, and the rest is counted."""
    particles = sorted(job.status.particle_statuses, key=lambda particle: particle.index)
    total = max(len(particles), job.status.particles.desired)
    if total > rows:
        first = sorted(particles, key=lambda particle: (not particle.is_best, particle.phase not in _TROUBLES))
        particles = sorted(first[: max(0, rows - 1)], key=lambda particle: particle.index)
    wide = width >= WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", width=width)
    table.add_column("particle", justify="right", no_wrap=True)
    table.add_column("incarnation" if wide else "inc", justify="right", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True, min_width=7)
    table.add_column("loss", justify="right", no_wrap=True, min_width=7)
    table.add_column("staleness" if wide else "stale", justify="right", no_wrap=True)
    table.add_column("phase", no_wrap=True, overflow="ellipsis", ratio=1)
    for particle in particles:
        table.add_row(*_cells(job, particle))
    if total > len(particles):
        table.add_row("", "", "", "", "", Text(f"and {total - len(particles):,} more", style="dim"))
    return table


def _cells(job: SwarmTrainingJob, particle: ParticleStatus) -> Iterable[Text]:
    style = _TROUBLES.get(particle.phase, "" if particle.phase == "Running" else "dim")
    numbers = "bold" if particle.is_best else ""
    where = place(job, particle)
    yield Text(str(particle.index), style=numbers)
    yield Text(str(particle.incarnation), style=numbers)
    yield Text(f"{particle.step:,}", style=numbers)
    yield Text(loss_text(particle.loss), style=numbers)
    yield Text(str(particle.staleness_rounds) if particle.staleness_rounds else "-", style=numbers)
    yield Text.assemble(
        (plain(phase_words(particle)), style),
        (", best" if particle.is_best else "", "bold"),
        (f"   {where}" if where else "", "dim"),
    )


def _note(console: Console, condition: Condition, state: JobState, width: int) -> list[Text]:
    """A condition's message, wrapped; of a very long one its first line and its end."""
    good = condition.type == "Complete"
    failed = condition.type in ("Failed", "Accepted")
    style = "green" if good else "red" if failed else "yellow" if is_warning(condition, state) else "cyan"
    text = Text.assemble((title(condition), style), "  ", plain(condition.message or condition.reason))
    return _shorten(list(text.wrap(console, width, overflow="fold")), LONGEST_FAILURE if failed else LONGEST)


def _shorten(lines: list[Text], most: int) -> list[Text]:
    """The first and the last ones: of a traceback the end says most."""
    if len(lines) <= most:
        return lines
    first = lines[0].copy()
    first.append(" …")
    return [first, *lines[len(lines) - most + 1 :]]


def _fit(notes: Sequence[list[Text]], lines: int) -> list[Text]:
    """Every note shortened to its part of the lines; the first ones only, where there are more notes than lines."""
    shown: list[Text] = []
    for index, note in enumerate(notes[:lines]):
        left = min(len(notes), lines) - index
        shown += _shorten(note, (lines - len(shown)) // left)
    return shown


def _event(console: Console, told: Told, width: int, *, whole: bool) -> list[Text]:
    """One line, or as many as the message takes."""
    message = Text(said(told.event), style="yellow" if told.event.warning else "", no_wrap=not whole)
    lines = message.wrap(console, width - 10, overflow="fold" if whole else "ellipsis")
    stamp = clock(told.time)
    return [Text.assemble((f"{'' if row else stamp:<10}", "dim"), line) for row, line in enumerate(lines)]
