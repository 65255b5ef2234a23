"""PSO-PS: checks D1 to D8 of the algorithms' reference, and what a particle without a loss does."""

import itertools
import math
import random
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from swarm_api.algorithm import Attractor, Draws, Memory
from swarm_trainer.algorithms import PSOPS, Contribution, Fitness, LocalSGD, Message, Round, State
from swarm_trainer.errors import NoFitnessError
from unit.algorithms.driver import Measure, Swarm, close, contribution, over_the_wire, quadratic, randn

TEXTBOOK: dict[str, Any] = {"inertia": 0.7298, "cognitive": 1.49618, "social": 1.49618, "memory": Memory.BEST_EVER}


class Drawn(PSOPS):
    """Draws these factors, the social one first, again and again."""

    given: tuple[float, ...] = (1.0,)
    _next = 0

    def _uniform(self, generator: torch.Generator, x: torch.Tensor) -> float:
        self._next += 1
        return self.given[(self._next - 1) % len(self.given)]


def lottery(index: int, x: torch.Tensor) -> Fitness:
    """A loss that is fixed by index alone: 2, 1, 0, 3, 2, ..."""
    return Fitness(float((2 + 4 * index) % 5))


def sphere(index: int, x: torch.Tensor) -> Fitness:
    return Fitness(float(x.square().sum()))


def rastrigin(index: int, x: torch.Tensor) -> Fitness:
    return Fitness(float((x.square() - 10 * torch.cos(2 * math.pi * x) + 10).sum()))


def test_without_any_pull_particles_are_alone() -> None:
    """D1."""
    starts = randn(4, 3)
    swarm = Swarm(PSOPS(social=0.0), list(starts), quadratic(0.5), lr=0.1, fitness=lottery)
    for _ in range(20):
        swarm.step()
    close(swarm.x(), 0.95**20 * starts)


def test_a_full_pull_to_the_best_copies_it() -> None:
    """D2."""
    starts = randn(4, 3)
    swarm = Swarm(Drawn(attractor=Attractor.GLOBAL_BEST), list(starts), fitness=lottery)
    swarm.step()
    close(swarm.x(), starts[2].expand(4, 3))


def test_with_equal_losses_a_full_pull_to_the_softmax_mean_is_local_sgd() -> None:
    """D2."""
    swarms = [
        Swarm(each, list(randn(4, 3)), quadratic([0.5, 1, 2, 3], [1, -1, 3, 0])) for each in (Drawn(), LocalSGD())
    ]
    for _ in range(10):
        for swarm in swarms:
            swarm.step()
    close(swarms[0].x(), swarms[1].x())
    close(swarms[0].c, swarms[1].c)


def test_a_cold_softmax_is_the_global_best() -> None:
    """D2."""
    starts = randn(4, 3)
    swarm = Swarm(PSOPS(temperature=1e-6), list(starts), fitness=lottery)
    swarm.step()
    close(swarm.c, starts[2])


def one_move(inertia: float, pull: float, draws: tuple[float, float], shrink: float = 1.0) -> torch.Tensor:
    """Matrix of one move on (x, v), both attractors at 0, after SGD has multiplied x by `shrink`."""
    algorithm = Drawn(inertia=inertia, cognitive=pull, social=pull, memory=Memory.BEST_EVER)
    algorithm.given = draws
    x, velocity = torch.eye(2, dtype=torch.float64)
    state: State = {"velocity": velocity, "best": torch.zeros_like(x), "best_loss": 0.0}
    x = x * shrink
    algorithm.pull(state, x, Message({"x": torch.zeros_like(x)}, {"draw": 0.0}), 0.1)
    moved = state["velocity"]
    assert isinstance(moved, torch.Tensor)
    return torch.stack([x, moved])


def mean_of_moves(inertia: float, pull: float, shrink: float = 1.0, *, squared: bool = False) -> float:
    """Spectral radius of E[M], or of E[M (x) M], exactly: three Gauss-Legendre nodes integrate both draws."""
    nodes = [(0.5 + s * math.sqrt(0.15), w / 18) for s, w in ((-1, 5), (0, 8), (1, 5))]
    total: torch.Tensor | float = 0.0
    for (r1, w1), (r2, w2) in itertools.product(nodes, nodes):
        matrix = one_move(inertia, pull, (r1, r2), shrink)
        total = total + w1 * w2 * (torch.kron(matrix, matrix) if squared else matrix)
    assert isinstance(total, torch.Tensor)
    return float(torch.linalg.eigvals(total).abs().max())


@pytest.mark.parametrize(("inertia", "pull", "radius"), [(0.7298, 1.49618, 0.944), (0.9, 2, 1.294), (0.4, 2, 0.981)])
def test_known_coefficients_have_the_variance_of_the_theory(inertia: float, pull: float, radius: float) -> None:
    """D3."""
    assert mean_of_moves(inertia, pull, squared=True) == pytest.approx(radius, abs=1e-3)


def test_moves_are_stable_exactly_where_the_theory_says() -> None:
    """D3, without and with SGD between the moves."""
    rng = random.Random(3)
    seen = set()
    for _ in range(60):
        inertia, pull, shrink = rng.uniform(0.01, 0.99), rng.uniform(0.01, 5), rng.uniform(0.05, 1)
        bounds = {
            (1.0, True): 24 * (1 - inertia**2) / (7 - 5 * inertia) / 2,
            (1.0, False): 2 * (1 + inertia),
            (shrink, False): (1 + inertia) * (1 + shrink) / shrink,
        }
        for (by, squared), bound in bounds.items():
            size = mean_of_moves(inertia, pull, by, squared=squared)
            if abs(size - 1) > 1e-6:
                assert (size < 1) == (pull < bound)
                seen.add((squared, by == 1, size < 1))
    assert len(seen) == 6


@pytest.mark.parametrize("attractor", Attractor)
@pytest.mark.parametrize("draws", Draws)
def test_scalar_draws_know_no_coordinates(attractor: Attractor, draws: Draws) -> None:
    """D4: the swarm may be rotated and shifted; with a draw for each dimension it may not."""
    rotation, shift = torch.linalg.qr(randn(6, 6, seed=1)).Q, randn(6, seed=2)
    losses = randn(9, 4, seed=4).tolist()

    def run(starts: torch.Tensor) -> torch.Tensor:
        measure: Measure = lambda index, x: Fitness(losses[swarm.rounds - 1][index])  # noqa: E731
        swarm = Swarm(PSOPS(**TEXTBOOK, attractor=attractor, draws=draws), list(starts), fitness=measure)
        for _ in range(8):
            swarm.step()
        return swarm.x()

    starts = randn(4, 6)
    here, there = run(starts) @ rotation + shift, run(starts @ rotation + shift)
    assert torch.allclose(here, there, rtol=0, atol=1e-10) == (draws is Draws.SCALAR)


class Renamed(PSOPS):
    """Particle i has the draws that particle `was[i]` had."""

    was: Mapping[int, int]

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        replies = super().merge(center, contributions, round_)
        return {i: Message(reply.tensors, {"draw": round_.draw(self.was[i])}) for i, reply in replies.items()}


@pytest.mark.parametrize(
    ("attractor", "was"),
    [
        (Attractor.GLOBAL_BEST, [3, 1, 0, 4, 2]),
        (Attractor.SOFTMAX, [3, 1, 0, 4, 2]),
        pytest.param(Attractor.RING, [2, 3, 4, 0, 1], id="Ring-turned"),
    ],
)
def test_indices_are_only_names(attractor: Attractor, was: list[int]) -> None:
    """D5."""
    algorithm = Renamed(**TEXTBOOK, attractor=attractor)
    algorithm.was = dict(enumerate(was))
    starts = randn(5, 4)
    plain = Swarm(PSOPS(**TEXTBOOK, attractor=attractor), list(starts), fitness=rastrigin)
    renamed = Swarm(algorithm, list(starts[was]), fitness=rastrigin)
    for _ in range(10):
        plain.step()
        renamed.step()
    close(renamed.x(), plain.x()[was])


@pytest.mark.parametrize("attractor", Attractor)
def test_scalar_draws_stay_in_the_span_of_the_starts(attractor: Attractor) -> None:
    """D6: three particles in six dimensions stay on a plane."""
    starts = randn(3, 6)
    swarm = Swarm(PSOPS(**TEXTBOOK, attractor=attractor), list(starts), fitness=rastrigin)
    basis = torch.linalg.qr((starts[1:] - starts[0]).T).Q
    for _ in range(15):
        swarm.step()
        offset = swarm.x() - starts[0]
        close(offset @ basis @ basis.T, offset)
    assert float((swarm.x() - starts).abs().max()) > 0.1


@pytest.mark.parametrize("attractor", Attractor)
def test_no_best_ever_gets_worse_and_no_move_exceeds_the_limit(attractor: Attractor) -> None:
    """D7."""
    swarm = Swarm(PSOPS(**TEXTBOOK, attractor=attractor, max_velocity=0.3), list(randn(6, 4) * 3), fitness=rastrigin)
    bests = [math.inf] * 7
    limited = False
    for _ in range(60):
        before = swarm.x()
        swarm.step()
        move = float((swarm.x() - before).abs().max())
        assert move <= 0.3 + 1e-12
        limited |= move > 0.3 - 1e-12
        now = [float(each["best_loss"]) for each in (swarm.center, *(p.state for p in swarm.particles.values()))]
        assert all(a <= b for a, b in zip(now, bests, strict=True))
        assert now[0] == min(now[1:])
        assert rastrigin(0, swarm.c).mean == now[0]
        bests = now
    assert limited


def test_at_its_own_and_the_global_best_a_particle_only_coasts() -> None:
    """D7."""
    algorithm = PSOPS(**TEXTBOOK, attractor=Attractor.GLOBAL_BEST)
    x, velocity = randn(4), randn(4, seed=1)
    state: State = {"velocity": velocity.clone(), "best": x.clone(), "best_loss": 0.0}
    before = x.clone()
    algorithm.pull(state, x, Message({"x": x.clone()}, {"draw": 5.0}), 0.1)
    close(x, before + 0.7298 * velocity)


def test_the_best_outlives_its_owner_only_with_memory() -> None:
    """D7."""
    starts = randn(4, 3)
    for memory, winner in ((Memory.BEST_EVER, 2), (Memory.NONE, 1)):
        algorithm = PSOPS(social=0.0, attractor=Attractor.GLOBAL_BEST, memory=memory)
        swarm = Swarm(algorithm, list(starts), fitness=lottery)
        swarm.step()
        assert torch.equal(swarm.c, starts[2])
        swarm.leave(2)
        swarm.step()
        assert torch.equal(swarm.c, starts[winner])
        assert torch.equal(swarm.replies[0].tensors["x"], starts[winner])
        assert torch.equal(torch.as_tensor(swarm.center["best"]), starts[2])
        assert swarm.center["best_loss"] == 0


def search(measure: Measure, dimensions: int, attractor: Attractor, seed: int, bar: float) -> float:
    """Best loss of 30 particles after 1000 moves, or the first below the bar: it never rises."""
    starts = (
        torch.rand(30, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    ) * 10.24
    algorithm = PSOPS(**TEXTBOOK, attractor=attractor, draws=Draws.PER_DIMENSION, max_velocity=5.12)
    swarm = Swarm(algorithm, list(starts), fitness=measure, seed=seed)
    for _ in range(1000):
        swarm.exchange(range(30))
        if float(swarm.center["best_loss"]) < bar:
            break
    return float(swarm.center["best_loss"])


@pytest.mark.parametrize(
    ("measure", "dimensions", "attractor", "bar", "seeds"),
    [
        pytest.param(sphere, 10, Attractor.GLOBAL_BEST, 1e-20, 1, id="sphere-10-global-best"),
        pytest.param(sphere, 10, Attractor.RING, 1e-12, 1, id="sphere-10-ring"),
        pytest.param(rastrigin, 2, Attractor.GLOBAL_BEST, 1e-8, 3, id="rastrigin-2"),
        pytest.param(rastrigin, 10, Attractor.GLOBAL_BEST, 15, 5, id="rastrigin-10-global-best"),
        pytest.param(rastrigin, 10, Attractor.RING, 15, 3, id="rastrigin-10-ring"),
    ],
)
def test_it_minimises_standard_functions(
    measure: Measure, dimensions: int, attractor: Attractor, bar: float, seeds: int
) -> None:
    """D8."""
    assert statistics.median(search(measure, dimensions, attractor, seed, bar) for seed in range(seeds)) < bar


def test_ring_neighbours_are_those_present_in_the_order_of_their_indices() -> None:
    losses = {2: 5.0, 3: 1.0, 5: 4.0, 8: 3.0, 13: 2.0}
    xs = {index: randn(3, seed=index) for index in losses}
    algorithm = PSOPS(attractor=Attractor.RING)
    center = algorithm.center_state(xs[2])
    replies = algorithm.merge(center, {i: contribution(xs[i], losses[i]) for i in losses}, Round(1, 0, 5))
    followed = {i: next(j for j in xs if torch.equal(reply.tensors["x"], xs[j])) for i, reply in replies.items()}
    assert followed == {2: 3, 3: 3, 5: 3, 8: 13, 13: 13}
    everyone = PSOPS(attractor=Attractor.RING, neighbors=9)
    replies = everyone.merge(center, {i: contribution(xs[i], losses[i]) for i in losses}, Round(1, 0, 5))
    assert all(torch.equal(reply.tensors["x"], xs[3]) for reply in replies.values())


@pytest.mark.parametrize("attractor", Attractor)
@pytest.mark.parametrize("memory", Memory)
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_particle_without_a_finite_loss_is_followed_by_nobody(
    attractor: Attractor, memory: Memory, loss: float
) -> None:
    def measure(index: int, x: torch.Tensor) -> Fitness:
        return Fitness(loss, loss) if index == 1 else lottery(index, x)

    starts = {index: randn(3, seed=index) for index in range(6)}
    starts[1] = torch.full((3,), 1e30, dtype=torch.float64)
    swarm = Swarm(Drawn(attractor=attractor, memory=memory, neighbors=2), starts, fitness=measure)
    swarm.step()
    assert float(swarm.x().abs().max()) < 10
    assert float(swarm.c.abs().max()) < 10
    assert swarm.center["best_loss"] == 0


def test_a_neighbourhood_without_losses_follows_the_best_of_all() -> None:
    xs = list(randn(7, 3))
    losses = [math.nan, math.nan, math.nan, 3.0, 2.0, 3.0, math.nan]
    algorithm = PSOPS(attractor=Attractor.RING)
    round_ = {i: contribution(x, loss) for i, (x, loss) in enumerate(zip(xs, losses, strict=True))}
    replies = algorithm.merge(algorithm.center_state(xs[0]), round_, Round(1, 0, 7))
    assert torch.equal(replies[1].tensors["x"], xs[4])


@pytest.mark.parametrize("memory", Memory)
def test_without_any_loss_the_error_names_the_line_to_add(memory: Memory) -> None:
    swarm = Swarm(PSOPS(memory=memory), list(randn(3, 4)), fitness=lambda index, x: Fitness(math.nan))
    before = swarm.saved()["center"]
    with pytest.raises(NoFitnessError, match=r"`particle\.report\(loss=loss\)`"):
        swarm.step()
    assert torch.equal(swarm.c, before["x"])
    assert swarm.center.keys() == before.keys()


def test_a_push_that_is_not_merged_changes_no_best() -> None:
    algorithm = PSOPS(**TEXTBOOK)
    x = randn(3)
    state = algorithm.particle_state(x)
    for loss in (2.0, 1.0):
        message = algorithm.push(state, x, Fitness(loss))
        algorithm.refused(state, x, message)
    assert "best" not in state
    algorithm.push(state, x, Fitness(3.0))
    algorithm.pull(state, x, over_the_wire(Message({"x": x}, {"draw": 1.0})), 0.1)
    assert state["best_loss"] == 3.0


def test_a_remembered_best_stands_for_its_particle_until_it_loses_its_loss() -> None:
    """Without a loss x itself is pushed, so that weights that are not finite cannot hide behind an old best."""
    algorithm = PSOPS(**TEXTBOOK)
    x = randn(3)
    state = algorithm.particle_state(x)
    algorithm.push(state, x, Fitness(1.0, 0.1))
    algorithm.pull(state, x, Message({"x": x + 1}, {"draw": 1.0}), 0.1)
    best = state["best"]
    assert isinstance(best, torch.Tensor)
    worse = algorithm.push(state, x, Fitness(2.0, 0.5))
    assert torch.equal(worse.tensors["x"], best)
    assert worse.numbers == {"loss": 1.0, "standard_error": 0.1}
    lost = algorithm.push(state, x, Fitness(math.nan))
    assert torch.equal(lost.tensors["x"], x)
    assert not lost.numbers
    algorithm.pull(state, x, Message({"x": x + 1}, {"draw": 1.0}), 0.1)
    assert state["best_loss"] == 1.0


@pytest.mark.parametrize("draws", Draws)
def test_draws_depend_on_seed_round_and_index_and_on_nothing_else(draws: Draws) -> None:
    def run(seed: int, users: int) -> torch.Tensor:
        torch.manual_seed(users)
        swarm = Swarm(PSOPS(**TEXTBOOK, draws=draws), list(randn(4, 5)), quadratic(0.3), fitness=sphere, seed=seed)
        untouched = torch.get_rng_state()
        for _ in range(5):
            swarm.step()
        assert torch.equal(torch.get_rng_state(), untouched)
        return swarm.x()

    assert torch.equal(run(seed=1, users=1), run(seed=1, users=2))
    assert not torch.equal(run(seed=1, users=1), run(seed=2, users=1))
    drawn = {Round(number, seed, 4).draw(index) for number in range(5) for seed in range(5) for index in range(5)}
    assert len(drawn) == 125
    assert all(value == int(value) and 0 <= value < 2**53 for value in drawn)
    assert statistics.fmean(drawn) / 2**53 == pytest.approx(0.5, abs=0.1)
