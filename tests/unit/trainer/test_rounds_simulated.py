"""Rounds over random histories of a swarm, on a virtual clock; `make histories` plays tens of thousands."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from swarm_trainer.synchronizer.rounds import Commit, Pace, Rounds, Wait

DEADLINE = 30.0
LEAST_GRACE = 0.2
COMPILING = 60.0
EPSILON = 1e-6
QUORUMS: dict[str, Callable[[int], int]] = {
    "one": lambda n: 1,
    "half": lambda n: max(1, -(-n // 2)),
    "all": lambda n: n,
}


@dataclass
class Trainer:
    """A particle: its reply comes, it trains for a period, its push goes, and it waits for the answer."""

    period: float
    left: float = 0.0
    """Seconds until its push has arrived."""
    reply: float = 0.0
    """Of those, until the reply has come."""
    push: float = 0.0
    """Of those, while the push is on the way."""
    replied: bool = True
    frozen: bool = False
    delivered: float | None = None

    @property
    def next(self) -> float:
        """Seconds until something of it happens."""
        if self.reply > EPSILON:
            return self.reply
        return self.left - self.push if self.left > self.push + EPSILON else self.left


class World:
    """Lets particles live by the answers of a Rounds, and checks every one of them.

    Args:
        jitter: By how much of itself a period may be longer.
        transfer: Seconds that a push is on the way, and that a reply may be.
    """

    def __init__(self, pace: Pace, *, jitter: float = 0.0, transfer: float = 0.0, seed: int = 0) -> None:
        self.pace = pace
        self.rounds = Rounds(pace)
        self.now = 0.0
        self.trainers: dict[int, Trainer] = {}
        self.finished: set[int] = set()
        self.delivered: Counter[int] = Counter()
        self.merged: Counter[int] = Counter()
        self.held: Counter[int] = Counter()
        self.given_up: Counter[int] = Counter()
        """Deliveries of those that left before the answer."""
        self.longest_period = 0.0
        self.timeouts: list[float] = []
        """How long the first one had waited, of each round that ended because time was up."""
        self._jitter = jitter
        self._transfer = transfer
        self._draws = random.Random(seed)

    def join(self, index: int, period: float, *, expected: bool = False, compiling: float = 0.0) -> None:
        """A particle attaches; a newcomer compiles its model first, in its first step."""
        self._forget(index)
        self.finished.discard(index)
        trainer = self.trainers[index] = Trainer(period)
        self._train(trainer, replied=False)
        trainer.left += compiling
        self.longest_period = max(self.longest_period, period * (1 + self._jitter) + 2 * self._transfer)
        self.rounds.join(index, expected=expected)
        self._decide(timer=False)

    def leave(self, index: int) -> None:
        self._forget(index)
        self.finished.discard(index)
        self.rounds.leave(index)
        self._decide(timer=False)

    def finish(self, index: int) -> None:
        if self._forget(index):
            self.finished.add(index)
            self.rounds.finish(index)
            self._decide(timer=False)

    def refuse(self, index: int) -> None:
        """Its push was not finite: it trains another period."""
        trainer = self.trainers.get(index)
        if trainer and trainer.delivered is None:
            self.rounds.excuse(index, self.now)
            self._train(trainer)
            self._decide(timer=False)

    def freeze(self, index: int, frozen: bool = True) -> None:
        if index in self.trainers:
            self.trainers[index].frozen = frozen

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self._note_moved()
            training = [t.next for t in self.trainers.values() if not t.frozen and t.delivered is None]
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
            happened = self._happen()
            self._decide(timer=not happened)
            if self.now >= end - EPSILON:
                return

    def check_answers(self) -> None:
        """Every delivery has had one answer, unless its particle waits for it or has left."""
        waiting = Counter(index for index, trainer in self.trainers.items() if trainer.delivered is not None)
        assert self.delivered == self.merged + self.held + self.given_up + waiting

    def _train(self, trainer: Trainer, *, replied: bool = True) -> None:
        trainer.replied = not replied
        trainer.reply = replied * self._transfer * self._draws.random()
        trainer.push = self._transfer
        training = trainer.period * (1 + self._jitter * self._draws.random())
        trainer.left = trainer.reply + training + trainer.push
        self._note_sent()

    def _note_moved(self) -> None:
        for index, trainer in self.trainers.items():
            moves = trainer.reply > EPSILON or trainer.left <= trainer.push + EPSILON
            if moves and trainer.delivered is None and not trainer.frozen:
                self.rounds.moved(index, self.now)

    def _note_sent(self) -> None:
        for index, trainer in self.trainers.items():
            if not trainer.replied and trainer.reply <= EPSILON:
                trainer.replied = True
                self.rounds.sent(index, self.now)

    def _forget(self, index: int) -> Trainer | None:
        trainer = self.trainers.pop(index, None)
        if trainer and trainer.delivered is not None:
            self.given_up[index] += 1
        return trainer

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        for trainer in self.trainers.values():
            if not trainer.frozen and trainer.delivered is None:
                trainer.left -= seconds
                trainer.reply = max(0.0, trainer.reply - seconds)

    def _happen(self) -> bool:
        """Replies, pushes that begin, and deliveries that are due; whether there were any."""
        self._note_sent()
        self._note_moved()
        awake = {i: t for i, t in self.trainers.items() if not t.frozen and t.delivered is None}
        arrived = [index for index, trainer in awake.items() if trainer.left <= EPSILON]
        for index in arrived:
            awake[index].delivered = self.now
            self.delivered[index] += 1
            self.rounds.deliver(index, self.now)
        return bool(arrived) or any(trainer.left <= trainer.push + EPSILON for trainer in awake.values())

    def _decide(self, *, timer: bool) -> None:
        while not isinstance(decision := self.rounds.decide(self.now), Wait):
            waiting = {i: t.delivered for i, t in self.trainers.items() if t.delivered is not None}
            opened = min(waiting.values())
            enough = len(decision.contributors) + len(self.finished) >= self.pace.min_replicas
            if self.pace.barrier:
                assert decision.contributors == tuple(sorted(waiting)), "all who wait are answered, members only"
            elif isinstance(decision, Commit):
                (first,) = decision.contributors
                assert waiting[first] == opened
            if isinstance(decision, Commit):
                assert self.rounds.alive >= self.pace.min_replicas
                assert not timer or enough
            elif self.rounds.alive >= self.pace.min_replicas:
                assert not enough
                assert self.now - opened >= DEADLINE - EPSILON
            assert self.now - opened <= DEADLINE + self.longest_period + EPSILON
            if timer:
                self.timeouts.append(self.now - opened)
            self.rounds.answered(decision, self.now)
            for index in decision.contributors:
                trainer = self.trainers[index]
                trainer.delivered = None
                self._train(trainer)
            (self.merged if isinstance(decision, Commit) else self.held).update(decision.contributors)
            timer = False


def within_the_grace(period: float) -> float:
    """A jitter that the shortest adaptive grace allows for."""
    return min(0.1, LEAST_GRACE / 2 / period)


def a_pace(quorum: str = "half", grace: float | None = None) -> Pace:
    return Pace(min_replicas=1, quorum_of=QUORUMS[quorum], deadline=DEADLINE, grace=grace)


@st.composite
def paces(draw: st.DrawFn) -> Pace:
    return Pace(
        min_replicas=draw(st.integers(1, 3)),
        quorum_of=QUORUMS[draw(st.sampled_from(sorted(QUORUMS)))],
        deadline=DEADLINE,
        grace=draw(st.sampled_from([None, 0.0, 0.5, 5.0])),
        barrier=draw(st.booleans()),
    )


SEEDS = st.integers(0, 2**32)
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


@given(
    pace=paces(),
    jitter=st.sampled_from([0.0, 0.1]),
    transfer=st.sampled_from([0.0, 2.0]),
    seed=SEEDS,
    founders=st.lists(PERIODS, min_size=1, max_size=5),
    history=st.lists(EVENTS, max_size=25),
)
def test_whatever_happens_all_are_answered_once_and_in_time_and_who_lives_gets_on(
    pace: Pace, jitter: float, transfer: float, seed: int, founders: list[float], history: list[tuple[object, ...]]
) -> None:
    world = World(pace, jitter=jitter, transfer=transfer, seed=seed)
    for index, period in enumerate(founders):
        world.join(index, period, expected=True)
    for event, *arguments in history:
        getattr(world, str(event))(*arguments)
        world.check_answers()
    for index in list(world.trainers):
        world.freeze(index, False)
    world.run(2 * DEADLINE + 2 * world.longest_period)  # Those that were frozen are expected again at the latest now.
    before = Counter(world.merged)
    world.run(4 * DEADLINE)
    world.check_answers()
    if len(world.trainers) + len(world.finished) >= pace.min_replicas:
        for index in world.trainers:
            assert world.merged[index] >= before[index] + 2, f"{index} starves"
    else:
        assert world.merged == before


@given(
    frozen=st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True),
    when=st.floats(0.0, 20.0),
    period=st.floats(1.0, 100.0),
    quorum=st.sampled_from(sorted(QUORUMS)),
    grace=st.sampled_from([None, 0.5]),
    seed=SEEDS,
)
def test_a_member_that_freezes_costs_at_most_one_deadline(
    frozen: list[int], when: float, period: float, quorum: str, grace: float | None, seed: int
) -> None:
    jitter = within_the_grace(period)
    world = World(a_pace(quorum, grace), jitter=jitter, seed=seed)
    for index in range(4):
        world.join(index, period, expected=True)
    world.run(when * period)
    for index in frozen:
        world.freeze(index)
    before = world.merged[0]
    world.run(len(frozen) * DEADLINE + 50 * period)
    assert len(world.timeouts) <= len(frozen)
    assert world.merged[0] - before >= 50 / (1 + jitter) - 3


@given(
    factor=st.floats(1.0, 20.0),
    period=st.floats(1.0, 100.0),
    members=st.integers(2, 6),
    grace=st.sampled_from([None, 0.0, 0.5]),
    seed=SEEDS,
)
def test_a_slow_member_costs_the_others_no_more_than_the_grace_once_and_merges_all_it_does(
    factor: float, period: float, members: int, grace: float | None, seed: int
) -> None:
    jitter = within_the_grace(period) if grace != 0.0 else 0.0
    world = World(a_pace(grace=grace), jitter=jitter, seed=seed)
    world.join(0, factor * period, expected=True)
    for index in range(1, members):
        world.join(index, period, expected=True)
    world.run(200 * period)
    waited_for = factor <= max(1.5, 1.0 + (grace or LEAST_GRACE) / period) * (1 + jitter)
    for index in range(1, members):
        assert world.merged[index] >= (190 / factor if waited_for else 200) / (1 + jitter) - DEADLINE / period - 3
    assert world.merged[0] >= 200 / (factor * (1 + jitter) + 1 + jitter) - DEADLINE / period - 3


@given(
    arrives=st.floats(3.0, 8.0),
    compiling=st.floats(0.0, COMPILING),
    period=st.floats(1.0, 100.0),
    members=st.integers(1, 5),
    quorum=st.sampled_from(sorted(QUORUMS)),
    seed=SEEDS,
)
def test_a_newcomer_costs_nobody_anything_while_it_compiles_and_is_in_step_after_its_first_push(
    arrives: float, compiling: float, period: float, members: int, quorum: str, seed: int
) -> None:
    jitter = within_the_grace(period)
    world = World(a_pace(quorum), jitter=jitter, seed=seed)
    for index in range(members):
        world.join(index, period, expected=True)
    world.run(arrives * period)  # By then the others' pace is known.
    world.join(members, period, compiling=compiling)
    before = Counter(world.merged)
    first = compiling + period * (1 + jitter)
    world.run(first + 20 * period)
    assert not world.timeouts
    for index in range(members):
        assert world.merged[index] - before[index] >= (first + 20 * period) / (period * (1 + jitter)) - 3
    assert world.merged[members] >= 20 / (1 + jitter) - 3, "it waits a period for the others at most, once"


@given(
    speeds=st.lists(st.floats(1.0, 1.1), min_size=2, max_size=6),
    period=st.floats(1.0, 100.0),
    jitter=st.floats(0.0, 0.1),
    quorum=st.sampled_from(sorted(QUORUMS)),
    seed=SEEDS,
)
def test_the_adaptive_grace_learns_how_much_the_members_differ(
    speeds: list[float], period: float, jitter: float, quorum: str, seed: int
) -> None:
    world = World(a_pace(quorum), jitter=jitter, seed=seed)
    for index, speed in enumerate(speeds):
        world.join(index, speed * period, expected=True)
    longest = max(speeds) * period * (1 + jitter)
    world.run(100 * longest)
    for index in world.trainers:
        assert world.merged[index] >= 85


@given(
    transfer=st.floats(0.0, 20.0),
    period=st.floats(0.1, 10.0),
    members=st.integers(2, 6),
    quorum=st.sampled_from(sorted(QUORUMS)),
    seed=SEEDS,
)
def test_nobody_is_suspected_because_the_network_needs_its_time(
    transfer: float, period: float, members: int, quorum: str, seed: int
) -> None:
    world = World(a_pace(quorum), jitter=within_the_grace(period), transfer=transfer, seed=seed)
    for index in range(members):
        world.join(index, period, expected=True)
    world.run(50 * (period + 2 * transfer))
    assert max(world.merged.values()) - min(world.merged.values()) == 0
    assert world.merged[0] >= 45
