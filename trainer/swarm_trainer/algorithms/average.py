"""Weighted means of flat tensors, without a stack of them."""

from collections.abc import Sequence

import torch


def average(tensors: Sequence[torch.Tensor], weights: Sequence[float] | None = None) -> torch.Tensor:
    """Weighted mean as a new tensor, shape (D,): m_k = m_(k-1) + w_k / (w_1 + ... + w_k) (x_k - m_(k-1)).

    The incremental form (West, CACM 22(9), 1979) reads each tensor once, needs no memory beyond the result,
    stays within the tensors' range, and returns equal tensors bit for bit, which a sum divided by p does not.

    Args:
        tensors: At least one, each of shape (D,); taken in the order given.
        weights: Of any positive sum; one that is 0 leaves its tensor unread. None: all equal.
    """
    shares = [1.0] * len(tensors) if weights is None else weights
    used = [(tensor, share) for tensor, share in zip(tensors, shares, strict=True) if share > 0]
    (first, total), *others = used
    mean = first.clone()
    for tensor, share in others:
        total += share
        mean.lerp_(tensor, share / total)
    return mean
