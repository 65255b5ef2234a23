"""Units of work as both sides name them: unit k of a stream is the k-th batch of one pass over a loader.

Many of them travel as few ranges: an undisturbed share of a stream is one, whatever the stream's length.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Stream(NamedTuple):
    """One pass: the call-th call of `batches` in an epoch of the swarm, both from 0, over `total` batches.

    Particles whose loaders differ in length do not share a stream.
    """

    epoch: Annotated[int, Field(ge=0)]
    call: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]


class Unit(NamedTuple):
    """One batch of a stream, 0 <= number < stream.total."""

    stream: Stream
    number: int


class Span(NamedTuple):
    """The numbers of range(start, stop, step), of which there is at least one."""

    start: int
    stop: int
    step: Annotated[int, Field(ge=1)]


class Units(BaseModel):
    """Some units of one stream.

    Raises:
        ValueError: A number is outside of the stream, or there are more than it has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stream: Stream
    spans: tuple[Span, ...]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for start, stop, step in self.spans:
            if not 0 <= start < stop <= self.stream.total:
                msg = f"range({start}, {stop}, {step}) is not inside a stream of {self.stream.total} units"
                raise ValueError(msg)
        if sum(len(range(*span)) for span in self.spans) > self.stream.total:
            msg = f"more units than the {self.stream.total} of their stream"
            raise ValueError(msg)
        return self


class Work(BaseModel):
    """What a particle says of its units when it comes back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    open: tuple[Stream, ...] = ()
    """Streams that it makes a pass over."""
    done: tuple[Units, ...] = ()
    """In its committed pushes."""
    trained: tuple[Units, ...] = ()
    """Trained, and in no committed push yet."""
    untrained: tuple[Units, ...] = ()
    """It is going to train them."""


class Spans:
    """A growing set of numbers as ranges, of which there are few when numbers are added in order."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans = list(spans)
        self._end = max((span.stop for span in self._spans), default=0)
        """All numbers are below it, so one that is not needs no search."""

    def __contains__(self, number: object) -> bool:
        return any(number in range(*span) for span in self._spans)

    def add(self, number: int) -> None:
        """One more, unless it is there."""
        if number < self._end and number in self:
            return
        self._end = max(self._end, number + 1)
        if self._spans:
            start, stop, step = self._spans[-1]
            if number == stop - 1 + step:
                self._spans[-1] = Span(start, number + 1, step)
                return
            if stop - start == 1 and number > start:
                self._spans[-1] = Span(start, number + 1, number - start)
                return
        self._spans.append(Span(number, number + 1, 1))

    def pack(self) -> tuple[Span, ...]:
        """For a message."""
        return tuple(self._spans)


def pack(units: Iterable[Unit]) -> tuple[Units, ...]:
    """Units as they travel, ordered."""
    streams: dict[Stream, Spans] = {}
    for stream, number in sorted(set(units)):
        streams.setdefault(stream, Spans()).add(number)
    return tuple(Units(stream=stream, spans=spans.pack()) for stream, spans in streams.items())


def unpack(packed: Iterable[Units]) -> Iterator[Unit]:
    """One by one."""
    for units in packed:
        for span in units.spans:
            yield from (Unit(units.stream, number) for number in range(*span))
