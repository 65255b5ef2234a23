"""Whose weights become the first center."""

from typing import Any

import pytest

from support.processes import some_settings
from swarm_api.job import Sync
from swarm_trainer.synchronizer.founding import Found, Founding, Lost, Rebuild, Restore, Wait

GRACE, RETURN = 60.0, 3.0


def a_founding(*new: int, returning: dict[int, int] | None = None, replicas: int = 3, **numbers: Any) -> Founding:
    """Particles that attached at 0.0, 0.1 ... in this order; returning: index and the last round it knows."""
    sync = Sync(start_grace_seconds=int(GRACE))
    settings = some_settings(replicas=replicas, min_replicas=2, sync=sync, **numbers)
    founding = Founding(settings)
    arrivals = [*((index, False, 0) for index in new), *((i, True, r) for i, r in (returning or {}).items())]
    for number, (index, again, round_) in enumerate(arrivals):
        founding.arrived(index, number / 10, returning=again, round_=round_)
    return founding


EVERYONE = frozenset(range(8))


def after(round_: int, founding: Founding, *finished: int) -> Founding:
    """The same with a checkpoint of this round, at which these had finished."""
    founding.kept, founding.finished = round_, frozenset(finished)
    return founding


@pytest.mark.parametrize(
    ("founding", "now", "decision"),
    [
        (a_founding(), 0.0, Wait()),
        (a_founding(2, 1, 0), 0.3, Found(0)),
        (a_founding(2, 1), 0.3, Wait(GRACE)),
        (a_founding(2, 1), GRACE, Found(1)),
        (a_founding(2), GRACE, Wait()),
        (a_founding(2, 0, given_up=(1,)), 0.3, Found(0)),
        (a_founding(2, 0, finished=(1,)), 0.3, Found(0)),
        (a_founding(2, replicas=1), 0.0, Found(2)),
        (a_founding(finished=(0, 2), given_up=(1,)), 0.0, Lost()),
        (a_founding(0, finished=(0, 1, 2)), 0.0, Found(0)),
        (a_founding(returning={2: 7}, finished=(0,), given_up=(0, 1)), 0.3, Rebuild((2,), 7)),
        (a_founding(returning={2: 7, 0: 9, 1: 8}), 0.3, Rebuild((0, 1, 2), 9)),
        (a_founding(returning={2: 7}), 0.3, Wait(RETURN)),
        (a_founding(returning={2: 7}), RETURN, Rebuild((2,), 7)),
        (a_founding(0, 1, returning={2: 7}), 0.3, Rebuild((2,), 7)),
        (a_founding(0, returning={2: 7}), 0.3, Wait(RETURN)),
        (after(7, a_founding()), 0.0, Wait()),
        (after(7, a_founding(2, 1, 0)), 0.3, Restore()),
        (after(7, a_founding(2, 1)), 0.3, Wait(GRACE)),
        (after(7, a_founding(2, 1), 0), 0.3, Restore()),
        (after(7, a_founding(2, 1)), GRACE, Restore()),
        (after(7, a_founding(), 0, 1, 2), 0.0, Restore()),
        (after(7, a_founding(returning={2: 7})), 0.3, Wait(RETURN)),
        (after(7, a_founding(returning={2: 7})), RETURN, Restore()),
        (after(7, a_founding(returning={2: 6, 0: 7, 1: 5})), 0.3, Restore()),
        (after(7, a_founding(returning={2: 6, 0: 8, 1: 5})), 0.3, Rebuild((0, 1, 2), 8)),
        (after(7, a_founding(0, 1, returning={2: 8})), 0.3, Rebuild((2,), 8)),
    ],
)
def test_what_the_center_is_made_of(founding: Founding, now: float, decision: object) -> None:
    assert founding.decide(EVERYONE, now) == decision


def test_a_particle_that_left_is_not_waited_on_and_one_that_comes_again_as_new_is_new() -> None:
    founding = a_founding(returning={0: 4, 1: 9, 2: 5})
    assert founding.decide(EVERYONE, 1.0) == Rebuild((0, 1, 2), 9)
    founding.left(1)
    founding.arrived(1, 1.0, returning=False, round_=0)
    assert founding.decide(EVERYONE, 1.0) == Rebuild((0, 2), 5)
    founding.left(0)
    founding.left(2)
    assert founding.decide(EVERYONE, 1.0) == Wait(1.0 + GRACE)


def test_only_those_who_wait_count() -> None:
    assert a_founding(0, 1, 2).decide(frozenset({1, 2}), 0.3) == Wait(0.1 + GRACE)
