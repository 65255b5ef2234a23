"""When a round ends, case by case."""

from typing import Any

import pytest

from swarm_trainer.synchronizer.rounds import Commit, Decision, Hold, Pace, Rounds, Wait

DEADLINE, GRACE = 30.0, 1.0


def a_pace(**changes: Any) -> Pace:
    """Half of the members are a quorum."""
    values = {"min_replicas": 1, "quorum_of": lambda n: -(-n // 2), "deadline": DEADLINE, "grace": GRACE}
    return Pace(**(values | changes))


def rounds_of(members: int, **changes: Any) -> Rounds:
    """Members that founded a swarm together: all are expected."""
    rounds = Rounds(a_pace(**changes))
    for index in range(members):
        rounds.join(index, expected=True)
    return rounds


def deliver(rounds: Rounds, *indices: int, now: float) -> None:
    for index in indices:
        rounds.deliver(index, now)


def end(rounds: Rounds, now: float) -> Decision:
    """Decide, and carry it out at once."""
    decision = rounds.decide(now)
    assert not isinstance(decision, Wait), decision
    answer(rounds, decision, now)
    return decision


def answer(rounds: Rounds, decision: Commit | Hold, now: float) -> None:
    rounds.answered(decision, now)
    for index in decision.contributors:
        rounds.sent(index, now)


def play(rounds: Rounds, *indices: int, at: float) -> None:
    """A round in which these deliver together and that ends at once."""
    deliver(rounds, *indices, now=at)
    assert end(rounds, at) == Commit(tuple(sorted(indices)))


@pytest.mark.parametrize(
    ("delivered", "now", "changes", "decision"),
    [
        ([], 0, {}, Wait()),
        ([0, 1, 2, 3], 0, {}, Commit((0, 1, 2, 3))),
        ([3, 0], 0, {}, Wait(GRACE)),
        ([3, 0], GRACE, {}, Commit((0, 3))),
        ([0], GRACE, {}, Wait(DEADLINE)),
        ([0], DEADLINE, {}, Commit((0,))),
        ([0, 1], GRACE, {"min_replicas": 3}, Wait(DEADLINE)),
        ([0, 1], DEADLINE, {"min_replicas": 3}, Hold((0, 1))),
        ([0, 1, 2], GRACE, {"min_replicas": 3, "quorum_of": lambda n: n}, Wait(DEADLINE)),
        ([0, 1, 2], DEADLINE, {"min_replicas": 3, "quorum_of": lambda n: n}, Commit((0, 1, 2))),
        ([0], 0, {"min_replicas": 5}, Hold((0,))),
        ([0, 1], 0, {"grace": 0.0}, Commit((0, 1))),
        ([0, 1], 0, {"grace": None}, Wait(0.2)),
        ([2], 0, {"barrier": False}, Commit((2,))),
        ([2], 0, {"barrier": False, "min_replicas": 5}, Hold((2,))),
    ],
)
def test_a_round_of_four_that_opened_at_zero(
    delivered: list[int], now: float, changes: dict[str, Any], decision: Decision
) -> None:
    rounds = rounds_of(4, **changes)
    deliver(rounds, *delivered, now=0.0)
    assert rounds.decide(now) == decision


def test_asynchronous_pushes_commit_one_by_one_in_the_order_they_came() -> None:
    rounds = rounds_of(3, barrier=False)
    rounds.deliver(2, 0.1)
    rounds.deliver(0, 0.2)
    rounds.deliver(1, 0.3)
    assert [end(rounds, 1.0) for _ in range(3)] == [Commit((2,)), Commit((0,)), Commit((1,))]


@pytest.mark.parametrize("event", ["leave", "finish", "excuse"])
def test_the_last_one_that_is_waited_for_goes_or_is_refused(event: str) -> None:
    rounds = rounds_of(3)
    deliver(rounds, 0, 1, now=0.0)
    assert rounds.decide(0.1) == Wait(GRACE)
    if event == "excuse":
        rounds.excuse(2, 0.1)
    else:
        getattr(rounds, event)(2)
    assert rounds.decide(0.1) == Commit((0, 1))


def test_a_member_that_leaves_takes_its_delivery_with_it() -> None:
    rounds = rounds_of(2)
    rounds.deliver(0, 0.0)
    rounds.leave(0)
    assert not rounds.open
    rounds.join(0)
    assert rounds.decide(0.0) == Wait()


def test_those_that_finished_count_towards_min_replicas() -> None:
    rounds = rounds_of(3, min_replicas=3)
    rounds.finish(1)
    rounds.finish(2)
    rounds.deliver(0, 0.0)
    assert end(rounds, 0.0) == Commit((0,))


def test_a_newcomer_is_not_waited_for_before_its_first_delivery_and_then_is() -> None:
    rounds = rounds_of(2)
    rounds.join(2)
    play(rounds, 0, 1, at=1.0)
    rounds.deliver(2, 1.5)
    deliver(rounds, 0, 1, now=2.0)
    assert end(rounds, 2.0) == Commit((0, 1, 2))
    deliver(rounds, 0, 1, now=3.0)
    assert rounds.decide(3.0) == Wait(3.0 + GRACE)


def test_one_that_missed_a_round_is_not_waited_for_until_it_delivers_again() -> None:
    rounds = rounds_of(3)
    deliver(rounds, 0, 1, now=1.0)
    assert end(rounds, 1.0 + GRACE) == Commit((0, 1))
    play(rounds, 0, 1, at=3.0)
    play(rounds, 0, 1, at=4.0)
    rounds.deliver(2, 4.5)
    deliver(rounds, 0, 1, now=5.0)
    assert end(rounds, 5.0) == Commit((0, 1, 2))
    deliver(rounds, 0, 1, now=6.0)
    assert rounds.decide(6.0) == Wait(6.0 + GRACE)


def test_one_that_needs_longer_for_a_period_than_the_grace_allows_merges_when_it_comes() -> None:
    rounds = rounds_of(3)
    play(rounds, 0, 1, 2, at=1.0)
    deliver(rounds, 0, 1, now=2.0)
    assert end(rounds, 2.0 + GRACE) == Commit((0, 1))
    deliver(rounds, 0, 1, now=4.0)
    assert end(rounds, 4.0) == Commit((0, 1))
    rounds.deliver(2, 4.5)  # 3.5 s for its period, the others 1 s.
    deliver(rounds, 0, 1, now=5.0)
    assert end(rounds, 5.0) == Commit((0, 1, 2))
    play(rounds, 0, 1, at=6.0)


def test_below_min_replicas_a_frozen_member_costs_one_deadline_and_then_pushes_are_held_at_once() -> None:
    rounds = rounds_of(2, min_replicas=2)
    rounds.deliver(0, 0.0)
    assert end(rounds, DEADLINE) == Hold((0,))
    assert (rounds.present, rounds.alive) == (2, 1)
    rounds.deliver(0, 40.0)
    assert end(rounds, 40.0) == Hold((0,))
    rounds.deliver(1, 41.0)
    assert rounds.decide(41.0) == Wait(50.0 + DEADLINE)  # The other one needs 10 s for a period.
    rounds.deliver(0, 42.0)
    assert end(rounds, 42.0) == Commit((0, 1))


def test_a_slow_member_counts_as_alive_so_the_fast_one_commits_without_it() -> None:
    rounds = rounds_of(2, min_replicas=2)
    play(rounds, 0, 1, at=1.0)
    rounds.deliver(0, 2.0)
    assert rounds.decide(4.9) == Wait(2.0 + DEADLINE)
    rounds.deliver(1, 5.0)
    assert end(rounds, 5.0) == Commit((0, 1))
    play(rounds, 0, at=6.0)


def test_what_arrives_while_a_round_is_merged_opens_the_next() -> None:
    rounds = rounds_of(3)
    deliver(rounds, 0, 1, now=0.0)
    decision = rounds.decide(GRACE)
    assert isinstance(decision, Commit)
    assert decision.contributors == (0, 1)
    rounds.deliver(2, 1.5)
    rounds.leave(1)
    answer(rounds, decision, 2.0)
    assert rounds.decide(2.0) == Wait(1.5 + GRACE)  # One of the two that are left is a quorum.
    rounds.deliver(0, 2.2)
    assert end(rounds, 2.2) == Commit((0, 2))


def test_adaptive_grace_follows_the_usual_spread() -> None:
    rounds = rounds_of(3, grace=None)
    now = 0.0
    for _ in range(30):
        deliver(rounds, 0, 1, now=now + 1.0)
        rounds.deliver(2, now + 1.2)
        now += 1.2
        assert end(rounds, now) == Commit((0, 1, 2))
    deliver(rounds, 0, 1, now=now + 1.0)
    decision = rounds.decide(now + 1.0)
    assert isinstance(decision, Wait)
    assert decision.until == pytest.approx(now + 1.2 + 2 * 0.2, abs=0.01)


def test_new_settings_hand_back_what_was_delivered_blame_nobody_and_measure_paces_anew() -> None:
    rounds = rounds_of(3)
    play(rounds, 0, 1, 2, at=1)
    deliver(rounds, 0, 1, now=2)
    rounds.renew()
    assert (rounds.open, rounds.alive) == (False, 3)
    deliver(rounds, 0, now=50)  # However long that was, it is no pace of the new generation.
    assert rounds.decide(50) == Wait(50 + DEADLINE)
    deliver(rounds, 1, 2, now=50)
    assert end(rounds, 50) == Commit((0, 1, 2))


def test_nobody_is_late_while_bytes_of_it_move_but_the_deadline_holds() -> None:
    rounds = rounds_of(3)
    deliver(rounds, 0, 1, now=0.0)
    rounds.moved(2, 0.9)
    assert rounds.decide(GRACE) == Wait(0.9 + GRACE)
    rounds.moved(2, DEADLINE - 0.1)
    assert rounds.decide(20.0) == Wait(DEADLINE)
    rounds.deliver(2, 20.0)
    decision = rounds.decide(20.0)
    assert decision == Commit((0, 1, 2))
    rounds.answered(decision, 20.0)
    rounds.sent(0, 20.0)
    rounds.sent(1, 20.0)
    deliver(rounds, 0, 1, now=30.0)
    rounds.sent(2, 31.0)
    assert rounds.decide(31.0) == Wait(31.0 + 10.0 + GRACE), "it needs as long for a period as the others"


def test_the_grace_of_each_begins_when_its_last_period_says_that_it_is_due() -> None:
    rounds = rounds_of(3)
    play(rounds, 0, 1, 2, at=0.0)
    deliver(rounds, 0, 1, now=10.0)
    rounds.deliver(2, 10.5)
    assert end(rounds, 10.5) == Commit((0, 1, 2))
    rounds.deliver(0, 20.0)
    rounds.deliver(1, 20.1)
    assert rounds.decide(20.2) == Wait(10.5 + 10.5 + GRACE)


def test_one_that_is_late_but_keeps_the_pace_widens_the_grace() -> None:
    rounds = rounds_of(3, grace=None)
    for now in (0.0, 10.0):
        play(rounds, 0, 1, 2, at=now)
    deliver(rounds, 0, 1, now=20.0)
    assert end(rounds, 20.2) == Commit((0, 1))
    rounds.deliver(2, 21.0)
    deliver(rounds, 0, 1, now=30.2)
    assert end(rounds, 30.2) == Commit((0, 1, 2))
    deliver(rounds, 0, 1, now=40.2)
    decision = rounds.decide(40.2)
    assert isinstance(decision, Wait)
    assert decision.until is not None
    assert decision.until > 41.5


def test_one_that_stumbles_once_without_missing_a_round_is_waited_for_as_before() -> None:
    rounds = rounds_of(3)
    for now in (0.0, 10.0, 20.0):
        play(rounds, 0, 1, 2, at=now)
    deliver(rounds, 0, 1, now=30.0)
    rounds.moved(2, 37.5)
    rounds.deliver(2, 38.0)
    assert end(rounds, 38.0) == Commit((0, 1, 2))
    deliver(rounds, 0, 1, now=48.0)
    assert rounds.decide(48.0) == Wait(48.0 + GRACE)
    rounds.moved(2, 57.5)
    rounds.deliver(2, 58.0)
    assert end(rounds, 58.0) == Commit((0, 1, 2))
    play(rounds, 0, 1, at=68.0)  # Twice is a habit.
