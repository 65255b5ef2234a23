"""Whose weights become the first center."""

from typing import Any

import pytest

from support.processes import some_settings
from swarm_api.job import Sync
from swarm_trainer.synchronizer.founding import Founding

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


@pytest.mark.parametrize(
    ("founding", "now", "founders", "until"),
    [
        (a_founding(), 0.0, (), None),
        (a_founding(2, 1, 0), 0.3, (0,), None),
        (a_founding(2, 1), 0.3, (), GRACE),
        (a_founding(2, 1), GRACE, (1,), None),
        (a_founding(2), GRACE, (), None),
        (a_founding(2, 0, given_up=(1,)), 0.3, (0,), None),
        (a_founding(2, 0, finished=(1,)), 0.3, (0,), None),
        (a_founding(returning={2: 7}, finished=(0,), given_up=(0, 1)), 0.3, (2,), None),
        (a_founding(2, replicas=1), 0.0, (2,), None),
        (a_founding(returning={2: 7, 0: 9, 1: 8}), 0.3, (0, 1, 2), None),
        (a_founding(returning={2: 7}), 0.3, (), RETURN),
        (a_founding(returning={2: 7}), RETURN, (2,), None),
        (a_founding(0, 1, returning={2: 7}), 0.3, (2,), None),
        (a_founding(0, returning={2: 7}), 0.3, (), RETURN),
    ],
)
def test_founders(founding: Founding, now: float, founders: tuple[int, ...], until: float | None) -> None:
    assert founding.decide(EVERYONE, now) == (founders, until)


def test_a_particle_that_left_is_not_waited_on_and_one_that_comes_again_as_new_is_new() -> None:
    founding = a_founding(returning={0: 4, 1: 9, 2: 5})
    assert (founding.rebuilding, founding.last_round) == (True, 9)
    founding.left(1)
    assert (founding.rebuilding, founding.last_round) == (True, 5)
    founding.arrived(1, 1.0, returning=False, round_=0)
    assert founding.decide(EVERYONE, 1.0) == ((0, 2), None)
    founding.left(0)
    founding.left(2)
    assert not founding.rebuilding


def test_only_those_who_wait_count() -> None:
    assert a_founding(0, 1, 2).decide(frozenset({1, 2}), 0.3) == ((), 0.1 + GRACE)
