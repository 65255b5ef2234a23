"""EASGD: checks B1 to B8, B11, B12 and B15 of the algorithms' reference."""

import cmath
import math
import random
from collections.abc import Mapping

import pytest
import torch

from swarm_api.algorithm import ExchangeMode
from swarm_trainer.algorithms import EASGD, Contribution, Message, Round, State
from unit.algorithms.driver import Swarm, close, contribution, f64, over_the_wire, quadratic, randn

SYNC, ASYNC = ExchangeMode.SYNCHRONOUS, ExchangeMode.ASYNCHRONOUS


def linear_map(particles: int, beta: float, lr: float, *, period: int = 1, mode: ExchangeMode = SYNC) -> torch.Tensor:
    """What `period` steps on x^2/2 do to (x_1 .. x_p, center): coordinate k starts at unit vector k."""
    unit = torch.eye(particles + 1, dtype=torch.float64)
    swarm = Swarm(EASGD(beta=beta, mode=mode), list(unit[:-1]), quadratic(), lr=lr, period=period, center=unit[-1])
    for _ in range(period):
        swarm.step()
    return torch.cat([swarm.x(), swarm.c[None]])


def radius(matrix: torch.Tensor) -> float:
    return float(torch.linalg.eigvals(matrix).abs().max())


def roots(particles: int, beta: float, lr: float) -> tuple[complex, complex]:
    """gamma and phi of B1."""
    alpha = beta / particles
    a, c2 = lr + (particles + 1) * alpha, lr * particles * alpha
    width = cmath.sqrt(a * a - 4 * c2)
    return 1 - (a - width) / 2, 1 - (a + width) / 2


@pytest.mark.parametrize(("particles", "beta", "lr"), [(1, 0.9, 0.1), (2, 0.5, 1.2), (4, 0.9, 0.1), (7, 0.2, 0.01)])
def test_the_update_map_has_the_eigenvalues_of_the_theory(particles: int, beta: float, lr: float) -> None:
    """B1."""
    got = torch.linalg.eigvals(linear_map(particles, beta, lr)).tolist()
    for wanted in [1 - lr - beta / particles] * (particles - 1) + list(roots(particles, beta, lr)):
        nearest = min(got, key=lambda value: abs(value - wanted))
        # Repeated eigenvalues of a matrix that is not symmetric come out with half the digits.
        assert abs(nearest - wanted) < 1e-7
        got.remove(nearest)


def test_it_is_stable_exactly_where_the_theory_says() -> None:
    """B1."""
    rng = random.Random(1)
    seen = set()
    for _ in range(150):
        particles, lr, beta = rng.randint(2, 8), rng.uniform(0.01, 2.4), rng.uniform(0.01, 2.0)
        stable = lr < 2 and beta < (4 - 2 * lr) / (2 * (1 + 1 / particles) - lr)
        size = radius(linear_map(particles, beta, lr))
        if abs(size - 1) > 1e-6:
            assert (size < 1) == stable
            seen.add(stable)
    assert seen == {True, False}


@pytest.mark.parametrize(("particles", "beta", "lr"), [(1, 0.9, 0.1), (4, 0.9, 0.1), (5, 0.3, 0.6)])
def test_the_mean_of_the_center_follows_the_closed_form(particles: int, beta: float, lr: float) -> None:
    """B2."""
    alpha = beta / particles
    gamma, phi = roots(particles, beta, lr)
    starts, center = randn(particles, 1, seed=3), f64(0.7)
    swarm = Swarm(EASGD(beta=beta), list(starts), quadratic(), lr=lr, center=center)
    u0 = sum(float(x) - alpha / (1 - beta - phi) * 0.7 for x in starts)
    for t in range(1, 40):
        swarm.step()
        wanted = gamma**t * 0.7 + (gamma**t - phi**t) / (gamma - phi) * alpha * u0
        assert abs(wanted.imag) < 1e-12
        close(swarm.c, f64(wanted.real))


def test_the_variance_of_the_center_follows_the_closed_form() -> None:
    """B3: no sampling; the covariance goes through the production map."""
    limits = {1: 0.0325776, 4: 0.0104558, 16: 0.0030432, 64: 0.00079412}
    lr, beta = 0.1, 0.9
    for p, limit in limits.items():
        gamma, phi = (root.real for root in roots(p, beta, lr))
        matrix = linear_map(p, beta, lr)
        noise = lr * lr * torch.diag(torch.tensor([1.0] * p + [0.0], dtype=torch.float64))
        covariance = torch.zeros_like(matrix)
        for t in range(1, 400):
            covariance = matrix @ covariance @ matrix.T + noise
            if t in (1, 2, 3, 10, 50, 399):
                bracket = (
                    (gamma**2 - gamma ** (2 * t)) / (1 - gamma**2)
                    + (phi**2 - phi ** (2 * t)) / (1 - phi**2)
                    - 2 * (gamma * phi - (gamma * phi) ** t) / (1 - gamma * phi)
                )
                close(covariance[-1, -1], f64(beta**2 * lr**2 / (gamma - phi) ** 2 * bracket / p)[0])
        assert float(covariance[-1, -1]) == pytest.approx(limit, rel=1e-4)


@pytest.mark.parametrize("mode", [SYNC, ASYNC])
@pytest.mark.parametrize("period", [1, 3])
def test_springs_conserve_the_sum_whoever_takes_part(mode: ExchangeMode, period: int) -> None:
    """B4."""
    rng = random.Random(2)
    applied = torch.zeros(6, dtype=torch.float64)

    def gradient(index: int, x: torch.Tensor) -> torch.Tensor:
        drawn = randn(6, seed=rng.getrandbits(32)) + torch.sin(x) * index
        applied.add_(drawn)
        return drawn

    swarm = Swarm(EASGD(mode=mode), list(randn(5, 6)), gradient, lr=0.2, period=period, center=randn(6, seed=9))
    total = swarm.x().sum(0) + swarm.c
    for _ in range(60):
        swarm.step(rng.sample(range(5), rng.randint(1, 5)))
        close(swarm.x().sum(0) + swarm.c, total - 0.2 * applied)


def test_without_springs_particles_are_alone_and_the_center_is_frozen() -> None:
    """B5."""
    starts, center = randn(3, 4), randn(4, seed=5)
    swarm = Swarm(EASGD(beta=0.0), list(starts), quadratic(0.5), lr=0.1, center=center)
    for _ in range(20):
        swarm.step()
    assert torch.equal(swarm.c, center)
    close(swarm.x(), 0.95**20 * starts)


def test_the_center_becomes_the_mean_at_beta_one_and_the_sum_of_moves_at_beta_p() -> None:
    """B6: parameter averaging and synchronous DOWNPOUR, as seen from the center."""
    starts, center = randn(4, 3), randn(3, seed=5)
    for beta, wanted in [(1.0, starts.mean(0)), (4.0, center + (starts - center).sum(0))]:
        swarm = Swarm(EASGD(beta=beta), list(starts), center=center)
        swarm.step()
        close(swarm.c, wanted)


def test_one_particle_at_beta_one_swaps_places_with_the_center() -> None:
    """B6: both move by values from before the step, so averaging comes one step late."""
    start, center = randn(3), randn(3, seed=5)
    swarm = Swarm(EASGD(beta=1.0), [start], quadratic(), lr=0.1, center=center)
    swarm.step()
    close(swarm.c, start)
    close(swarm.x()[0], center - 0.1 * start)


class Repelled(EASGD):
    """beta = 1 for the center, alpha = -delta for the particle."""

    delta = 0.8

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        replies = super().merge(center, contributions, round_)
        return {index: Message(reply.tensors, {"alpha": -self.delta}) for index, reply in replies.items()}


def test_a_negative_rate_is_momentum() -> None:
    """B7: heavy ball, on a loss that is not quadratic."""
    start = randn(5)
    swarm = Swarm(Repelled(beta=1.0), [start], lambda index, x: torch.sin(3 * x) + x**3, lr=0.05)
    ball = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([ball], lr=0.05, momentum=Repelled.delta)
    for _ in range(80):
        ball.grad = torch.sin(3 * ball.detach()) + ball.detach() ** 3
        sgd.step()
        swarm.step()
        close(swarm.x()[0], ball.detach())


@pytest.mark.parametrize("seed", range(6))
def test_no_order_of_asynchronous_steps_makes_the_swarm_longer(seed: int) -> None:
    """B8."""
    rng = random.Random(seed)
    particles, lr, period = rng.randint(1, 5), rng.uniform(0, 2), rng.choice([1, 2, 5])
    alpha = rng.uniform(0, (4 - 2 * lr) / (4 - lr))
    algorithm = EASGD(beta=alpha * particles, mode=ASYNC)
    starts = list(randn(particles, 3, seed=seed))
    swarm = Swarm(algorithm, starts, quadratic(), lr=lr, period=period, center=randn(3, seed=seed + 50))
    length = math.inf
    for _ in range(100):
        now = float(swarm.x().square().sum() + swarm.c.square().sum())
        assert now <= length * (1 + 1e-12)
        length = now
        swarm.step([rng.randrange(particles)])


def test_above_that_bound_a_single_map_grows() -> None:
    """B8."""
    rng = random.Random(7)
    for _ in range(50):
        lr = rng.uniform(0, 1.99)
        bound = (4 - 2 * lr) / (4 - lr)
        assert radius(linear_map(1, bound * rng.uniform(1.01, 1.5), lr, mode=ASYNC)) > 1


@pytest.mark.parametrize("period", [1, 4])
def test_alone_both_modes_are_the_same(period: int) -> None:
    """B11."""
    start, center = randn(5), randn(5, seed=5)
    together, alone = (
        Swarm(EASGD(beta=0.6, mode=mode), [start], quadratic(0.8), period=period, center=center)
        for mode in (SYNC, ASYNC)
    )
    for _ in range(20):
        together.step()
        alone.step()
    assert torch.equal(together.x(), alone.x())
    assert torch.equal(together.c, alone.c)


@pytest.mark.parametrize(("particles", "beta", "lr", "period"), [(1, 0.9, 0.3, 2), (4, 0.9, 0.1, 7), (3, 0.4, 0.7, 1)])
def test_the_gradient_is_taken_before_the_pull(particles: int, beta: float, lr: float, period: int) -> None:
    """B12: the round's matrix on (mean of particles, center); pulling first would give another one."""
    rho, alpha = 1 - lr, beta / particles
    matrix = linear_map(particles, beta, lr, period=period)
    mean_of_particles = matrix[:-1].mean(0)
    got = [
        [mean_of_particles[:-1].sum(), mean_of_particles[-1]],
        [matrix[-1, :-1].sum(), matrix[-1, -1]],
    ]
    wanted = [[rho ** (period - 1) * (1 - lr - alpha), rho ** (period - 1) * alpha], [beta, 1 - beta]]
    close(torch.tensor(got), torch.tensor(wanted, dtype=torch.float64))


def test_a_newcomer_exerts_no_force_and_a_loss_changes_alpha_alone() -> None:
    """B15."""
    for mode in (SYNC, ASYNC):
        swarm = Swarm(EASGD(mode=mode), list(randn(3, 4)), quadratic(), center=randn(4, seed=5))
        swarm.join(3)
        before, old = swarm.c, swarm.x()[:3]
        if mode is ASYNC:
            swarm.exchange([3])
            assert torch.equal(swarm.c, before)
        else:
            swarm.step()
            close(swarm.c, before + 0.9 / 4 * (old - before).sum(0))
        swarm.leave(1)
        before = swarm.c
        swarm.step()
        assert {reply.numbers["alpha"] for reply in swarm.replies.values()} == {0.9 / 3}


def test_alpha_counts_those_present_and_when_each_is_alone_all_members() -> None:
    starts, center = randn(4, 3), randn(3, seed=5)
    swarm = Swarm(EASGD(mode=SYNC), list(starts), center=center)
    swarm.step([0, 2])
    close(swarm.c, 0.1 * center + 0.9 * starts[[0, 2]].mean(0))
    swarm = Swarm(EASGD(mode=ASYNC), list(starts), center=center)
    swarm.step([2])
    close(swarm.c, center + 0.9 / 4 * (starts[2] - center))
    assert torch.equal(swarm.replies[2].tensors["x"], center)


def test_weight_decay_acts_before_the_pull_as_the_gradient_does() -> None:
    starts = list(randn(3, 4))
    decayed = Swarm(EASGD(), starts, quadratic(0.5), weight_decay=0.3)
    regularised = Swarm(EASGD(), starts, quadratic(0.8))
    for _ in range(10):
        decayed.step()
        regularised.step()
    close(decayed.x(), regularised.x())


def test_springs_of_late_replies_add_up() -> None:
    """A reply that came when its step was over must not be forgotten for the next one."""
    algorithm = EASGD(beta=0.5)
    x, center = randn(4), algorithm.center_state(randn(4, seed=5))
    total = x + center["x"]
    state = algorithm.particle_state(x)
    for number in (1, 2):
        reply = algorithm.merge(center, {0: contribution(x.clone())}, Round(number, 0, 1))[0]
        algorithm.pull(state, x, over_the_wire(reply), 0.1)
    algorithm.after_step(state, x, None, 0.1)
    close(x + center["x"], total)
    assert state == {}


def test_float32_springs_pull_both_ends_alike() -> None:
    swarm = Swarm(EASGD(), list((randn(4, 100) * 10).float()), center=torch.zeros(100))
    total = (swarm.x().sum(0) + swarm.c).double()
    for _ in range(50):
        swarm.step()
    close((swarm.x().sum(0) + swarm.c).double(), total, tolerance=1e-4)
    assert swarm.c.dtype is torch.float32
