"""What every algorithm owes the trainer: check A5, and the rules of algorithms/base.py."""

import copy
import json
import math
import random
from typing import Any

import pytest
import torch

from swarm_api.algorithm import Attractor, Draws, ExchangeMode, Memory
from swarm_trainer.algorithms import EASGD, PSOPS, Algorithm, Fitness, LocalSGD, Round, State
from unit.algorithms.driver import Swarm, close, contribution, quadratic, randn

FULL: dict[str, Any] = {"inertia": 0.5, "cognitive": 0.7, "social": 0.9, "max_velocity": 2.0}
ALGORITHMS = {
    "LocalSGD": LocalSGD(),
    "EASGD": EASGD(),
    "EASGD-asynchronous": EASGD(mode=ExchangeMode.ASYNCHRONOUS),
    "PSOPS": PSOPS(),
    **{
        f"PSOPS-{attractor}-{memory}-{draws}": PSOPS(**FULL, attractor=attractor, memory=memory, draws=draws)
        for attractor in Attractor
        for memory, draws in [(Memory.NONE, Draws.SCALAR), (Memory.BEST_EVER, Draws.PER_DIMENSION)]
    },
}
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
BARRIER = {name: algorithm for name, algorithm in ALGORITHMS.items() if algorithm.barrier}
every_barrier_algorithm = pytest.mark.parametrize("algorithm", BARRIER.values(), ids=BARRIER)


def noisy_loss(index: int, x: torch.Tensor) -> Fitness:
    return Fitness(float(x.square().mean()) + 0.01 * index, 0.02)


def swarm_of(algorithm: Algorithm, particles: int = 4, period: int = 1) -> Swarm:
    gradient = quadratic([0.5 + 0.3 * index for index in range(9)], [float(index % 3) for index in range(9)])
    return Swarm(
        algorithm, list(randn(particles, 6)), gradient, lr=0.05, momentum=0.5, period=period, fitness=noisy_loss
    )


def tensors(state: State) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


@every_algorithm
@pytest.mark.parametrize("period", [1, 5])
def test_it_trains_with_any_period(algorithm: Algorithm, period: int) -> None:
    """From far away to the optimum that all share, with particles that come and go."""
    starts = list(randn(4, 6) + 10)
    swarm = Swarm(algorithm, starts, quadratic([0.5, 1, 2, 1, 1]), lr=0.1, period=period, fitness=noisy_loss)
    for step in range(300):
        if step == 100:
            swarm.leave(0)
        if step == 150:
            swarm.join(4)
        swarm.step()
    assert float(swarm.x().abs().max()) < 0.05
    if not isinstance(algorithm, PSOPS) or algorithm.memory is Memory.NONE:
        assert float(swarm.c.abs().max()) < 0.05


@every_algorithm
def test_without_gradients_equal_particles_stay_where_they_are(algorithm: Algorithm) -> None:
    """A5: to the bit."""
    start = randn(6)
    swarm = Swarm(algorithm, [start] * 5, fitness=noisy_loss)
    for _ in range(5):
        swarm.step()
    assert torch.equal(swarm.x(), start.expand(5, 6))
    assert torch.equal(swarm.c, start)


@pytest.mark.parametrize("algorithm", [LocalSGD(), EASGD(), *(PSOPS(**FULL, attractor=each) for each in Attractor)])
def test_equal_particles_with_equal_gradients_stay_equal(algorithm: Algorithm) -> None:
    """A5. Not with memory: draws differ, and so do the ways back to a common best."""
    swarm = Swarm(algorithm, [randn(6)] * 5, lambda index, x: torch.sin(x), fitness=lambda index, x: Fitness(1.0))
    for _ in range(10):
        swarm.step()
    close(swarm.x(), swarm.x()[:1].expand(5, 6), tolerance=1e-15)


@pytest.mark.parametrize("algorithm", [LocalSGD(), EASGD()])
def test_indices_are_only_names(algorithm: Algorithm) -> None:
    """A5; for PSOPS see D5."""
    starts, was = randn(5, 6), [3, 1, 0, 4, 2]
    plain = Swarm(algorithm, list(starts), quadratic([1.0, 2, 3, 4, 5]), center=starts[0], period=3)
    renamed = Swarm(
        algorithm, list(starts[was]), quadratic([was[i] + 1.0 for i in range(5)]), center=starts[0], period=3
    )
    for _ in range(20):
        plain.step()
        renamed.step()
    close(renamed.x(), plain.x()[was])
    close(renamed.c, plain.c)


@every_algorithm
@pytest.mark.parametrize("at", [1, 7])
def test_a_restored_swarm_goes_on_to_the_bit(algorithm: Algorithm, at: int) -> None:
    """A5; states are flat dicts of tensors and of numbers that JSON carries."""
    swarm = swarm_of(algorithm, period=2)
    for _ in range(at):
        swarm.step()
    saved = swarm.saved()
    for state in (saved["center"], *(kept["state"] for kept in saved["particles"].values())):
        assert all(tensor.shape in [(6,), ()] for tensor in tensors(state).values())
        numbers = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
        assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
        assert all(type(value) is float for value in numbers.values())
    other = swarm_of(algorithm, period=2)
    other.restore(saved)
    for _ in range(9):
        swarm.step()
        other.step()
    assert torch.equal(swarm.x(), other.x())
    assert all(torch.equal(tensor, tensors(other.center)[name]) for name, tensor in tensors(swarm.center).items())


@every_algorithm
def test_a_merge_writes_into_nothing_it_was_given_and_replies_with_none_of_it(algorithm: Algorithm) -> None:
    """Receive buffers are used again, and replies, checkpoints and newcomers may hold an old center."""
    swarm = swarm_of(algorithm)
    for _ in range(3):
        swarm.step()
    held = dict(swarm.center)
    pushed = {
        index: contribution(particle.x.clone(), noisy_loss(index, particle.x))
        for index, particle in swarm.particles.items()
        if algorithm.barrier or index == 0
    }
    center_before, pushed_before = copy.deepcopy(held), copy.deepcopy(pushed)
    replies = algorithm.merge(swarm.center, pushed, Round(9, 0, 4))
    assert replies.keys() == pushed.keys()
    replied_before = copy.deepcopy(replies)
    for name, tensor in tensors(held).items():
        assert torch.equal(tensor, tensors(center_before)[name])
    for index, each in pushed.items():
        assert torch.equal(each.message.tensors["x"], pushed_before[index].message.tensors["x"])
        each.message.tensors["x"].fill_(math.nan)
    for index, reply in replies.items():
        for name, tensor in reply.tensors.items():
            assert torch.equal(tensor, replied_before[index].tensors[name])
    assert all(tensor.isfinite().all() for tensor in tensors(swarm.center).values())
    memory = [tensor.data_ptr() for tensor in tensors(swarm.center).values()]
    assert len(set(memory)) == len(memory), "a checkpoint cannot hold two names for one tensor"


@every_barrier_algorithm
def test_a_round_is_reproducible_whatever_the_order_of_arrival(algorithm: Algorithm) -> None:
    xs = randn(7, 50).float()
    results = []
    for seed in range(4):
        order = random.Random(seed).sample(range(7), 7)
        center = algorithm.center_state(torch.zeros(50))
        algorithm.merge(center, {i: contribution(xs[i], Fitness(float(i % 3), 0.1)) for i in order}, Round(1, 0, 7))
        results.append(center["x"])
    assert all(torch.equal(torch.as_tensor(each), torch.as_tensor(results[0])) for each in results)


@every_algorithm
def test_one_particle_without_a_loss_harms_nobody(algorithm: Algorithm) -> None:
    swarm = swarm_of(algorithm)
    swarm.fitness = lambda index, x: Fitness(math.nan, math.inf) if index == 2 else noisy_loss(index, x)
    for _ in range(20):
        swarm.step()
    assert bool(swarm.x().isfinite().all())
    assert bool(swarm.c.isfinite().all())


@every_algorithm
def test_float32_stays_float32(algorithm: Algorithm) -> None:
    swarm = Swarm(algorithm, list(randn(3, 8).float()), quadratic(), fitness=noisy_loss)
    for _ in range(4):
        swarm.step()
    for state in (swarm.center, *(particle.state for particle in swarm.particles.values())):
        assert all(tensor.dtype is torch.float32 for tensor in tensors(state).values())


@every_algorithm
def test_a_lost_center_is_rebuilt_from_the_particles(algorithm: Algorithm) -> None:
    swarm = swarm_of(algorithm)
    swarm.step()
    swarm.center = algorithm.rebuild({index: particle.x for index, particle in swarm.particles.items()})
    close(swarm.c, swarm.x().mean(0))
    swarm.step()
