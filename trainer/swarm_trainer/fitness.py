"""A particle's fitness: the mean of the losses it reported since the last exchange, and how sure that mean is."""

import math

import torch

from swarm_trainer.algorithms.base import Fitness

HISTORY = 30
"""Losses of earlier periods that count, at most, when their variance is estimated."""


class FitnessMeter:
    """Adds up losses on their own device; only `take` waits for it.

    The standard error is sqrt(variance / count), with the variance of a single loss pooled over this period (around
    its own mean) and at most HISTORY degrees of freedom of earlier ones. A period of one loss has no variance of
    its own: half the squared difference to the period before stands in (von Neumann 1941), so that exchanging after
    every step works; the very first such period has an infinite, that is unknown, standard error.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sums: torch.Tensor | None = None  # Of the losses and of their squares, float64.
        self._squares = 0.0
        self._freedom = 0.0
        self._last_mean = math.nan

    def add(self, loss: torch.Tensor | float) -> None:
        """Count one loss; it is copied, never read.

        Raises:
            ValueError: It is not a single number.
        """
        value = torch.as_tensor(loss).detach().to(torch.float64)
        if value.numel() != 1:
            msg = f"loss has shape {tuple(value.shape)}, and one number is needed: report(loss=loss.mean())"
            raise ValueError(msg)
        value = value.reshape(())
        pair = torch.stack((value, value * value))
        self._count += 1
        self._sums = pair if self._sums is None else self._sums.to(pair.device) + pair

    @property
    def heard(self) -> bool:
        """Whether a loss was added since the last `take`."""
        return self._sums is not None

    def take(self) -> Fitness:
        """Fitness of the period that ends here; the next one begins. NaN when no loss was added."""
        if self._sums is None:
            return Fitness(math.nan, math.inf)
        count = self._count
        total, total_of_squares = self._sums.tolist()
        self._count, self._sums = 0, None
        mean = total / count
        if not math.isfinite(mean) or not math.isfinite(total_of_squares):
            return Fitness(mean, math.inf)
        if self._freedom > HISTORY:
            self._squares *= HISTORY / self._freedom
            self._freedom = HISTORY
        if count > 1:
            self._squares += max(0.0, total_of_squares - total * mean)
            self._freedom += count - 1
        elif math.isfinite(self._last_mean):
            self._squares += (mean - self._last_mean) ** 2 / 2
            self._freedom += 1
        self._last_mean = mean
        if self._freedom == 0:
            return Fitness(mean, math.inf)
        return Fitness(mean, math.sqrt(self._squares / self._freedom / count))
