"""report.png: how loss and accuracy went, over samples and over time, of every particle and of the center."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm_operator.page.curves import Curve, curve, thinning
from swarm_operator.page.history import Absence, History, Point, read
from swarm_operator.page.words import count, duration, number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS: Final = "metrics.jsonl"
PICTURE: Final = "report.png"
LOG_FROM: Final = 20.0
"""Ratio of the highest to the lowest loss from which on the axis is logarithmic."""

_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D1F")
"""Okabe and Ito's for the colour-blind, the yellow darkened to be seen on white. More particles share one grey."""
_GREY: Final = "#7A8FA6"
_ALERT: Final = "#D55E00"
"""Of marks on grey lines."""
_CENTER: Final = "#1A1A1A"

log = logging.getLogger(__name__)


def draw(folder: Path, *, job: str) -> Path | None:
    """Write report.png beside metrics.jsonl; None, with the reason in the log, where there is nothing to draw."""
    history = read(folder / METRICS)
    if not any(row.points for row in _rows(history)):
        log.warning("no picture: %s holds no loss and no metric yet", folder / METRICS)
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        log.warning("no picture: matplotlib is missing; pip install 'swarm-training[cli]'")
        return None
    figure = compose(history, job=job)
    FigureCanvasAgg(figure)
    figure.savefig(folder / PICTURE)
    return folder / PICTURE


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """What two panels side by side show."""

    name: str
    particles: Mapping[int, Curve]
    center: Curve
    each: int
    """How many reports one point stands for."""

    @property
    def points(self) -> list[Point]:
        return [point for line in (*self.particles.values(), self.center) for point in line.points]


@dataclass(frozen=True, slots=True)
class _Across:
    """What a column has from left to right, of a time in Unix seconds and the samples seen by then."""

    label: str
    place: Callable[[float, float], float]


def compose(history: History, *, job: str) -> "Figure":
    """The picture: a row for the loss and one for the metric, where there are any; samples left, time right."""
    from matplotlib.figure import Figure

    rows = [row for row in _rows(history) if row.points]
    columns = (_Across("samples seen by the swarm", lambda _, samples: samples), _time(history))
    figure = Figure(figsize=(11, 1.6 + 3 * len(rows)), dpi=120, layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), 2, sharey="row", sharex="col", squeeze=False)
    for row, panels in zip(rows, axes, strict=True):
        for column, panel in zip(columns, panels, strict=True):
            _draw_panel(panel, row, history, column)
        _scale(panels[0], row)
        panels[0].set_ylabel(row.name if row.each == 1 else f"{row.name}, mean of {row.each} reports")
        panels[0].set_title(f"{row.name} over samples", fontsize=10)
        panels[1].set_title(f"{row.name} over time", fontsize=10)
    for column, panel in zip(columns, axes[-1], strict=True):
        panel.set_xlabel(column.label)
        panel.set_xlim(left=0)
    began, ended = history.span
    figure.suptitle(
        f"{job}: {number_of(len(history.particles), 'particle')}, {number_of(len(history.rounds), 'round')}, "
        f"{count(history.samples)} samples in {duration(ended - began)}",
        fontsize=13,
    )
    _legend(figure, rows, history)
    return figure


def _rows(history: History) -> Iterator[_Row]:
    metric = history.metric
    if any(map(history.losses, history.particles)) or history.values("loss"):
        yield _row(history, "loss", history.losses)
    if metric is not None:
        yield _row(history, metric, lambda particle: history.values(metric, particle))


def _row(history: History, name: str, of: Callable[[int], Sequence[Point]]) -> _Row:
    points = {particle: of(particle) for particle in history.particles}
    center = history.values(name)
    each = thinning(points.values())
    return _Row(
        name=name,
        particles={index: curve(points[index], history.absences(index), each=each) for index in points},
        center=curve(center, each=thinning([center])),
        each=each,
    )


def _time(history: History) -> _Across:
    began, ended = history.span
    unit, seconds = next(
        (unit, seconds)
        for unit, seconds in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0))
        if ended - began < 180 * seconds or unit == "hours"
    )
    return _Across(f"{unit} since the start", lambda time, _: (time - began) / seconds)


def _colours(history: History) -> dict[int, str]:
    """A colour for each particle; empty where there are too many to be told apart."""
    particles = history.particles
    return dict(zip(particles, _COLOURS, strict=False)) if len(particles) <= len(_COLOURS) else {}


def _draw_panel(panel: "Axes", row: _Row, history: History, across: _Across) -> None:
    colours = _colours(history)
    style = {"linewidth": 1.1, "alpha": 0.85} if colours else {"linewidth": 0.7, "alpha": 0.35}
    for particle, line in row.particles.items():
        _plot(panel, line, across, color=colours.get(particle, _GREY), gid=f"particle {particle}", **style)
        _mark(panel, line, history.absences(particle), across, colours.get(particle, _ALERT))
    if row.center.pieces:
        _plot(panel, row.center, across, color=_CENTER, linewidth=2.6, gid="center", zorder=3)
    panel.grid(color="#E8E8E8", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _plot(panel: "Axes", line: Curve, across: _Across, **style: Any) -> None:
    xs: list[float] = []
    ys: list[float] = []
    for piece in line.pieces:
        xs += [across.place(point.time, point.samples) for point in piece] + [nan]
        ys += [point.value for point in piece] + [nan]
    panel.plot(xs, ys, marker="o" if len(xs) <= 30 else "", markersize=3.5, **style)


def _mark(panel: "Axes", line: Curve, absences: Sequence[Absence], across: _Across, colour: str) -> None:
    """A cross where the particle was lost, a ring where it came back: on its line, or below if it has none."""
    for absence in absences:
        moments = [(_lost(colour), absence.lost, line.before(absence.lost.time))]
        if absence.back is not None:
            moments.append((_back(colour), absence.back, line.after(absence.back.time)))
        for style, moment, near in moments:
            panel.plot(
                across.place(moment.time, moment.samples),
                0.03 if near is None else near.value,
                transform=panel.get_xaxis_transform() if near is None else panel.transData,
                zorder=4,
                **style,
            )


def _lost(colour: str) -> dict[str, Any]:
    return {
        "marker": "X",
        "markersize": 8,
        "markerfacecolor": colour,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
        "linestyle": "",
        "gid": "lost",
    }


def _back(colour: str) -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": 6.5,
        "markerfacecolor": "white",
        "markeredgecolor": colour,
        "markeredgewidth": 1.6,
        "linestyle": "",
        "gid": "back",
    }


def _scale(panel: "Axes", row: _Row) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    values = [point.value for point in row.points]
    if row.name == "loss" and min(values) > 0 and max(values) / min(values) > LOG_FROM:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def _legend(figure: "Figure", rows: Sequence[_Row], history: History) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if any(row.center.pieces for row in rows):
        handles.append(Line2D([], [], color=_CENTER, linewidth=2.6, label="center"))
    particles, colours = history.particles, _colours(history)
    if not colours:
        label = f"particles {particles[0]} to {particles[-1]}"
        handles.append(Line2D([], [], color=_GREY, linewidth=1.5, label=label))
    else:
        for particle in particles:
            reported = any(row.particles[particle].pieces for row in rows)
            label = f"particle {particle}" if reported else f"particle {particle} (no report)"
            handles.append(Line2D([], [], color=colours[particle], linewidth=1.5, label=label))
    absences = [absence for particle in particles for absence in history.absences(particle)]
    if absences:
        handles.append(Line2D([], [], label="lost", **_lost(_CENTER)))
    if any(absence.back for absence in absences):
        handles.append(Line2D([], [], label="back", **_back(_CENTER)))
    columns = len(handles) if len(handles) < 10 else ceil(len(handles) / 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
