"""Who trains which unit of work: pure, over what the particles say.

A unit is free, leased to a particle, or done, which it is once a push that has it is committed. Unit k of a stream is
of the share of particle k mod replicas. A particle is given its own share in order. When that is used up it is idle,
and is given what is free in shares that nobody tends: of those who are away, who do not keep the pace, or who are
through with the stream. So while nothing happens every particle has exactly its own share, whoever asks first; and
what a dead one leaves is trained by those who are idle, or by its replacement, whoever is earlier.

What is left of a stream that its particles are past is given out at the end of later ones. A share is given up only
by its particle itself, when the script leaves the loop early or never asks for that stream.
"""

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from sys import maxsize
from typing import Any

from swarm_trainer.synchronizer.kept_units import KeptStream, KeptTable, pack_state, unpack_state
from swarm_trainer.wire.units import Stream, Unit, Units, Work, unpack

_FREE, _LEASED, _DONE = range(3)


@dataclass(slots=True)
class _Stream:
    state: bytearray
    holders: dict[int, int] = field(default_factory=dict)
    """Of the leased units."""
    entered: set[int] = field(default_factory=set)
    """Particles that asked for units of this stream."""
    through: set[int] = field(default_factory=set)
    """Those of them that found their share used up."""
    refused: set[int] = field(default_factory=set)
    """Units that were part of a refused push."""


@dataclass(slots=True)
class _Member:
    first: int
    """The epoch in which this incarnation began."""
    epoch: int
    """The latest in which it asked."""


class Table:
    """All streams. `paced` is always the particles that are attached and keep the pace of the rounds."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        """Among whom streams are shared out; may change at any time, and then does so for what is free."""
        self._streams: dict[Stream, _Stream] = {}
        self._settled: set[Stream] = set()
        """Streams with no unit left."""
        self._floor = 0
        """All streams of earlier epochs that are not in `_streams` are settled."""
        self._calls: dict[int, int] = {}
        """Streams that were asked for in an epoch."""
        self._members: dict[int, _Member] = {}

    def enter(self, index: int, epoch: int) -> None:
        """An incarnation of this particle attached; it asks for streams of this epoch and later ones."""
        self._members[index] = _Member(epoch, epoch)

    def leave(self, index: int) -> None:
        """It is gone: what it holds is free."""
        self._members.pop(index, None)
        for stream, number in self._held(index):
            self._set(self._streams[stream], number, _FREE)

    def finish(self, index: int) -> None:
        """It has trained to its end; what it still holds it has trained, with no step behind it."""
        self._advance(index, maxsize)
        self._finish_units(self._held(index))

    def lease(
        self, index: int, stream: Stream, count: int, *, calls: Container[int], paced: Collection[int]
    ) -> list[Unit]:
        """At most so many units for a particle that makes a pass; none: its pass is over.

        Args:
            index: Of the particle.
            stream: The pass it makes.
            count: Units it needs; fewer are given where its share ends.
            calls: Numbers of calls that it makes for the same loader: streams of these may have left something.
            paced: See the class.
        """
        self._advance(index, stream.epoch)
        here = self._open(stream)
        if here is not None:
            here.entered.add(index)
            if own := self._free(here, index, count):
                return self._give(index, stream, here, own)
            here.through.add(index)
        given: list[Unit] = []
        left = [other for other in self._streams if _comes_before(other, stream) and other.call in calls]
        for other in ([stream] if here is not None else []) + sorted(left):
            known = self._streams[other]
            numbers = self._untended(other, known, index, count - len(given), paced)
            given += self._give(index, other, known, numbers)
        return given

    def commit(self, units: Iterable[Unit]) -> None:
        """A push with these units is merged."""
        self._finish_units(units)

    def take_back(self, index: int, units: Iterable[Unit]) -> None:
        """The merge failed after all: this particle still holds them, or they are free if it is gone."""
        for stream, number in units:
            known = self._streams.get(stream)
            if known is None:
                self._settled.discard(stream)
                known = self._streams[stream] = _Stream(bytearray([_DONE]) * stream.total)
            self._set(known, number, _LEASED if index in self._members else _FREE, index)

    def refuse(self, index: int, units: Iterable[Unit]) -> list[Unit]:
        """A push with these units was not finite and will never be merged: they are to be trained again.

        Returns:
            Units for which that has happened before. They are given up.
        """
        hopeless = []
        for unit in units:
            if self._holder(unit) == index:
                known = self._streams[unit.stream]
                if unit.number in known.refused:
                    hopeless.append(unit)
                else:
                    known.refused.add(unit.number)
                    self._set(known, unit.number, _FREE)
        self._finish_units(hopeless)
        return hopeless

    def release(self, index: int, units: Iterable[Unit]) -> None:
        """Of these, what this particle holds is in no weights any more: it is free."""
        for unit in units:
            if self._holder(unit) == index:
                self._set(self._streams[unit.stream], unit.number, _FREE)

    def skip(self, index: int, stream: Stream, untrained: Iterable[Unit]) -> None:
        """The script left its loop over the stream: it gives up its share, and returns what is of others'."""
        self.release(index, untrained)
        self._give_up(stream, index)

    def returned(self, index: int, work: Work) -> list[Unit]:
        """A particle comes back, after `enter`, perhaps to a table that knows less than it.

        Returns:
            Of the units that it has not trained yet, those that it must leave to others.
        """
        trained, untrained = list(unpack(work.trained)), list(unpack(work.untrained))
        for stream in {*work.open, *(unit.stream for unit in trained + untrained)}:
            if (known := self._open(stream, late=index)) is not None:
                known.entered.add(index)
        for units in work.done:
            self._finish_spans(units)
        for stream, number in trained + untrained:
            known = self._streams.get(stream)
            if known is not None and known.state[number] == _FREE:
                self._set(known, number, _LEASED, index)
        return [unit for unit in untrained if self._holder(unit) != index]

    def settle_before(self, epoch: int) -> None:
        """The swarm goes on from particles that are all past these epochs: what is not known of them is done."""
        self._floor = max(self._floor, epoch)
        self._streams = {stream: known for stream, known in self._streams.items() if stream.epoch >= self._floor}
        self._settled = {stream for stream in self._settled if stream.epoch >= self._floor}

    def entry(self, index: int, epoch: int, *, paced: Collection[int]) -> int:
        """Where a newcomer begins, in a swarm that is in this epoch.

        That is the next one where all passes of this one are used up, as far as the epoch before tells how many
        there are, so that its first pass is not an empty one; and the last one that anybody trained in where the
        others are past that and have left something.
        """
        latest = max(self._calls, default=0)
        left = [stream.epoch for stream in self._streams if self._has_something(stream, index, paced)]
        if epoch > latest:
            return latest if left else epoch
        if epoch and epoch not in left and self._calls.get(epoch) == self._calls.get(epoch - 1):
            return epoch + 1
        return epoch

    @property
    def left(self) -> int:
        """Units that were never committed nor given up, in streams that anybody asked for."""
        return sum(len(known.state) - known.state.count(_DONE) for known in self._streams.values())

    def dump(self) -> dict[str, Any]:
        """As JSON. Leases are not part of it: those who hold them tell when they come back."""
        streams = [
            KeptStream(
                stream=stream,
                state=pack_state(known.state.replace(bytes([_LEASED]), bytes([_FREE]))),
                entered=sorted(known.entered),
                through=sorted(known.through),
                refused=sorted(known.refused),
            )
            for stream, known in self._streams.items()
        ]
        kept = KeptTable(floor=self._floor, calls=self._calls, settled=sorted(self._settled), streams=streams)
        return kept.model_dump(mode="json")

    def load(self, dumped: Any) -> None:
        """Go on from there.

        Raises:
            ValueError: It is no dump of a table.
        """
        kept = KeptTable.model_validate(dumped)
        self._floor, self._calls, self._settled = kept.floor, kept.calls, set(kept.settled)
        for item in kept.streams:
            self._streams[item.stream] = _Stream(
                unpack_state(item.state, item.stream.total),
                entered=set(item.entered),
                through=set(item.through),
                refused=set(item.refused),
            )

    def _open(self, stream: Stream, late: int | None = None) -> _Stream | None:
        """What is known of a stream; None: nothing of it is left.

        late: a particle that is still in it, although it was taken for settled: its share is left.
        """
        self._calls[stream.epoch] = max(self._calls.get(stream.epoch, 0), stream.call + 1)
        known = self._streams.get(stream)
        settled = stream in self._settled or stream.epoch < self._floor or not stream.total
        if known is None and not settled:
            known = self._streams[stream] = _Stream(bytearray(stream.total))
            for index, member in self._members.items():
                if member.first <= stream.epoch < member.epoch:
                    self._give_up(stream, index)
            return self._streams.get(stream)  # Where all shares are given up it is settled already.
        if known is None and late is not None and stream not in self._settled:
            state = bytearray([_DONE]) * stream.total
            share = slice(late, None, self.replicas)
            state[share] = bytes(len(state[share]))
            known = self._streams[stream] = _Stream(state, entered={late})
        return known

    def _advance(self, index: int, epoch: int) -> None:
        member = self._members.get(index)
        if member is not None and epoch > member.epoch:
            for stream, known in list(self._streams.items()):
                if member.first <= stream.epoch < epoch and index not in known.entered:
                    self._give_up(stream, index)
            member.epoch = epoch

    def _give_up(self, stream: Stream, index: int) -> None:
        if (known := self._streams.get(stream)) is not None:
            self._finish_units([Unit(stream, number) for number in self._free(known, index, maxsize)])

    def _finish_units(self, units: Iterable[Unit]) -> None:
        touched = set()
        for stream, number in units:
            if (known := self._open(stream)) is not None:
                self._set(known, number, _DONE)
                touched.add(stream)
        for stream in touched:
            self._settle(stream)

    def _finish_spans(self, units: Units) -> None:
        """The same for whole ranges, of which a particle tells all that it ever did: no look at each unit."""
        known = self._open(units.stream) if units.spans else None
        if known is None:
            return
        for span in units.spans:
            known.state[slice(*span)] = bytes([_DONE]) * len(range(*span))
        known.holders = {number: holder for number, holder in known.holders.items() if known.state[number] == _LEASED}
        self._settle(units.stream)

    def _settle(self, stream: Stream) -> None:
        if self._streams[stream].state.count(_DONE) == stream.total:
            del self._streams[stream]
            self._settled.add(stream)

    def _free(self, known: _Stream, owner: int, count: int) -> list[int]:
        """The first free units of a share, at most so many."""
        if owner >= self.replicas or count <= 0:
            return []
        places = _find(known.state[owner :: self.replicas], _FREE)
        return [owner + self.replicas * place for place, _ in zip(places, range(count), strict=False)]

    def _untended(
        self, stream: Stream, known: _Stream, index: int, count: int, paced: Collection[int]
    ) -> Iterable[int]:
        free = (
            self._free(known, owner, count)
            for owner in range(self.replicas)
            # Whoever was scaled away has no share, and goes on with what there is until it is told to stop.
            if index >= self.replicas or not self._tends(owner, stream, known, paced)
        )
        return sorted(number for numbers in free for number in numbers)[: max(0, count)]

    def _tends(self, owner: int, stream: Stream, known: _Stream, paced: Collection[int]) -> bool:
        member = self._members.get(owner)
        return owner in paced and member is not None and member.epoch <= stream.epoch and owner not in known.through

    def _has_something(self, stream: Stream, index: int, paced: Collection[int]) -> bool:
        known = self._streams[stream]
        return bool(self._free(known, index, 1) or self._untended(stream, known, index, 1, paced))

    def _give(self, index: int, stream: Stream, known: _Stream, numbers: Iterable[int]) -> list[Unit]:
        given = [Unit(stream, number) for number in numbers]
        for unit in given:
            self._set(known, unit.number, _LEASED, index)
        return given

    def _set(self, known: _Stream, number: int, state: int, holder: int = -1) -> None:
        known.state[number] = state
        known.holders.pop(number, None)
        if state == _LEASED:
            known.holders[number] = holder

    def _held(self, index: int) -> list[Unit]:
        return [
            Unit(stream, number)
            for stream, known in self._streams.items()
            for number, holder in known.holders.items()
            if holder == index
        ]

    def _holder(self, unit: Unit) -> int | None:
        known = self._streams.get(unit.stream)
        return known.holders.get(unit.number) if known is not None else None


def _comes_before(other: Stream, stream: Stream) -> bool:
    return other.total == stream.total and (other.epoch, other.call) < (stream.epoch, stream.call)


def _find(state: bytes | bytearray, value: int) -> Iterator[int]:
    """Where in the state this value is, in order."""
    place = state.find(value)
    while place >= 0:
        yield place
        place = state.find(value, place + 1)
