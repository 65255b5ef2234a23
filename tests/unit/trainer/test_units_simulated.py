"""Particles that draw, train and push, and a table that deals out units, through histories of deaths and returns."""

import itertools
import json
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import given, settings

from swarm_trainer.drawing import Drawing
from swarm_trainer.leases import Leases, Pass
from swarm_trainer.session import Session
from swarm_trainer.synchronizer.units import Table
from swarm_trainer.wire.messages import Lease
from swarm_trainer.wire.units import Span, Spans, Stream, Unit, Units, pack, unpack

EPOCHS = 3
PERIOD = 2


class Waiting(Leases):
    """Whoever waits for an answer has it."""

    def __init__(self, index: int, trainer: "Trainer") -> None:
        super().__init__(index)
        self._trainer = trainer

    def wait(self, begun: Pass) -> None:
        self._trainer.hear()
        super().wait(begun)


class Trainer:
    """One incarnation. It is the session of its own drawing."""

    def __init__(self, world: "World", index: int, epoch: int, prefetch: int) -> None:
        self.world = world
        self.index = index
        self.epoch = epoch
        self.prefetch = prefetch
        self.leases = Waiting(index, self)
        self.attached = True
        self.steps = 0
        self.refused = False
        """Its last push was, and it hears of that at the step after its return."""
        self.answer: tuple[Stream, tuple[Units, ...]] | None = None
        self._loader: Iterator[Unit] | None = None

    def ask(self, begun: Pass, lease: Lease) -> bool:
        if self.attached:
            assert self.answer is None
            begun.asked = True
            self.answer = (lease.stream, self.world.lease(self.index, lease))
            if self.world.prompt:
                self.hear()
        return self.attached

    def hear(self) -> None:
        """The answer comes."""
        if self.answer is not None:
            self.leases.give(*self.answer)
            self.answer = None

    def lose(self) -> None:
        """The connection, and the answer that was on its way."""
        self.attached = False
        self.answer = None
        self.leases.unanswered()

    def step(self) -> bool:
        """Train one batch, or go on to the next epoch; False: it has finished."""
        if self._loader is None:
            if self.epoch >= EPOCHS:
                return False
            self._loader = self._batches()
        unit = next(self._loader, None)
        if unit is None:
            self._loader = None
            self.epoch += 1
        else:
            self.world.train(self, unit)
            self.leases.stepped()
            self.steps += 1
            if self.refused and self.attached:
                self.world.lose(self)
            if self.steps % PERIOD == 0:
                self.world.push(self)
        return True

    def _batches(self) -> Iterator[Unit]:
        begun = self.leases.begin(Stream(self.epoch, 0, self.world.total), window=2 * PERIOD + self.prefetch)
        drawing = Drawing(cast(Session, self), begun, Spans([Span(0, 1, 1)]), lambda: self.world.table.replicas)
        while drawing.more():
            ahead: deque[Unit] = deque()
            units = drawing.units()
            while True:
                ahead += itertools.islice(units, self.prefetch + 1 - len(ahead))
                if not ahead:
                    break
                if self.leases.start(begun, unit := ahead.popleft()):
                    yield unit
        self.leases.end(begun, early=False)


class World:
    """A swarm without weights: what is trained and what is committed is written down."""

    def __init__(self, replicas: int, total: int, prefetch: int, prompt: bool) -> None:
        self.total = total
        self.prefetch = prefetch
        self.prompt = prompt
        """Answers are there before whoever asked looks for them."""
        self.table = Table(replicas)
        self.trainers: dict[int, Trainer] = {}
        self.finished: set[int] = set()
        self.seen_off = 0
        """How many of them this synchronizer has seen go: of others it does not know how far they came."""
        self.slow: set[int] = set()
        self.committed: set[Unit] = set()
        self.repeated: set[Unit] = set()
        """Units that were trained although they were committed already."""
        self.given_up: set[Unit] = set()
        self.lost: set[Unit] = set()
        """Units of a refusal that a particle hears after its last step: maybe nobody is left to train them."""
        self.trained: Counter[Unit] = Counter()
        self.shares: dict[int, list[int]] = {}
        self.dump: Any = None
        self.forgotten = 0
        """All who lived at a restart were past the epochs before this."""
        for index in range(replicas):
            self.join(index)

    @property
    def paced(self) -> set[int]:
        return {index for index, trainer in self.trainers.items() if trainer.attached} - self.slow

    # What happens.

    def run(self, index: int, steps: int) -> None:
        trainer = self.trainers.get(index)
        for _ in range(steps if trainer else 0):
            assert trainer is not None
            if not trainer.step():
                if trainer.attached:
                    if trainer.refused:
                        self.lost |= set(unpack(trainer.leases.trained()))
                        self.lose(trainer)
                    self.push(trainer)
                    self.table.finish(index)
                    self.finished.add(index)
                    self.seen_off += 1
                    del self.trainers[index]
                return

    def join(self, index: int) -> None:
        if index in self.trainers or index in self.finished or index >= self.table.replicas:
            return
        present = [trainer.epoch for trainer in self.trainers.values() if trainer.attached] + [EPOCHS] * self.seen_off
        epoch = self.table.entry(index, max(present, default=0), paced=self.paced)
        self.table.enter(index, epoch)
        self.trainers[index] = Trainer(self, index, epoch, self.prefetch)

    def die(self, index: int) -> None:
        trainer = self.trainers.pop(index, None)
        if trainer is not None and trainer.attached:
            self.table.leave(index)

    def cut(self, index: int) -> None:
        trainer = self.trainers.get(index)
        if trainer is not None and trainer.attached:
            trainer.lose()
            self.table.leave(index)

    def back(self, index: int) -> None:
        trainer = self.trainers.get(index)
        if trainer is not None and not trainer.attached:
            trainer.attached = True
            self.table.enter(index, trainer.epoch)
            revoked = self.table.returned(index, trainer.leases.work())
            trainer.leases.revoked(pack(revoked))

    def refuse(self, index: int) -> None:
        trainer = self.trainers.get(index)
        if trainer is not None and trainer.attached:
            units = trainer.leases.trained()
            self.given_up |= set(self.table.refuse(index, unpack(units)))
            self.lose(trainer)

    def refuse_late(self, index: int) -> None:
        """The connection is cut before the answer, which the particle hears at the step after its return."""
        trainer = self.trainers.get(index)
        if trainer is not None and trainer.attached:
            self.given_up |= set(self.table.refuse(index, unpack(trainer.leases.trained())))
            trainer.refused = True
            self.cut(index)

    def lose(self, trainer: Trainer) -> None:
        self.table.release(trainer.index, unpack(trainer.leases.lose()))
        trainer.refused = False

    def slow_down(self, index: int) -> None:
        self.slow ^= {index}

    def scale(self, replicas: int) -> None:
        self.table.replicas = max(replicas, self.table.replicas)
        for index in range(self.table.replicas):
            self.join(index)

    def remember(self) -> None:
        self.dump = json.loads(json.dumps(self.table.dump()))

    def restart(self) -> None:
        """The synchronizer dies, the next one starts from what was remembered, and all who live come back."""
        replicas, self.table = self.table.replicas, Table(self.table.replicas)
        self.seen_off = 0
        if self.dump is not None:
            self.table.load(self.dump)
        for trainer in self.trainers.values():
            trainer.lose()
        if self.trainers:
            first = min(trainer.epoch for trainer in self.trainers.values())
            self.table.settle_before(first)
            self.forgotten = max(self.forgotten, first)
        for index in sorted(self.trainers):
            self.back(index)
        assert self.table.replicas == replicas

    def end(self) -> None:
        """Everyone who is away comes back, whoever died is replaced, and all train to their end."""
        for index in list(self.trainers):
            self.back(index)
        for _ in range(1000):
            for index in range(self.table.replicas):
                self.join(index)
                self.run(index, 3)
            if len(self.finished) == self.table.replicas:
                return
        raise AssertionError("it never ends")

    # What the trainers do.

    def lease(self, index: int, ask: Lease) -> tuple[Units, ...]:
        units = self.table.lease(index, ask.stream, ask.count, calls=Spans(ask.calls), paced=self.paced)
        assert len(units) <= ask.count
        return pack(units)

    def train(self, trainer: Trainer, unit: Unit) -> None:
        self.trained[unit] += 1
        if unit in self.committed:
            self.repeated.add(unit)
        if unit.stream.epoch == 0:
            self.shares.setdefault(trainer.index, []).append(unit.number)

    def push(self, trainer: Trainer) -> None:
        if trainer.attached:
            trainer.hear()
            units = trainer.leases.trained()
            self.committed |= set(unpack(units))
            self.table.commit(unpack(units))
            trainer.leases.committed(units)

    @property
    def missing(self) -> set[Unit]:
        every = {Unit(Stream(epoch, 0, self.total), number) for epoch in range(EPOCHS) for number in range(self.total)}
        assert self.trained.keys() <= every
        return every - self.committed - self.given_up - self.lost


INDICES = st.integers(0, 5)
RUN = st.tuples(st.just("run"), INDICES, st.integers(1, 30))
CONNECTED = [
    RUN,
    st.tuples(st.just("die"), INDICES),
    st.tuples(st.just("join"), INDICES),
    st.tuples(st.just("slow_down"), INDICES),
    st.tuples(st.just("refuse"), INDICES),
    st.tuples(st.just("scale"), st.integers(1, 6)),
]
CUTS = [st.tuples(st.just(event), INDICES) for event in ("cut", "refuse_late", "back")]
RESTARTS = [st.tuples(st.just("remember")), st.tuples(st.just("restart"))]


def worlds() -> st.SearchStrategy[World]:
    return st.builds(World, st.integers(1, 4), st.integers(1, 40), st.integers(0, 5), st.booleans())


def live_through(world: World, history: list[tuple[Any, ...]]) -> None:
    for event, *arguments in history:
        getattr(world, event)(*arguments)


@settings(max_examples=300, deadline=None)
@given(world=worlds(), history=st.lists(st.one_of(*CONNECTED, RUN), max_size=40))
def test_whatever_dies_joins_or_lags_all_is_trained_and_nothing_that_was_committed_is_trained_again(
    world: World, history: list[tuple[Any, ...]]
) -> None:
    live_through(world, history)
    world.end()
    assert not world.missing
    assert not world.repeated
    assert world.table.left == 0


@settings(max_examples=300, deadline=None)
@given(world=worlds(), history=st.lists(st.one_of(*CONNECTED, *CUTS, RUN), max_size=40))
def test_particles_that_train_alone_for_a_while_leave_nothing_out(world: World, history: list[tuple[Any, ...]]) -> None:
    live_through(world, history)
    world.end()
    assert not world.missing
    assert world.table.left <= len(world.lost)


@settings(max_examples=300, deadline=None)
@given(world=worlds(), history=st.lists(st.one_of(*CUTS, *RESTARTS, RUN), max_size=40))
def test_a_synchronizer_that_starts_again_learns_from_those_who_live_what_was_done(
    world: World, history: list[tuple[Any, ...]]
) -> None:
    live_through(world, history)
    world.end()
    assert not world.missing


@settings(max_examples=300, deadline=None)
@given(world=worlds(), history=st.lists(st.one_of(*CONNECTED, *CUTS, *RESTARTS, RUN), max_size=40))
def test_only_what_the_dead_left_in_epochs_that_all_survivors_are_past_may_be_lost_with_the_synchronizer(
    world: World, history: list[tuple[Any, ...]]
) -> None:
    live_through(world, history)
    world.end()
    assert all(unit.stream.epoch < world.forgotten for unit in world.missing)


@settings(max_examples=200, deadline=None)
@given(world=worlds(), order=st.lists(st.tuples(INDICES, st.integers(1, 3)), max_size=40), remember=st.booleans())
def test_undisturbed_every_particle_trains_its_share_in_order_and_once(
    world: World, order: list[tuple[int, int]], remember: bool
) -> None:
    for index, steps in order:
        world.run(index, steps)
        if remember:
            world.remember()
            world.restart()
    world.end()
    replicas = world.table.replicas
    assert not world.missing
    assert set(world.trained.values()) == {1}
    shares = {index: list(range(index, world.total, replicas)) for index in range(replicas)}
    assert world.shares == {index: share for index, share in shares.items() if share}


def test_what_is_lost_in_a_pass_that_had_come_to_its_end_is_asked_for_again() -> None:
    stream, leases = Stream(0, 0, 4), Leases(0)
    begun = leases.begin(stream, window=4)
    leases.give(stream, pack([Unit(stream, 0)]))
    unit = leases.draw(begun)
    assert unit is not None
    leases.give(stream, ())
    assert leases.start(begun, unit)
    leases.stepped()
    assert not begun.wants
    assert list(unpack(leases.lose())) == [unit]
    assert begun.wants == 4
