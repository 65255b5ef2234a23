"""What every algorithm's center treats alike."""

import math

import pytest
import torch

from swarm_trainer.synchronizer.center import is_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_single_value_that_is_not_finite_is_seen_and_a_large_sum_is_not_mistaken_for_one(dtype: torch.dtype) -> None:
    fine = torch.full((100_000,), 60.0, dtype=dtype)
    integers = torch.full((3,), 2**62)
    assert is_finite([fine, integers, torch.empty(0, dtype=dtype)])
    for value in (math.nan, math.inf, -math.inf):
        broken = fine.clone()
        broken[-1] = value
        assert not is_finite([fine, broken])
    broken[0] = math.inf  # With -inf at the other end.
    assert not is_finite([broken])
