"""The course of a training, read from the synchronizer's `metrics.jsonl`.

One JSON object a line. Lines of unknown kinds are left out, and so are those that cannot be read: a synchronizer that
was killed leaves half a line.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A committed round. `losses` is the mean training loss of each contributor since its last push."""

    kind: Literal["round"] = "round"
    time: float
    """Unix seconds."""
    round: int
    contributors: tuple[int, ...] = ()
    samples: int
    """Seen by the whole swarm so far."""
    losses: Mapping[int, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """What a particle reported of itself, or of the center that it evaluated."""

    kind: Literal["metrics"] = "metrics"
    time: float
    particle: int
    incarnation: int
    samples: int
    of: Literal["center", "particle"]
    values: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Membership:
    """A particle came, went or finished."""

    kind: Literal["attached", "detached", "finished"]
    time: float
    particle: int
    incarnation: int
    round: int = 0
    samples: int
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    """A synchronizer went on from a checkpoint: what came after that is trained again."""

    kind: Literal["restored"]
    time: float
    round: int
    samples: int


class Point(NamedTuple):
    """One value of a curve: Unix seconds, samples of the whole swarm, and the value."""

    time: float
    samples: float
    value: float


@dataclass(frozen=True, slots=True)
class Absence:
    """A particle was lost, and perhaps came back."""

    lost: Membership
    back: Membership | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Everything that was read, in the order of the file."""

    rounds: tuple[Round, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    memberships: tuple[Membership, ...] = ()

    @property
    def entries(self) -> tuple[Round | Metrics | Membership, ...]:
        """All of them, kind by kind."""
        return (*self.rounds, *self.metrics, *self.memberships)

    @property
    def particles(self) -> tuple[int, ...]:
        """Indices of all particles that are mentioned, in order."""
        seen: set[int] = set()
        for entry in self.entries:
            seen.update((*entry.losses, *entry.contributors) if isinstance(entry, Round) else (entry.particle,))
        return tuple(sorted(seen))

    @property
    def span(self) -> tuple[float, float]:
        """Unix seconds of the earliest and the latest entry; zeros for an empty history."""
        times = [entry.time for entry in self.entries]
        return min(times, default=0.0), max(times, default=0.0)

    @property
    def samples(self) -> int:
        """Seen by the whole swarm."""
        return max((entry.samples for entry in self.entries), default=0)

    @property
    def metric(self) -> str | None:
        """The metric to show beside the loss: accuracy, else the one reported most; None if there is none."""
        names = Counter(
            name for entry in self.metrics for name, value in entry.values.items() if name != "loss" and _usable(value)
        )
        return max(sorted(names), key=lambda name: (name == "accuracy", names[name]), default=None)

    def losses(self, particle: int) -> list[Point]:
        """Training loss by round; of a particle without any, the losses among its metrics."""
        points = [
            Point(entry.time, entry.samples, value)
            for entry in self.rounds
            if (value := entry.losses.get(particle)) is not None and isfinite(value)
        ]
        return points or self.values("loss", particle)

    def values(self, name: str, particle: int | None = None) -> list[Point]:
        """A metric of one particle's own weights, or of the center."""
        return [
            Point(entry.time, entry.samples, value)
            for entry in self.metrics
            if (entry.of == "center" if particle is None else (entry.of, entry.particle) == ("particle", particle))
            and (value := entry.values.get(name)) is not None
            and isfinite(value)
        ]

    def absences(self, particle: int) -> list[Absence]:
        """When it was lost and came back, by time. To leave after finishing is no loss."""
        found: list[Absence] = []
        finished = False
        for entry in self.memberships:
            if entry.particle != particle or finished:
                continue
            away = bool(found) and found[-1].back is None
            finished = entry.kind == "finished"
            if entry.kind == "detached" and not away:
                found.append(Absence(entry))
            elif entry.kind != "detached" and away:
                found[-1] = Absence(found[-1].lost, entry)
        return found


def _usable(value: float | None) -> bool:
    return value is not None and isfinite(value)


_LINE: TypeAdapter[Round | Metrics | Membership | Restored] = TypeAdapter(
    Annotated[Round | Metrics | Membership | Restored, Field(discriminator="kind")]
)


def parse(lines: Iterable[str | bytes]) -> History:
    """The history in these lines."""
    rounds: list[Round] = []
    metrics: list[Metrics] = []
    memberships: list[Membership] = []
    for line in lines:
        try:
            entry = _LINE.validate_json(line)
        except ValidationError:
            continue
        match entry:
            case Round():
                rounds.append(entry)
            case Metrics():
                metrics.append(entry)
            case Membership():
                memberships.append(entry)
            case Restored():
                rounds = [each for each in rounds if each.round <= entry.round]
                metrics = [each for each in metrics if each.samples <= entry.samples]
    return History(rounds=tuple(rounds), metrics=tuple(metrics), memberships=tuple(memberships))


def read(path: Path) -> History:
    """The history in this file; an empty one while there is no file."""
    try:
        with path.open("rb") as lines:
            return parse(lines)
    except FileNotFoundError:
        return History()
