"""Points of a history as curves that can be drawn: broken where a particle was away, and thinned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import fmean

from swarm_operator.page.history import Absence, Point

MOST_POINTS = 100
"""Of one curve: more would be noise over noise in a picture of several particles."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Pieces of points; between two pieces the particle was away."""

    pieces: tuple[tuple[Point, ...], ...]

    @property
    def points(self) -> list[Point]:
        """All pieces in a row."""
        return [point for piece in self.pieces for point in piece]

    def before(self, time: float) -> Point | None:
        """The last point until then."""
        return next((point for point in reversed(self.points) if point.time <= time), None)

    def after(self, time: float) -> Point | None:
        """The first point from then on."""
        return next((point for point in self.points if point.time >= time), None)


def curve(points: Sequence[Point], absences: Iterable[Absence] = (), *, each: int = 1) -> Curve:
    """The points in order of time, broken at each loss and return, and `each` so many of them replaced by their mean.

    A push that was on its way when its particle was lost is a piece of its own.
    """
    breaks = [moment.time for absence in absences for moment in (absence.lost, absence.back) if moment is not None]
    pieces: list[tuple[Point, ...]] = []
    rest = sorted(points)
    for time in breaks:
        pieces.append(tuple(point for point in rest if point.time < time))
        rest = rest[len(pieces[-1]) :]
    pieces.append(tuple(rest))
    return Curve(tuple(_means(piece, each) for piece in pieces if piece))


def thinning(curves: Iterable[Sequence[Point]]) -> int:
    """How many points must become one so that none of the curves has too many."""
    return max(1, ceil(max(map(len, curves), default=0) / MOST_POINTS))


def _means(points: tuple[Point, ...], each: int) -> tuple[Point, ...]:
    if each == 1:
        return points
    amount = max(1, round(len(points) / each))
    bounds = [len(points) * group // amount for group in range(amount + 1)]
    groups = [points[start:end] for start, end in pairwise(bounds)]
    return tuple(Point(*map(fmean, zip(*group, strict=True))) for group in groups)
