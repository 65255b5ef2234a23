"""One particle's side of an exchange, with a real session and a synchronizer in this process."""

import math
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, Optimizer

from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import Presence
from swarm_trainer.vectors import X
from unit.trainer.in_process import SECONDS, Training, World

LOCAL_SGD = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=1)
EASGD = Algorithm(name=AlgorithmName.EASGD, sync_period=2)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def a_training(world: World, make: Callable[..., Optimizer] = SGD, **settings: float) -> Training:
    """The only particle of a swarm."""
    model = nn.Linear(3, 2, dtype=torch.float64)
    particle = world.particle(0, model=model)
    return Training(particle, model, make(model.parameters(), **({"lr": 0.1} | settings)), particle.attach())


@pytest.mark.parametrize("algorithm", [LOCAL_SGD, EASGD], ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize(("make", "settings"), [(SGD, {"momentum": 0.9}), (Adam, {}), (Adagrad, {})])
def test_a_particle_that_went_to_nan_comes_back_on_the_center_and_stays_finite(
    world: World, algorithm: Algorithm, make: Callable[..., Optimizer], settings: dict[str, float]
) -> None:
    synchronizer = world.synchronizer(replicas=1, algorithm=algorithm)
    training = a_training(world, make, **settings)
    for _ in range(3):
        training.step(0.5)
    training.step(math.nan)
    for _ in range(4):
        training.step(0.5)
        last = training.x.clone()
    assert synchronizer.reported(0).refused == 1
    assert last.isfinite().all()
    assert synchronizer.center()[X].isfinite().all()
    merged = synchronizer.reported(0).contributions
    training.step(0.5)
    training.step(0.5)
    assert synchronizer.reported(0).contributions > merged
    assert not torch.equal(training.x, last), "it trains on"


def test_elastic_forces_are_felt_at_both_ends_to_the_last(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, algorithm=EASGD)
    training = a_training(world)
    training.x.add_(1.0)
    total = training.x.sum() + synchronizer.center()[X].sum()
    for steps in (1, 2, 2):  # Ends between two exchanges, and right after one.
        for _ in range(steps):
            training.step()
        training.exchange.rest()
        left = training.x.sum() + synchronizer.center()[X].sum()
        assert left == pytest.approx(float(total), abs=1e-12)
    assert synchronizer.hub.report().round >= 3


def test_at_the_end_the_last_steps_wait_for_a_synchronizer_that_is_away(world: World) -> None:
    algorithm = Algorithm(name=AlgorithmName.PSOPS, sync_period=2)
    first = world.synchronizer(replicas=1, algorithm=algorithm)
    training = a_training(world)
    training.step(1.0)
    training.step(1.0)
    first.stop()
    first.until(lambda: not training.particle.session.attached, "detached")
    training.step(1.0)
    training.step(1.0)  # An exchange is due, and nobody is there.
    training.exchange.rest()
    assert training.exchange.alone_too_long is False
    second = world.synchronizer(replicas=1, algorithm=algorithm)
    training.exchange.rest(patience=SECONDS)
    report = second.reported(0)
    assert (report.contributions, report.step, report.loss) == (1, 4, 1.0)
    training.exchange.rest(patience=SECONDS)
    assert second.reported(0).contributions == 1, "nothing is pushed twice"


def test_at_the_end_a_held_push_is_made_again_until_enough_particles_are_there(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, min_replicas=2, algorithm=LOCAL_SGD)
    second = world.particle(1, model=nn.Linear(3, 2, dtype=torch.float64))
    attaching = second.attaching()
    training = a_training(world)
    attaching.result(SECONDS)
    second.session.close()
    synchronizer.until_presence(1, Presence.DETACHED)
    training.step()
    assert not training.exchange.rest()
    resting = world._threads.submit(training.exchange.rest, patience=SECONDS)
    with pytest.raises(TimeoutError):
        resting.result(0.5)
    world.particle(1, incarnation=2, model=nn.Linear(3, 2, dtype=torch.float64)).attach()
    assert resting.result(SECONDS)
    assert synchronizer.reported(0).contributions == 1


def test_at_the_end_nobody_waits_for_a_merge_of_steps_without_a_finite_loss(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    algorithm = Algorithm(name=AlgorithmName.PSOPS, sync_period=2)
    world.synchronizer(replicas=2, algorithm=algorithm, finished=(1,))
    training = a_training(world)
    training.exchange.meter.add(math.nan)
    training.step()
    began = time.monotonic()
    assert not training.exchange.rest(patience=SECONDS)
    assert time.monotonic() - began < SECONDS / 2
    assert "the last 1 steps are lost: they have no finite loss" in caplog.text


def test_a_particle_alone_for_too_long_is_told_so_until_a_push_merges(world: World) -> None:
    sync = Sync(max_detached_steps=3)
    first = world.synchronizer(replicas=1, algorithm=LOCAL_SGD, sync=sync)
    training = a_training(world)
    training.step()
    first.stop()
    first.until(lambda: not training.particle.session.attached, "detached")
    alone = []
    for _ in range(3):
        training.step()
        alone.append(training.exchange.alone_too_long)
    assert alone == [False, False, True]
    world.synchronizer(replicas=1, algorithm=LOCAL_SGD, sync=sync)
    first.until(lambda: training.exchange.wait_for_the_swarm() or not training.exchange.alone_too_long, "merged")
