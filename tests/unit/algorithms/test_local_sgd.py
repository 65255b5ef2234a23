"""LocalSGD: checks A1 to A4 of the algorithms' reference."""

from typing import Any

import pytest
import torch

from swarm_trainer.algorithms import LocalSGD, Round
from unit.algorithms.driver import Swarm, close, contribution, f64, quadratic, randn

H = [0.5, 1.0, 2.0]
OPTIMA = [1.0, -1.0, 3.0]


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param({}, id="A1-plain"),
        pytest.param({"momentum": 0.9}, id="A2-momentum"),
        pytest.param({"momentum": 0.9, "nesterov": True}, id="A2-nesterov"),
    ],
)
def test_averaging_after_every_step_is_sgd_on_the_mean_gradient(optimizer: dict[str, Any]) -> None:
    start = randn(5)
    gradient = quadratic(H, OPTIMA)
    swarm = Swarm(LocalSGD(), [start] * 3, gradient, lr=0.1, **optimizer)
    alone = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([alone], lr=0.1, **optimizer)
    for _ in range(50):
        swarm.step()
        alone.grad = torch.stack([gradient(index, alone.detach()) for index in range(3)]).mean(0)
        sgd.step()
        close(swarm.c, alone.detach())
        close(swarm.x(), alone.detach().expand(3, 5))


def test_equal_particles_contract_by_rho_to_the_tau_in_each_round() -> None:
    """A3."""
    swarm = Swarm(LocalSGD(), [randn(4)] * 3, quadratic(0.7), lr=0.2, period=6)
    for _ in range(5):
        before = swarm.c
        for _ in range(6):
            swarm.step()
        close(swarm.c, (1 - 0.2 * 0.7) ** 6 * before)


@pytest.mark.parametrize(("period", "fixed_point"), [(7, 1.33289), (1, 11 / 7)])
def test_different_particles_settle_where_the_theory_says(period: int, fixed_point: float) -> None:
    """A4: the minimiser of the sum only with tau = 1."""
    swarm = Swarm(LocalSGD(), [f64(0.0)] * 3, quadratic(H, OPTIMA), lr=0.1, period=period)
    for _ in range(300 // period * period):
        swarm.step()
    weights = [1 - (1 - 0.1 * h) ** period for h in H]
    close(swarm.c, f64(sum(w * x for w, x in zip(weights, OPTIMA, strict=True)) / sum(weights)))
    assert float(swarm.c) == pytest.approx(fixed_point, abs=1e-5)


def test_only_those_present_are_averaged() -> None:
    swarm = Swarm(LocalSGD(), list(randn(4, 3)))
    swarm.leave(1)
    wanted = swarm.x().mean(0)
    swarm.step()
    close(swarm.c, wanted)
    swarm.join(7)
    assert torch.equal(swarm.particles[7].x, swarm.c)


def test_single_precision_loses_nothing_to_the_order_of_adding() -> None:
    xs = randn(16, 1000).float() + 100
    algorithm = LocalSGD()
    center = algorithm.center_state(xs[0])
    algorithm.merge(center, {index: contribution(x) for index, x in enumerate(xs)}, Round(1, 0, 16))
    mean = center["x"]
    assert isinstance(mean, torch.Tensor)
    assert mean.dtype is torch.float32
    torch.testing.assert_close(mean.double(), xs.double().mean(0), rtol=5e-7, atol=0)
