"""What a training script holds: the same object inside a swarm and outside, so the same script runs in both."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader

from swarm_trainer.data import Order, can_be_shared, warn_unshared
from swarm_trainer.training_state import Stateful, require_stateful
from swarm_trainer.wire.units import Stream, Unit


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
        self._calls = 0
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
            self._epoch, self._calls, self._fraction = epoch, 0, epoch / count
            self._moved(0)
            yield epoch
        self._epoch, self._fraction = count, 1.0
        self._moved(0)

    def batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """This particle's part of one pass over the loader's batches, which the whole swarm makes together.

        Batch k of the epoch's order is for particle k mod replicas. What one does not get to, because it died or is
        slow, others do at the end of this pass or of a later one, so passes differ in length and one may be empty.
        Leaving the loop early gives up the rest of the own share.

        The order is the loader's, of all particles the same and of every epoch another if it shuffles; so are dataset,
        collate_fn, workers and pinning. Over an IterableDataset every particle gets all batches, and is warned.
        """
        call, self._calls = self._calls, self._calls + 1
        if not can_be_shared(loader):
            yield from self._unshared(loader)
            return
        order = Order(loader, self._swarm_seed)
        stream = Stream(self._epoch, call, total=len(order.of(self._epoch)))
        reached, share = 0, -(-stream.total // self.replicas)
        for unit, batch in self._loaded(loader, order, stream):
            if unit.stream == stream:
                reached = max(reached, unit.number // self.replicas + 1)
            self._came_to(reached / share, batch)
            yield batch

    def _loaded(self, loader: DataLoader[Any], order: Order, stream: Stream) -> Iterator[tuple[Unit, Any]]:
        """The units of a pass that are this particle's, with their batches."""
        del loader
        return order.load(Unit(stream, number) for number in range(stream.total))

    def _unshared(self, loader: DataLoader[Any]) -> Iterator[Any]:
        if self.replicas > 1:
            warn_unshared()
        try:
            total = len(loader)
        except TypeError:
            total = 0
        for number, batch in enumerate(loader, 1):
            self._came_to(number / total if total else 0.0, batch)
            yield batch

    def _came_to(self, part: float, batch: Any) -> None:
        """The script gets this batch, at this part of its epoch."""
        if part and self._epochs:
            self._fraction = (self._epoch + part) / self._epochs
        # Before the step, since the exchange inside it speaks for this batch too.
        self._moved(_samples_in(batch))

    def total_steps(self, loader: DataLoader[Any], epochs: int) -> int:
        """Optimizer steps that this particle takes in so many epochs of `batches(loader)`; for schedules.

        That is its share, with a step a batch. One that is slow takes fewer, and one that takes over from others more.
        """
        return epochs * -(-len(loader) // self.replicas)

    def register(self, **state: Stateful) -> None:
        """Have a newcomer take over more from a live particle, as with `state` of `attach`.

        For what can be made only after `attach`, such as a scheduler that needs `total_steps`.

        Raises:
            TypeError: Something has no state_dict and load_state_dict.
            RuntimeError: Training has begun: `epochs`, `batches` or `optimizer.step()` were called.
        """
        require_stateful(state)

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
