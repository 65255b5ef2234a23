"""The mean loss of a period and how sure it is."""

import math
import random
import statistics

import pytest
import torch

from swarm_trainer.fitness import FitnessMeter


def period(meter: FitnessMeter, losses: list[float]) -> tuple[float, float]:
    for loss in losses:
        meter.add(torch.tensor(loss))
    fitness = meter.take()
    return fitness.mean, fitness.standard_error


def test_a_period_gives_mean_and_standard_error_and_begins_anew() -> None:
    meter = FitnessMeter()
    assert period(meter, [1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, statistics.stdev([1, 2, 3, 6]) / 2))
    assert period(meter, [5.0, 5.0])[0] == 5.0


def test_without_losses_there_is_no_fitness() -> None:
    fitness = FitnessMeter().take()
    assert math.isnan(fitness.mean)
    assert fitness.standard_error == math.inf


@pytest.mark.parametrize("count", [1, 2, 10, 200])
def test_the_standard_error_is_honest_for_any_period(count: int) -> None:
    """Of 300 periods' means around a falling trend; a period of one included."""
    rng = random.Random(count)
    meter = FitnessMeter()
    errors, misses = [], []
    for number in range(300):
        truth = 2 + math.exp(-number / 100)
        mean, error = period(meter, [rng.gauss(truth, 0.5) for _ in range(count)])
        if number >= 20:
            errors.append(error)
            misses.append(mean - truth)
    assert statistics.fmean(errors) == pytest.approx(0.5 / math.sqrt(count), rel=0.1)
    assert statistics.pstdev([m / e for m, e in zip(misses, errors, strict=True)]) == pytest.approx(1, abs=0.15)


def test_one_loss_alone_is_not_certain() -> None:
    meter = FitnessMeter()
    assert period(meter, [1.0]) == (1.0, math.inf)
    assert period(meter, [1.5]) == pytest.approx((1.5, 0.5 / math.sqrt(2)))


def test_the_variance_follows_a_change() -> None:
    rng = random.Random(0)
    meter = FitnessMeter()
    for sigma in (1.0, 0.01):
        for _ in range(200):
            error = period(meter, [rng.gauss(0, sigma) for _ in range(4)])[1]
        assert error == pytest.approx(sigma / 2, rel=0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_spoils_its_own_period_alone(bad: float) -> None:
    meter = FitnessMeter()
    period(meter, [1.0, 2.0])
    mean, error = period(meter, [1.0, bad, 2.0])
    assert not math.isfinite(mean)
    assert error == math.inf
    assert period(meter, [1.0, 2.0]) == pytest.approx((1.5, 0.5))


def test_a_loss_is_copied_and_lets_its_graph_go() -> None:
    meter = FitnessMeter()
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    loss = (weight * 2).sum()
    meter.add(loss)
    with torch.no_grad():
        loss.fill_(100.0)
    meter.add(torch.tensor(4, dtype=torch.bfloat16))
    meter.add(2.0)
    assert meter.take().mean == 4.0


def test_adding_never_reads_the_loss() -> None:
    """A tensor without data would raise."""
    meter = FitnessMeter()
    for _ in range(3):
        meter.add(torch.empty((1,), device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        meter.take()


def test_a_loss_that_is_no_single_number_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"shape \(32,\).*loss\.mean\(\)"):
        FitnessMeter().add(torch.ones(32))
