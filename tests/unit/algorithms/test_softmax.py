"""Weights by loss: noise does not choose, honest differences do, and one bad particle spoils nothing."""

import itertools
import math
import random
import statistics

import pytest

from swarm_trainer.algorithms import Fitness
from swarm_trainer.algorithms.softmax import softmax_weights

SIZES = [2, 3, 4, 8, 16]


def weigh(losses: list[float], errors: float | list[float] = 0.0, temperature: float = 1.0) -> list[float]:
    each = errors if isinstance(errors, list) else [errors] * len(losses)
    weights = softmax_weights([Fitness(f, e) for f, e in zip(losses, each, strict=True)], temperature)
    assert math.fsum(weights) == pytest.approx(1)
    return weights


def effective(weights: list[float]) -> float:
    return 1 / sum(weight * weight for weight in weights)


@pytest.mark.parametrize("p", range(2, 17))
def test_losses_within_their_standard_error_count_alike(p: int) -> None:
    rng = random.Random(p)
    halves = [0.0] * (p // 2) + [0.999] * (p - p // 2)
    for losses in [halves, *([rng.random() for _ in range(p)] for _ in range(50))]:
        assert effective(weigh([3 + 0.01 * loss for loss in losses], 0.01)) > 0.9 * p
        uneven = [0.01 * rng.uniform(1, 5) for _ in range(p)]
        assert effective(weigh([3 + 0.01 * loss for loss in losses], uneven)) > 0.9 * p


@pytest.mark.parametrize("p", SIZES)
def test_pure_noise_leaves_nearly_all_particles(p: int) -> None:
    rng = random.Random(p)
    counts = [effective(weigh([rng.gauss(1, 0.1) for _ in range(p)], 0.1)) for _ in range(500)]
    assert statistics.fmean(counts) > 0.94 * p


@pytest.mark.parametrize("p", SIZES)
def test_clear_differences_count(p: int) -> None:
    weights = weigh([1 + 0.5 * rank for rank in range(p)], 0.05)
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 3.5 * weights[-1]
    assert effective(weights) < 0.9 * p


@pytest.mark.parametrize("p", SIZES[1:])
def test_a_diverging_particle_counts_nothing_and_excuses_nobody(p: int) -> None:
    rng = random.Random(p)
    good = [rng.uniform(0.5, 0.6) for _ in range(p - 1)]
    weights = weigh([*good, 1e6], [0.1] * (p - 1) + [1e6])
    assert weights[-1] < 1e-9
    assert effective(weights[:-1]) > 0.9 * (p - 1)


def test_luck_does_not_help_a_noisy_particle() -> None:
    assert weigh([0.0, 1.0, 1.02], [1.0, 0.01, 0.01])[0] == pytest.approx(1 / 3, abs=0.02)


def test_the_worse_of_two_keeps_a_fifth() -> None:
    for gap in (0.1, 1.0, 1e6):
        assert weigh([1.0, 1.0 + gap], 1e-3)[1] == pytest.approx(0.206, abs=0.001)


def test_an_unknown_error_of_the_best_lets_nobody_win() -> None:
    assert weigh([1.0, 5.0, 9.0], [math.inf, 0.1, 0.1]) == [1 / 3] * 3
    assert weigh([1.0, 5.0], math.inf) == [0.5, 0.5]
    # A newcomer without a history takes nothing from the others' distinctions.
    known, with_newcomer = weigh([1, 5, 9], 0.1), weigh([1, 5, 9, 9.1], [0.1, 0.1, 0.1, math.inf])
    assert known[0] / known[1] == pytest.approx(with_newcomer[0] / with_newcomer[1], rel=0.5)


def test_the_scale_and_the_zero_of_losses_mean_nothing() -> None:
    losses, errors = [0.3, 0.5, 0.9, 0.4], [0.1, 0.05, 0.08, 0.2]
    wanted = weigh(losses, errors)
    for scale, shift in itertools.product([1e-6, 1.0, 1e4], [-3.0, 0.0]):
        got = weigh([scale * (each + shift) for each in losses], [scale * each for each in errors])
        assert got == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("losses", "temperature", "wanted"),
    [
        ([2.0], 1.0, [1.0]),
        ([2.0, 2.0], 1e-9, [0.5, 0.5]),
        ([1.0, 2.0, 1.5], 1e-9, [1.0, 0.0, 0.0]),
        ([1.0, 2.0, 1.5], 1e9, [1 / 3] * 3),
        ([0.0, 1e300, 1e300, 1e300], 1.0, [1.0, 0.0, 0.0, 0.0]),
        ([0.0, 5e-324], 1.0, [0.794, 0.206]),
    ],
)
def test_extremes(losses: list[float], temperature: float, wanted: list[float]) -> None:
    assert weigh(losses, temperature=temperature) == pytest.approx(wanted, abs=1e-3)
