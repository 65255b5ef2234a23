"""What every algorithm's center treats alike."""

import math

import pytest
import torch
from torch import nn

from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_trainer.algorithms import build
from swarm_trainer.algorithms.base import Contribution, Fitness, Message, Round
from swarm_trainer.synchronizer.center import Center, Delivery, is_sound
from swarm_trainer.vectors import BUFFERS, X, read
from swarm_trainer.weights import FlatWeights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_single_value_that_is_not_finite_is_seen_and_a_large_sum_is_not_mistaken_for_one(dtype: torch.dtype) -> None:
    fine = torch.full((100_000,), 60.0, dtype=dtype)
    integers = torch.full((3,), 2**62)
    assert is_sound({"x": fine, "integers": integers, "y": torch.empty(0, dtype=dtype)}, {})
    for value in (math.nan, math.inf, -math.inf):
        broken = fine.clone()
        broken[-1] = value
        assert not is_sound({"x": fine, "y": broken}, {})
    broken[0] = math.inf  # With -inf at the other end.
    assert not is_sound({"x": broken}, {})


def test_a_mask_of_infinities_is_sound_and_stays_while_statistics_beside_it_are_averaged() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(2))
    model.register_buffer("mask", torch.tensor([-math.inf, 0.0]))
    model.register_buffer("mean", torch.zeros(1))
    algorithm = build(Algorithm(name=AlgorithmName.LOCAL_SGD))
    weights = FlatWeights(model)
    center = Center.found(algorithm, weights.schema, read(weights, X, BUFFERS))
    brought = [torch.tensor([-math.inf, 0.0, mean]) for mean in (1.0, 2.0, 6.0)]
    assert all(is_sound({BUFFERS: values}, center.now.vectors) for values in brought)
    x = Contribution(Message({X: weights.gather()}), Fitness(1.0))
    center.merge(
        {index: Delivery(x, {BUFFERS: values}) for index, values in enumerate(brought)},
        Round(number=1, seed=0, members=3),
    )
    assert center.now.vectors[BUFFERS].tolist() == [-math.inf, 0.0, 3.0]
    for broken in ([math.inf, 0.0, 1.0], [-math.inf, 0.0, -math.inf], [-math.inf, math.nan, 1.0]):
        assert not is_sound({BUFFERS: torch.tensor(broken)}, center.now.vectors)
    assert not is_sound({X: brought[0]}, center.now.vectors), "weights have no masks"
