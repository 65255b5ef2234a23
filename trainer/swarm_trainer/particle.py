"""What a training script holds: the same object inside a swarm and outside, so the same script runs in both."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader

from swarm_trainer.data import shard


class Particle:
    """A particle of a swarm of one: everything works and nothing is exchanged."""

    index: int = 0
    """0 <= index < replicas."""
    replicas: int = 1
    """Particles that the job asks for."""
    seed: int = 0
    """For this particle's own randomness; a fixed function of spec.seed and the index."""

    def __init__(self) -> None:
        self._epoch = 0
        self._epochs = 0
        self._fraction = 0.0
        self._swarm_seed = 0

    @property
    def leader(self) -> bool:
        """Whether this is the one particle that should do what needs to be done once, such as evaluating."""
        return True

    @property
    def progress(self) -> float:
        """0..1 of the epochs given to `epochs`."""
        return self._fraction

    def epochs(self, count: int) -> Iterator[int]:
        """Count the swarm's epochs from 0; a newcomer enters the one that the swarm is in.

        Args:
            count: Epochs in all; at least 1.
        """
        self._epochs = count
        for epoch in range(self._epoch, count):
            self._epoch, self._fraction = epoch, epoch / count
            self._moved(0)
            yield epoch
        self._epoch, self._fraction = count, 1.0
        self._moved(0)

    def batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """This particle's share of the loader's batches: every replicas-th sample of this epoch's order."""
        batches: Iterable[Any] = shard(loader, self.index, self.replicas, epoch=self._epoch, seed=self._swarm_seed)
        try:
            total = len(batches)  # type: ignore[arg-type]
        except TypeError:
            total = 0
        for number, batch in enumerate(batches, 1):
            if total and self._epochs:
                self._fraction = (self._epoch + number / total) / self._epochs
            # Before the step, since the exchange inside it speaks for this batch too.
            self._moved(_samples_in(batch))
            yield batch

    def total_steps(self, loader: DataLoader[Any]) -> int:
        """Optimizer steps that this particle takes in all announced epochs of this loader; for schedules."""
        return max(1, self._epochs) * -(-len(loader) // self.replicas)

    def report(self, loss: torch.Tensor | float | None = None, **metrics: torch.Tensor | float) -> None:
        """Tell the swarm this step's training loss, before `optimizer.step()`, and any other figures.

        Inside `center()` the figures are the center's. A loss may stay on its device: nothing waits for it.
        """

    def center(self) -> AbstractContextManager[None]:
        """Within the block the model has the center's weights; afterwards its own again, bit for bit."""
        return nullcontext()

    def _moved(self, samples: int) -> None:
        """The particle got on by so many samples."""


def _samples_in(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0]) if batch.dim() else 1
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)) and batch:
        return _samples_in(batch[0])
    return 1
