"""Long streams and long trainings: the table tells and learns of them in ranges, on the synchronizer's event loop."""

import copy
import json
import time
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given

from swarm_trainer.synchronizer.units import Table
from swarm_trainer.wire.units import Span, Spans, Stream, Unit, Units, Work, pack, unpack

INDICES = st.integers(0, 2)
STREAMS = st.builds(Stream, st.integers(0, 2), st.integers(0, 1), st.sampled_from([0, 5, 8]))


@st.composite
def some_units(draw: st.DrawFn) -> list[Unit]:
    units = st.builds(lambda stream, part: Unit(stream, int(part * stream.total)), STREAMS, st.floats(0, 0.99))
    return [unit for unit in draw(st.lists(units, max_size=12)) if unit.stream.total]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """After any history; members are not sensible, and need not be."""
    table = Table(draw(st.integers(1, 3)))
    for index in range(3):
        table.enter(index, draw(st.integers(0, 1)))
    happenings = st.one_of(
        st.tuples(st.just("lease"), INDICES, STREAMS, st.integers(1, 8)),
        st.tuples(st.just("commit"), some_units()),
        st.tuples(st.just("refuse"), INDICES, some_units()),
        st.tuples(st.just("leave"), INDICES),
        st.tuples(st.just("settle_before"), st.integers(0, 2)),
    )
    for name, *arguments in draw(st.lists(happenings, max_size=12)):
        more = {"calls": [0, 1], "paced": [0]} if name == "lease" else {}
        getattr(table, name)(*arguments, **more)
    return table


@st.composite
def works(draw: st.DrawFn) -> Work:
    done, again, trained, untrained = (pack(draw(some_units())) for _ in range(4))
    streams = draw(st.lists(STREAMS, max_size=3))
    return Work(open=tuple(streams), done=done + again, trained=trained, untrained=untrained)


def known(table: Table) -> tuple[object, ...]:
    return table._streams, table._settled, table._floor, table._calls, table._members


@given(table=tables(), index=INDICES, epoch=st.integers(0, 2), work=works())
def test_who_returns_tells_in_ranges_what_it_could_tell_unit_by_unit(
    table: Table, index: int, epoch: int, work: Work
) -> None:
    table.enter(index, epoch)
    told = copy.deepcopy(table)
    holds = {unit.stream for unit in unpack(work.trained + work.untrained)}
    told.returned(index, Work(open=(*work.open, *holds)))
    told.commit(unpack(work.done))
    expected = told.returned(index, Work(trained=work.trained, untrained=work.untrained))
    assert table.returned(index, work) == expected
    assert known(table) == known(told)


@given(table=tables())
def test_a_table_that_was_kept_is_the_same_but_for_leases(table: Table) -> None:
    kept = Table(table.replicas)
    kept.load(json.loads(json.dumps(table.dump())))
    for index in range(3):
        table.leave(index)
    assert known(kept) == known(table)


@given(numbers=st.lists(st.integers(0, 30)))
def test_ranges_hold_what_was_added_once_in_any_order(numbers: list[int]) -> None:
    spans = Spans()
    for number in numbers:
        spans.add(number)
    packed = [number for span in spans.pack() for number in range(*span)]
    assert sorted(packed) == sorted(set(numbers))
    again = Spans(spans.pack())
    for number in numbers:
        again.add(number)
    assert again.pack() == spans.pack()


@pytest.mark.parametrize("state", ["", "no base64", "AAAA", "eJxjYGBgAAAABAAB"])
def test_a_state_that_is_none_or_of_another_length_is_not_gone_on_from(state: str) -> None:
    stream = {"stream": [0, 0, 8], "state": state, "entered": [], "through": [], "refused": []}
    with pytest.raises(ValueError, match=r"state|base64|padding|padded"):
        Table(2).load({"floor": 0, "calls": {}, "settled": [], "streams": [stream]})


# One particle of four is behind by so many units.

BEHIND = 8000
UNEVEN = Stream(0, 0, 4 * BEHIND)
DONE = [Unit(UNEVEN, number) for number in range(UNEVEN.total) if number % 4]


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_many_ranges_are_packed_in_time_that_grows_with_their_number_alone() -> None:
    assert seconds(lambda: pack(DONE)) < 2


def test_a_dump_does_not_grow_with_how_far_one_is_behind() -> None:
    table = Table(4)
    table.enter(0, 0)
    table.commit(DONE)
    assert len(json.dumps(table.dump())) < 1000
    assert seconds(table.dump) < 0.5


def test_who_returns_after_many_long_epochs_is_let_in_at_once() -> None:
    epochs, total = 200, 20_000
    work = Work(
        done=tuple(Units(stream=Stream(epoch, 0, total), spans=(Span(0, total, 1),)) for epoch in range(epochs))
    )
    table = Table(1)
    table.enter(0, epochs)
    assert seconds(lambda: table.returned(0, work)) < 0.5
    assert table.left == 0
    assert seconds(lambda: table.returned(0, work)) < 0.5
