"""Rounds over random histories of a swarm, on a virtual clock."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_trainer.synchronizer.rounds import Commit, Hold, Pace, Rounds, Wait

DEADLINE = 30.0
EPSILON = 1e-6
QUORUMS: dict[str, Callable[[int], int]] = {
    "one": lambda n: 1,
    "half": lambda n: max(1, -(-n // 2)),
    "all": lambda n: n,
}


@dataclass
class Trainer:
    """A particle: it trains for a period, delivers, and waits for the answer."""

    period: float
    left: float
    frozen: bool = False
    delivered: float | None = None


class World:
    """Lets particles live by the answers of a Rounds, and checks every one of them."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.rounds = Rounds(pace)
        self.now = 0.0
        self.trainers: dict[int, Trainer] = {}
        self.finished: set[int] = set()
        self.merged: dict[int, int] = {}
        self.timeouts: list[float] = []
        """How long the first one had waited, of each round that ended because time was up."""

    def join(self, index: int, period: float, *, expected: bool = False) -> None:
        self.finished.discard(index)
        self.trainers[index] = Trainer(period, period)
        self.rounds.join(index, expected=expected)
        self._decide(timer=False)

    def leave(self, index: int) -> None:
        self.trainers.pop(index, None)
        self.finished.discard(index)
        self.rounds.leave(index)
        self._decide(timer=False)

    def finish(self, index: int) -> None:
        if self.trainers.pop(index, None):
            self.finished.add(index)
            self.rounds.finish(index)
            self._decide(timer=False)

    def refuse(self, index: int) -> None:
        """Its push was not finite: it trains another period."""
        trainer = self.trainers.get(index)
        if trainer and trainer.delivered is None:
            trainer.left = trainer.period
            self.rounds.excuse(index, self.now)
            self._decide(timer=False)

    def freeze(self, index: int, frozen: bool = True) -> None:
        if index in self.trainers:
            self.trainers[index].frozen = frozen

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            training = [t.left for t in self.trainers.values() if not t.frozen and t.delivered is None]
            decision = self.rounds.decide(self.now)
            assert isinstance(decision, Wait)
            assert self.rounds.open == any(t.delivered is not None for t in self.trainers.values())
            assert self.rounds.open == (decision.until is not None), "who waits for an answer waits for some time"
            steps = [min(training, default=end), end - self.now]
            if decision.until is not None:
                assert decision.until > self.now
                steps.append(decision.until - self.now)
            step = min(steps)
            self._pass(step)
            delivered = self._deliver()
            self._decide(timer=not delivered)
            if self.now >= end - EPSILON:
                return

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        for trainer in self.trainers.values():
            if not trainer.frozen and trainer.delivered is None:
                trainer.left -= seconds

    def _deliver(self) -> bool:
        ready = [i for i, t in self.trainers.items() if not t.frozen and t.delivered is None and t.left <= EPSILON]
        for index in ready:
            self.trainers[index].delivered = self.now
            self.rounds.deliver(index, self.now)
        return bool(ready)

    def _decide(self, *, timer: bool) -> None:
        while not isinstance(decision := self.rounds.decide(self.now), Wait):
            waiting = {i: t.delivered for i, t in self.trainers.items() if t.delivered is not None}
            opened = min(waiting.values())
            if self.pace.barrier:
                assert decision.contributors == tuple(sorted(waiting)), "all who wait are answered, members only"
            elif isinstance(decision, Commit):
                (first,) = decision.contributors
                assert waiting[first] == opened
            if isinstance(decision, Commit):
                assert self.rounds.alive >= self.pace.min_replicas
                assert not timer or len(decision.contributors) + len(self.finished) >= self.pace.min_replicas
            elif self.rounds.alive >= self.pace.min_replicas:
                assert len(decision.contributors) + len(self.finished) < self.pace.min_replicas
                assert self.now - opened >= DEADLINE - EPSILON
            assert self.now - opened <= DEADLINE + EPSILON
            if timer:
                self.timeouts.append(self.now - opened)
            self.rounds.answered(decision, self.now)
            for index in decision.contributors:
                trainer = self.trainers[index]
                trainer.delivered, trainer.left = None, trainer.period
                self.merged[index] = self.merged.get(index, 0) + (not isinstance(decision, Hold))
            timer = False


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    return Pace(
        min_replicas=draw(st.integers(1, 3)),
        quorum_of=QUORUMS[draw(st.sampled_from(sorted(QUORUMS)))],
        deadline=DEADLINE,
        grace=draw(st.sampled_from([None, 0.0, 0.5, 5.0])),
        barrier=draw(st.booleans()),
    )


INDICES = st.integers(0, 4)
PERIODS = st.floats(0.5, 8.0)
EVENTS = st.one_of(
    st.tuples(st.just("run"), st.floats(0.0, 60.0)),
    st.tuples(st.just("join"), INDICES, PERIODS),
    st.tuples(st.just("leave"), INDICES),
    st.tuples(st.just("finish"), INDICES),
    st.tuples(st.just("refuse"), INDICES),
    st.tuples(st.just("freeze"), INDICES),
    st.tuples(st.just("freeze"), INDICES, st.just(False)),
)


@settings(max_examples=300, deadline=None)
@given(pace=paces(), founders=st.lists(PERIODS, min_size=1, max_size=5), history=st.lists(EVENTS, max_size=25))
def test_whatever_happens_all_are_answered_in_time_and_who_lives_gets_on(
    pace: Pace, founders: list[float], history: list[tuple[object, ...]]
) -> None:
    world = World(pace)
    for index, period in enumerate(founders):
        world.join(index, period, expected=True)
    for event, *arguments in history:
        getattr(world, str(event))(*arguments)
    for index in list(world.trainers):
        world.freeze(index, False)
    world.run(2 * DEADLINE)  # Those that were frozen are expected again at the latest now.
    before = dict(world.merged)
    world.run(4 * DEADLINE)
    if len(world.trainers) + len(world.finished) >= pace.min_replicas:
        for index in world.trainers:
            assert world.merged.get(index, 0) >= before.get(index, 0) + 2, f"{index} starves"
    else:
        assert world.merged == before


@settings(max_examples=100, deadline=None)
@given(
    frozen=st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True),
    when=st.floats(0.0, 20.0),
    quorum=st.sampled_from(sorted(QUORUMS)),
    grace=st.sampled_from([None, 0.5]),
)
def test_members_that_freeze_cost_at_most_one_deadline_in_all(
    frozen: list[int], when: float, quorum: str, grace: float | None
) -> None:
    world = World(Pace(min_replicas=1, quorum_of=QUORUMS[quorum], deadline=DEADLINE, grace=grace))
    for index in range(4):
        world.join(index, 1.0, expected=True)
    world.run(when)
    for index in frozen:
        world.freeze(index)
    before = world.merged.get(0, 0)
    world.run(100.0)
    assert len(world.timeouts) <= 1
    # What is left of the time are rounds of one second each.
    assert world.merged[0] - before >= 100 - sum(world.timeouts) - 3


@settings(max_examples=100, deadline=None)
@given(factor=st.floats(1.0, 20.0), members=st.integers(2, 5), grace=st.sampled_from([None, 0.0, 0.5]))
def test_a_slow_member_costs_the_others_no_more_than_the_grace_once_and_merges_all_it_does(
    factor: float, members: int, grace: float | None
) -> None:
    world = World(Pace(min_replicas=1, quorum_of=QUORUMS["half"], deadline=DEADLINE, grace=grace))
    world.join(0, factor, expected=True)
    for index in range(1, members):
        world.join(index, 1.0, expected=True)
    world.run(200.0)
    waited_for = factor <= max(1.25, 1.0 + (grace or 0.2)) + EPSILON
    assert world.merged[1] >= (200 / factor if waited_for else 200) - 5
    assert world.merged[0] >= 200 / (factor + 1) - 5


@settings(max_examples=100, deadline=None)
@given(
    jitter=st.lists(st.floats(1.0, 1.2), min_size=2, max_size=5),
    grace=st.sampled_from([None, 0.5]),
)
def test_undisturbed_every_round_has_all_members(jitter: list[float], grace: float | None) -> None:
    world = World(Pace(min_replicas=1, quorum_of=QUORUMS["one"], deadline=DEADLINE, grace=grace))
    for index, period in enumerate(jitter):
        world.join(index, period, expected=True)
    world.run(60.0)
    assert len(set(world.merged.values())) == 1
    assert not world.timeouts
