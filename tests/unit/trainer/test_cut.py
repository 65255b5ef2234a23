"""Connections that are cut around a push: nothing is merged twice and no step is lost, counted in the weights."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import nn

from support.cable import Way
from swarm_api.algorithm import EASGD, Algorithm, AlgorithmName, ExchangeMode
from swarm_trainer import algorithms
from swarm_trainer.algorithms import Contribution, LocalSGD, Message, Round, State
from swarm_trainer.connection import Connection
from swarm_trainer.errors import LinkError
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.vectors import Tensors, X, room
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.units import Span, Stream
from unit.trainer.in_process import SECONDS, Synchronizer, Training, World, a_push

WIDTH = 20_000
"""Of the exchange vector: 160 kB, so that a cut meets the middle of it."""
RATE, GRADIENT, STEPS = 0.1, 0.5, 40


class Counting(LocalSGD):
    """Every push that is merged adds one to the center, and one to its particle's weights."""

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        before = center[X]
        assert isinstance(before, torch.Tensor)
        center[X] = before + len(contributions)
        return {index: Message({X: torch.ones_like(before)}) for index in contributions}

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        x.add_(reply.tensors[X])


COUNTING = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=2)
ALGORITHMS = {
    "counting": COUNTING,
    "synchronous": Algorithm(name=AlgorithmName.EASGD, sync_period=2),
    "asynchronous": Algorithm(name=AlgorithmName.EASGD, sync_period=2, easgd=EASGD(mode=ExchangeMode.ASYNCHRONOUS)),
}


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of LocalSGD."""
    monkeypatch.setitem(algorithms._ALGORITHMS, AlgorithmName.LOCAL_SGD, (Counting, "local_sgd"))


class Scene:
    """Two particles, the first of them behind a cable, and a merge that can be stopped."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm) -> None:
        self.world = world
        self.synchronizer = world.synchronizer(replicas=2, algorithm=algorithm)
        self.cable = world.cable()
        self.merging, self.go_on = threading.Event(), threading.Event()
        self.parked, self.drive = threading.Event(), threading.Event()
        """Of the second particle."""
        self.go_on.set()
        self.drive.set()
        merge = Center.merge

        def stoppable(center: Center, deliveries: Any, round_: Round) -> dict[int, Message]:
            if 0 in deliveries:
                self.merging.set()
                assert self.go_on.wait(SECONDS)
            return merge(center, deliveries, round_)

        monkeypatch.setattr(Center, "merge", stoppable)
        models = [nn.Linear(WIDTH - 1, 1, dtype=torch.float64) for _ in range(2)]
        particles = [
            world.particle(index, model=models[index], cable=self.cable if index == 0 else None) for index in range(2)
        ]
        attaching = [particle.attaching() for particle in particles]
        self.trainings = [
            Training(particle, model, torch.optim.SGD(model.parameters(), lr=RATE), welcomed.result(SECONDS))
            for particle, model, welcomed in zip(particles, models, attaching, strict=True)
        ]

    def train(self, at: int, act: Callable[[], None]) -> list["Future[None]"]:
        """Both train; before its step `at` the first one acts."""

        def run(training: Training, act: Callable[[], None] | None) -> None:
            with torch.no_grad():
                for step in range(STEPS):
                    if act is None and not self.drive.is_set():
                        self.parked.set()
                        assert self.drive.wait(SECONDS)
                    elif act is not None and step == at:
                        act()
                    training.step(GRADIENT)
                    time.sleep(0.005)
                training.exchange.rest(patience=SECONDS)
            training.particle.session.close()  # Nobody waits for it any more.

        first, second = self.trainings
        return [self.start(run, first, act), self.start(run, second, None)]

    def start(self, work: Callable[..., None], *arguments: Any) -> "Future[None]":
        return self.world._threads.submit(work, *arguments)

    def contributions(self) -> list[int]:
        return [self.synchronizer.reported(index).contributions for index in range(2)]

    def weights(self) -> list[torch.Tensor]:
        """Of both particles and the center, without the bias and what pads it."""
        vectors = [training.x for training in self.trainings] + [self.synchronizer.center()[X]]
        return [vector[: WIDTH - 1].clone() for vector in vectors]


def all_are(vector: torch.Tensor, value: float) -> bool:
    return bool(((vector - value).abs() < 1e-9).all())


def before_the_push_arrives(scene: Scene) -> None:
    scene.cable.cut_after(Way.UP, 100_000)


def while_the_round_is_open(scene: Scene) -> None:
    peers = scene.synchronizer.hub._swarm.peers
    scene.drive.clear()

    def cut() -> None:
        assert scene.parked.wait(SECONDS)
        scene.synchronizer.until(lambda: peers[0].push is not None, "delivered")
        scene.cable.cut()
        scene.drive.set()

    scene.start(cut)


def while_it_is_merged(scene: Scene) -> None:
    """The particle is back before the merge ends."""
    scene.go_on.clear()
    scene.merging.clear()

    def cut() -> None:
        assert scene.merging.wait(SECONDS)
        before = scene.synchronizer.hub._swarm.peers[0]
        scene.cable.cut()
        peers = scene.synchronizer.hub._swarm.peers
        scene.synchronizer.until(lambda: 0 in peers and peers[0] is not before and peers[0].attach, "back")
        scene.go_on.set()

    scene.start(cut)


def before_the_reply_arrives(scene: Scene) -> None:
    merged = scene.contributions()[0]
    scene.cable.hold()

    def cut() -> None:
        scene.synchronizer.until(lambda: scene.contributions()[0] > merged, "merged")
        scene.cable.cut()

    scene.start(cut)


def during_the_reply(scene: Scene) -> None:
    scene.cable.cut_after(Way.DOWN, 100_000)


def during_the_reply_and_when_it_is_told_again(scene: Scene) -> None:
    scene.cable.cut_after(Way.DOWN, 100_000, 100_000)


MERGED = (
    while_it_is_merged,
    before_the_reply_arrives,
    during_the_reply,
    during_the_reply_and_when_it_is_told_again,
)
NOT_MERGED = (before_the_push_arrives, while_the_round_is_open)


@pytest.mark.parametrize(
    ("cutting", "algorithm"),
    [
        pytest.param(cutting, algorithm, id=f"{algorithm}-{cutting.__name__}")
        for cutting in (*NOT_MERGED, *MERGED)
        for algorithm in ALGORITHMS
        if (cutting, algorithm) != (while_the_round_is_open, "asynchronous")  # Which has no round to wait for.
    ],
)
def test_a_cut_loses_no_step_and_merges_none_twice(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    algorithm: str,
    cutting: Callable[[Scene], None],
) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene(world, monkeypatch, ALGORITHMS[algorithm])
    start = scene.weights()
    for trained in scene.train(5, lambda: cutting(scene)):
        trained.result(SECONDS)
    assert scene.cable.cuts == (2 if cutting is during_the_reply_and_when_it_is_told_again else 1)
    assert ("applying it now" in caplog.text) is (cutting in MERGED)

    first, second, center = (after - before for before, after in zip(start, scene.weights(), strict=True))
    moved = -STEPS * RATE * GRADIENT
    if algorithm == "counting":
        merged = scene.contributions()
        assert all_are(first - moved, merged[0])
        assert all_are(second - moved, merged[1])
        assert all_are(center, sum(merged))
        assert merged[0] > 2
    else:
        assert all_are(first + second + center, 2 * moved)


@pytest.mark.parametrize("second", [7.0, math.nan])
def test_a_push_that_is_repeated_gets_the_same_answer_and_an_older_one_none(world: World, second: float) -> None:
    synchronizer = world.synchronizer(replicas=1)
    schema = FlatWeights(nn.Linear(3, 1)).schema

    async def push(connection: Connection, sequence: int, value: float) -> tuple[say.Reply, Tensors]:
        tensors = {X: room(schema, X).fill_(value)}
        await connection.say(a_push(sequence, tensors), tensors)
        reply = await connection.hear()
        assert isinstance(reply, say.Reply)
        return reply, await connection.take(reply.tensors, lambda name: room(schema, name))

    async def repeat() -> None:
        connection = await synchronizer.bare(world.surroundings(0), schema)
        assert isinstance(await connection.hear(), say.SendState)
        state = {X: room(schema, X).fill_(0.0)}
        await connection.say(say.State(tensors=(X,)), state)
        assert isinstance(await connection.hear(), say.Welcome)
        await push(connection, 1, 1.0)
        first = await push(connection, 2, 5.0)
        again = await push(connection, 2, second)
        assert again[0] == first[0]
        assert torch.equal(again[1][X], first[1][X])
        center = synchronizer.center()[X]
        assert all_are(center, first[0].round + 0.0)
        with pytest.raises(LinkError):
            await push(connection, 1, 1.0)

    synchronizer.run(repeat())
    assert synchronizer.reported(0).contributions == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_a_new_synchronizer_merges_a_pending_push_only_if_its_checkpoint_has_not_got_it(
    world: World, keeps: bool
) -> None:
    first = world.synchronizer(keeps=keeps, replicas=1, algorithm=COUNTING)
    cable = world.cable()
    model = nn.Linear(3, 1)
    particle = world.particle(0, model=model, cable=cable)
    training = Training(particle, model, torch.optim.SGD(model.parameters(), lr=RATE), particle.attach())

    def train(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                training.step(GRADIENT)

    def contributions(synchronizer: Synchronizer) -> int:
        return synchronizer.reported(0).contributions

    for round_ in (1, 2):
        train(2)
        if keeps:
            first.until_kept(round_)
    cable.hold()
    going = world._threads.submit(train, 4)
    first.until(lambda: contributions(first) == 3, "merged, and the reply is on its way")
    if keeps:
        first.until_kept(3)
    first.stop()
    cable.cut()
    going.result(SECONDS)
    second = world.synchronizer(keeps=keeps, replicas=1, algorithm=COUNTING)
    training.exchange.rest(patience=SECONDS)
    assert (second.reported(0).step, contributions(second)) == (8, 4 if keeps else 1)
    assert second.hub._swarm.ledger.samples == 0


def test_a_refusal_that_is_heard_late_frees_all_that_was_trained_on_weights_that_were_no_numbers(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, algorithm=COUNTING)
    cable = world.cable()
    model = nn.Linear(3, 1)
    particle = world.particle(0, model=model, cable=cable)
    training = Training(particle, model, torch.optim.SGD(model.parameters(), lr=RATE), particle.attach())
    leases = particle.session.leases
    begun = leases.begin(Stream(0, 0, 8), window=8)

    def lease() -> list[int]:
        particle.session.ask(begun, say.Lease(stream=begun.stream, count=8, calls=(Span(0, 1, 1),)))
        leases.wait(begun)
        return [unit.number for unit in begun.ready]

    def train(*gradients: float) -> None:
        with torch.no_grad():
            for gradient in gradients:
                unit = leases.draw(begun)
                assert unit is not None
                assert leases.start(begun, unit)
                training.step(gradient)

    assert lease() == list(range(8))
    train(GRADIENT, GRADIENT)
    cable.hold()
    going = world._threads.submit(train, GRADIENT, math.nan)
    synchronizer.until(lambda: synchronizer.reported(0).refused, "refused")
    there = world.address_file.read_text()
    world.address_file.write_text('{"address": "nowhere"}')
    cable.cut()
    going.result(SECONDS)
    train(GRADIENT, GRADIENT)  # Alone.
    world.address_file.write_text(there)
    synchronizer.until(lambda: particle.session.attached, "back")
    train(GRADIENT)  # And hears of it.
    assert training.x.isfinite().all()
    assert lease() == [7, 2, 3, 4, 5, 6]
    assert synchronizer.hub._swarm.units.left == 6
