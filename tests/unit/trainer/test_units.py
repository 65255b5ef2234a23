"""The table of work units, one rule after the other; `test_units_simulated` has histories."""

import json

import pytest
from pydantic import ValidationError

from swarm_trainer.leases import Leases
from swarm_trainer.synchronizer.units import Table
from swarm_trainer.wire.units import Span, Stream, Unit, Units, Work, pack, unpack

FIRST, SECOND = Stream(0, 0, 8), Stream(1, 0, 8)


def a_table(*members: int, replicas: int = 2) -> Table:
    table = Table(replicas)
    for index in members:
        table.enter(index, 0)
    return table


def lease(
    table: Table, index: int, stream: Stream = FIRST, count: int = 8, paced: tuple[int, ...] = (0, 1)
) -> list[int]:
    """Numbers of units of this stream that it gets."""
    units = table.lease(index, stream, count, calls=range(stream.call + 1), paced=paced)
    return [unit.number for unit in units if unit.stream == stream]


def units(stream: Stream, *numbers: int) -> list[Unit]:
    return [Unit(stream, number) for number in numbers]


def test_shares_are_dealt_in_order_and_those_of_the_living_are_left_to_them() -> None:
    table = a_table(0, 1)
    assert lease(table, 0, count=3) == [0, 2, 4]
    assert lease(table, 0, count=3) == [6]
    assert lease(table, 0) == []
    assert lease(table, 1) == [1, 3, 5, 7]


def test_the_idle_get_what_is_free_of_those_who_are_away_or_slow_but_not_what_is_leased() -> None:
    table = a_table(0, 1)
    assert lease(table, 1, count=2) == [1, 3]
    lease(table, 0)
    assert lease(table, 0, paced=(0,)) == [5, 7]
    table.leave(1)
    assert lease(table, 0, paced=(0,)) == [1, 3]


def test_what_a_dead_one_left_in_an_epoch_is_given_out_at_the_end_of_a_later_one() -> None:
    table = a_table(0, 1)
    lease(table, 0)
    lease(table, 1)
    table.commit(units(FIRST, 0, 2, 4, 6, 1))
    assert lease(table, 0, SECOND) == [0, 2, 4, 6]
    table.leave(1)
    table.enter(1, 1)
    rest = table.lease(0, SECOND, 8, calls=[0], paced=(0, 1))
    assert rest == units(FIRST, 3, 5, 7)
    assert table.lease(0, SECOND, 8, calls=[], paced=(0, 1)) == [], "another loader's"


def test_a_stream_that_a_script_never_asked_for_is_not_made_up_for() -> None:
    table = a_table(0, 1)
    again = Stream(0, 1, 8)
    lease(table, 1, SECOND)
    assert lease(table, 0, again) == [0, 2, 4, 6]
    assert lease(table, 0, again) == []


def test_who_leaves_the_loop_early_gives_up_its_share_and_returns_what_is_of_others() -> None:
    table = a_table(0, 1)
    lease(table, 1, count=1)
    lease(table, 0)
    assert lease(table, 0, paced=(0,)) == [3, 5, 7]
    table.commit(units(FIRST, 0))
    table.skip(0, FIRST, units(FIRST, 4, 6, 5, 7))
    assert lease(table, 0) == []
    assert lease(table, 1) == [5, 7], "2 and 3 are trained already"
    table.commit(units(FIRST, 1, 2, 3, 5, 7))
    assert table.left == 0


def test_units_of_a_refused_push_are_trained_again_once() -> None:
    table = a_table(0, 1)
    lease(table, 0, count=2)
    assert table.refuse(0, units(FIRST, 0, 2)) == []
    assert lease(table, 0, count=2) == [0, 2]
    assert table.refuse(0, units(FIRST, 0)) == units(FIRST, 0)
    assert lease(table, 0) == [4, 6]


def test_a_merge_that_failed_gives_units_back_to_whoever_still_lives() -> None:
    table = a_table(0, 1)
    held = {index: units(FIRST, *lease(table, index)) for index in (0, 1)}
    for index in held:
        table.commit(held[index])
    assert table.left == 0
    table.leave(1)
    for index in held:
        table.take_back(index, held[index])
    assert table.left == 8
    assert lease(table, 0, paced=(0,)) == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("trained", "swarm_is_in", "enters"),
    [
        ({FIRST: 8}, 1, 1),
        ({FIRST: 8, SECOND: 0}, 1, 1),
        ({FIRST: 8, SECOND: 7}, 1, 1),
        ({FIRST: 8, SECOND: 8}, 1, 2),
        ({FIRST: 8, Stream(0, 1, 8): 8, SECOND: 8}, 1, 1),
        ({FIRST: 8}, 0, 0),
        ({FIRST: 7}, 2, 0),
        ({FIRST: 8}, 2, 2),
    ],
)
def test_a_newcomer_enters_the_swarms_epoch_or_where_there_is_something_left_for_it(
    trained: dict[Stream, int], swarm_is_in: int, enters: int
) -> None:
    table = a_table(0, replicas=1)
    for stream, count in trained.items():
        table.commit(units(stream, *lease(table, 0, stream, max(1, count)))[:count])
    table.leave(0)
    assert table.entry(0, swarm_is_in, paced=()) == enters


def test_a_dump_is_json_and_holds_what_was_done_and_given_up() -> None:
    table = a_table(0, 1)
    lease(table, 0)
    table.commit(units(FIRST, 0, 4))
    table.refuse(0, units(FIRST, 2))
    lease(table, 0, SECOND)
    table.commit(units(SECOND, *range(8)))
    restored = a_table()
    restored.load(json.loads(json.dumps(table.dump())))
    assert restored.dump() == table.dump()
    restored.enter(0, 0)
    assert lease(restored, 0) == [2, 6]
    assert restored.refuse(0, units(FIRST, 2)) == units(FIRST, 2)
    assert lease(restored, 0, SECOND) == []
    with pytest.raises(ValidationError, match="floor"):
        restored.load({})


def test_who_returns_keeps_what_it_holds_unless_others_have_it() -> None:
    table = a_table(0, 1)
    lease(table, 1)
    table.leave(1)
    lease(table, 0)
    assert lease(table, 0, count=2, paced=(0,)) == [1, 3]
    table.enter(1, 0)
    work = Work(open=(FIRST,), trained=pack(units(FIRST, 1)), untrained=pack(units(FIRST, 3, 5)))
    assert table.returned(1, work) == units(FIRST, 3)
    assert lease(table, 0, paced=(0,)) == [7]


def test_one_that_was_scaled_away_may_return_from_a_stream_whose_every_share_is_given_up() -> None:
    table = a_table(0, replicas=1)
    lease(table, 0, SECOND)
    table.enter(1, 0)
    assert table.returned(1, Work(done=pack(units(FIRST, 1)))) == []
    assert lease(table, 0, FIRST) == []


def test_a_particle_alone_goes_on_where_the_synchronizer_left_it_and_says_so() -> None:
    leases = Leases(1)
    begun = leases.begin(FIRST, window=4)
    leases.give(FIRST, pack(units(FIRST, 1, 3)))
    drawn = [leases.draw(begun), leases.draw(begun)]
    leases.help_itself(begun, replicas=2)
    drawn += [leases.draw(begun)]
    assert drawn == units(FIRST, 1, 3, 5)
    for unit in units(FIRST, 1, 3):
        assert leases.start(begun, unit)
        leases.stepped()
    leases.committed(pack(units(FIRST, 1)))
    work = leases.work()
    assert [list(unpack(part)) for part in (work.done, work.trained, work.untrained)] == [
        units(FIRST, 1),
        units(FIRST, 3),
        units(FIRST, 5),
    ]
    leases.revoked(pack(units(FIRST, 5)))
    assert not leases.start(begun, Unit(FIRST, 5))


def test_an_undisturbed_share_is_one_range_however_long() -> None:
    share = units(Stream(0, 0, 1000), *range(1, 1000, 3))
    assert pack(share) == (Units(stream=Stream(0, 0, 1000), spans=(Span(1, 998, 3),)),)
    assert list(unpack(pack(share))) == share
    scattered = units(FIRST, 7, 0, 1, 3, 4)
    assert list(unpack(pack(scattered))) == sorted(scattered)


@pytest.mark.parametrize(
    ("stream", "spans"),
    [
        ((0, 0, 8), [(0, 9, 1)]),
        ((0, 0, 8), [(-1, 4, 1)]),
        ((0, 0, 8), [(0, 4, 0)]),
        ((0, 0, 8), [(4, 4, 1)]),
        ((0, 0, 8), [(0, 8, 1), (0, 8, 1)]),
        ((-1, 0, 8), [(0, 8, 1)]),
    ],
)
def test_units_that_their_stream_does_not_have_are_refused(
    stream: tuple[int, int, int], spans: list[tuple[int, int, int]]
) -> None:
    with pytest.raises(ValidationError):
        Units.model_validate({"stream": stream, "spans": spans})
