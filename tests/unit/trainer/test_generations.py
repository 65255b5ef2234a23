"""Settings that change while particles train: what is merged under which, and what goes on."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from swarm_api.algorithm import EASGD, PSOPS, Algorithm, AlgorithmName, ExchangeMode
from swarm_api.job import Sync
from swarm_trainer import algorithms
from swarm_trainer.algorithms import LocalSGD, State
from swarm_trainer.synchronizer.center import Center
from swarm_trainer.vectors import X
from swarm_trainer.wire import messages as say
from unit.trainer.in_process import SECONDS, Synchronizer, Training, World

MERGED, HELD = say.ReplyStatus.MERGED, say.ReplyStatus.HELD
LOCAL_SGD = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=2)
ELASTIC = Algorithm(name=AlgorithmName.EASGD, sync_period=2)
GAUSS_SEIDEL = Algorithm(name=AlgorithmName.EASGD, sync_period=2, easgd=EASGD(mode=ExchangeMode.ASYNCHRONOUS))
SWARM = Algorithm(name=AlgorithmName.PSOPS, sync_period=2)


def until_generation(synchronizer: Synchronizer, generation: int) -> None:
    synchronizer.until(lambda: synchronizer.hub.report().settings_generation == generation, "the new generation")


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": ELASTIC},
        {"algorithm": LOCAL_SGD.model_copy(update={"sync_period": 5})},
        {"sync": Sync(deadline_seconds=5)},
    ],
    ids=["algorithm", "syncPeriod", "deadlineSeconds"],
)
def test_pushes_of_an_older_generation_come_back_with_the_new_settings(world: World, changes: dict[str, Any]) -> None:
    synchronizer = world.synchronizer(replicas=2)
    first, second = world.particles(2)
    waiting = first.pushing(1.0)
    synchronizer.until(lambda: synchronizer.hub._swarm.peers[0].push, "the round is open")
    synchronizer.change(**changes)
    until_generation(synchronizer, 2)
    for reply, _ in (waiting.result(SECONDS), second.push(9.0)):
        assert (reply.status, reply.settings) == (HELD, synchronizer._settings)
    assert synchronizer.hub.report().round == 0
    both = [first.pushing(2.0, generation=2), second.pushing(2.0, generation=2)]
    assert [(each.result(SECONDS)[0].status, each.result()[0].settings) for each in both] == [(MERGED, None)] * 2
    assert synchronizer.hub.report().round == 1


def test_a_change_of_numbers_hands_nothing_back(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    first, second = world.particles(2)
    waiting = first.pushing(1.0)
    synchronizer.until(lambda: synchronizer.hub._swarm.peers[0].push, "the round is open")
    synchronizer.change(replicas=3)
    until_generation(synchronizer, 2)
    for reply, _ in (second.push(1.0), waiting.result(SECONDS)):
        assert (reply.status, reply.replicas) == (MERGED, 3)


class Pair:
    """Two particles that train while the settings change."""

    def __init__(self, world: World, algorithm: Algorithm) -> None:
        self.world = world
        self.synchronizer = world.synchronizer(replicas=2, algorithm=algorithm)
        models = [nn.Linear(3, 1, dtype=torch.float64) for _ in range(2)]
        particles = [world.particle(index, model=model) for index, model in enumerate(models)]
        attaching = [particle.attaching() for particle in particles]
        self.trainings = [
            Training(particle, model, torch.optim.SGD(model.parameters(), lr=0.1), welcomed.result(SECONDS))
            for particle, model, welcomed in zip(particles, models, attaching, strict=True)
        ]
        for index, training in enumerate(self.trainings):
            training.x[:3] += index + 1.0

    def sum(self) -> torch.Tensor:
        """Of the weights of both and the center."""
        return (self.trainings[0].x + self.trainings[1].x + self.synchronizer.center()[X])[:3]

    def train(self, *algorithms: Algorithm, gradient: float = 0.0) -> int:
        """Until all of these had some rounds, each in its turn; returns the steps of both."""
        over = threading.Event()

        def run(training: Training) -> None:
            with torch.no_grad():
                while not over.is_set():
                    training.step(gradient)
                    time.sleep(0.001)
                training.exchange.rest(patience=SECONDS)
            training.particle.session.close()

        running = [self.world._threads.submit(run, training) for training in self.trainings]
        for algorithm in algorithms:
            self.synchronizer.change(algorithm=algorithm)
            until_generation(self.synchronizer, self.synchronizer._settings.generation)
            wanted = [self.synchronizer.reported(index).contributions + 5 for index in range(2)]
            self.synchronizer.until(functools.partial(self._contributed, wanted), "rounds go on")
        over.set()
        for each in running:
            each.result(SECONDS)
        return sum(training.particle.session.position.step for training in self.trainings)

    def _contributed(self, wanted: list[int]) -> bool:
        return all(self.synchronizer.reported(index).contributions >= wanted[index] for index in range(2))


def test_no_round_merges_two_generations_and_every_algorithm_hands_the_center_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(world, LOCAL_SGD)
    merged: list[tuple[str, set[str]]] = []
    merge = Center.merge

    def watched(center: Center, deliveries: Any, round_: Any) -> Any:
        # Whoever waits for its answer has the algorithm under which it pushed.
        theirs = {type(pair.trainings[index].exchange._algorithm).__name__ for index in deliveries}
        merged.append((type(center._algorithm).__name__, theirs))
        return merge(center, deliveries, round_)

    monkeypatch.setattr(Center, "merge", watched)
    pair.train(SWARM, ELASTIC, LOCAL_SGD, GAUSS_SEIDEL, SWARM, LOCAL_SGD)
    assert {algorithm for algorithm, _ in merged} == {"LocalSGD", "PSOPS", "EASGD"}
    assert all(theirs == {algorithm} for algorithm, theirs in merged)
    center = pair.synchronizer.center()[X]
    assert center.isfinite().all()
    assert any(torch.equal(training.x, center) for training in pair.trainings)
    assert not any(training.exchange._state for training in pair.trainings), "the others' state is gone"


@pytest.mark.parametrize("gradient", [0.0, 0.5])
def test_springs_that_change_lose_no_force_and_no_step(world: World, gradient: float) -> None:
    pair = Pair(world, ELASTIC)
    start = pair.sum()
    softer = ELASTIC.model_copy(update={"easgd": EASGD(beta=0.3)})
    rarer = ELASTIC.model_copy(update={"sync_period": 5})
    steps = pair.train(softer, GAUSS_SEIDEL, rarer, ELASTIC, gradient=gradient)
    assert torch.allclose(pair.sum(), start - 0.1 * gradient * steps, atol=1e-9, rtol=0)


def test_the_particles_own_factors_change_with_the_generation(world: World) -> None:
    pair = Pair(world, SWARM)
    pair.train(SWARM.model_copy(update={"psops": PSOPS(social=0.0)}))
    before = pair.trainings[0].x.clone()
    assert not torch.equal(before, pair.trainings[1].x), "nothing pulled them together to the end"


def test_a_particle_that_comes_back_to_other_settings_takes_them(world: World) -> None:
    first = world.synchronizer(replicas=1, algorithm=LOCAL_SGD)
    model = nn.Linear(3, 1)
    particle = world.particle(0, model=model)
    training = Training(particle, model, torch.optim.SGD(model.parameters(), lr=0.1), particle.attach())
    first.stop()
    first.until(lambda: not particle.session.attached, "detached")
    second = world.synchronizer(replicas=1, algorithm=SWARM, generation=9)
    second.until(lambda: particle.session.wait_attached(0.1), "attached")
    with torch.no_grad():
        for _ in range(4):
            training.step(0.5)
    assert (second.reported(0).contributions, second.reported(0).refused) == (2, 0)
    assert training.exchange._settings == second._settings


class Curious(LocalSGD):
    """Asks for gradients, and keeps the sum of them."""

    needs_gradient = True

    def after_step(self, state: State, x: torch.Tensor, gradient: torch.Tensor | None, lr: float) -> None:
        state["seen"] = state.get("seen", 0.0) + (-1.0 if gradient is None else float(gradient.sum()))


class Incurious(Curious):
    needs_gradient = False


@pytest.mark.parametrize(("kind", "seen"), [(Curious, 3 * 4 * 0.5), (Incurious, -3.0)])
def test_only_an_algorithm_that_asks_for_the_gradient_gets_it(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., LocalSGD], seen: float
) -> None:
    monkeypatch.setitem(algorithms._ALGORITHMS, AlgorithmName.LOCAL_SGD, (kind, "local_sgd"))
    world.synchronizer(replicas=1, algorithm=LOCAL_SGD)
    model = nn.Linear(3, 1)
    particle = world.particle(0, model=model)
    training = Training(particle, model, torch.optim.SGD(model.parameters(), lr=0.1), particle.attach())
    with torch.no_grad():
        for _ in range(3):
            training.step(0.5)
    assert training.exchange._state["seen"] == pytest.approx(seen)
