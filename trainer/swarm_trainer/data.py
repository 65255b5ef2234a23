"""The order of a loader's batches, how they are loaded, and the seed a particle draws its own randomness from."""

import hashlib
import random
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from swarm_trainer.wire.units import Unit


class SwarmWarning(UserWarning):
    """Training goes on, but not as the user may expect; the message says what to do."""


def particle_seed(seed: int, index: int) -> int:
    """Seed of one particle, in 0..2**63-1: a fixed function of the job's seed and the particle's index.

    The index-th of independent streams: particles differ, and a particle that comes back has its old seed.
    """
    return _hash("particle", seed, index)


class Order:
    """The batches of one pass over a map-style loader, of any epoch.

    The order is the same for all particles. A shuffling loader has another one in every epoch, drawn from (seed,
    epoch); a sequential one stays sequential. Any other sampler or batch sampler is evaluated to its end, after
    `set_epoch(epoch)` where it has that, with torch's, numpy's and Python's generators (and its own `generator`, if
    that is torch's) seeded from (seed, epoch) and then restored. One that draws from elsewhere gives each particle
    another order, so that some samples are trained twice and others not at all.

    Args:
        loader: Over a map-style dataset.
        seed: The job's, the same for all particles.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self._loader = loader
        self._seed = seed
        self._epochs: dict[int, list[Any]] = {}

    def of(self, epoch: int) -> list[Any]:
        """What the dataset is asked for, batch by batch: lists of indices, or without batch size the sampler's items.

        Evaluated once for each epoch.
        """
        if epoch not in self._epochs:
            self._epochs[epoch] = self._evaluate(epoch)
        return self._epochs[epoch]

    def load(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Any]]:
        """Draw units and load their batches; workers draw ahead, as far as they prefetch."""
        drawn: deque[Unit] = deque()

        def items() -> Iterator[Any]:
            for unit in units:
                drawn.append(unit)
                yield self.of(unit.stream.epoch)[unit.number]

        for batch in self.loader_over(items()):
            yield drawn.popleft(), batch

    def _evaluate(self, epoch: int) -> list[Any]:
        source = _source(self._loader)
        samplers = [source, getattr(source, "sampler", None)]
        with _seeded(_hash("order", self._seed, epoch), samplers):
            for sampler in samplers:
                if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                    set_epoch(epoch)
            return list(source)

    def loader_over(self, items: Iterable[Any]) -> DataLoader[Any]:
        """A loader as the script's, with these items instead of the whole order; they may be drawn once.

        Dataset, batch size, collate_fn, workers, pinning, timeout and the rest are the same. Not honoured are
        persistent_workers, since workers live for one pass, and in_order=False, since batches are told from each
        other by their order.
        """
        loader = self._loader
        # Without batch size the dataset is asked for one of the sampler's items at a time, and batches by itself.
        order: dict[str, Any] = {"batch_sampler": items}
        if loader.batch_sampler is None:
            order = {"batch_size": None, "sampler": items}
        return DataLoader(
            loader.dataset,
            **order,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            pin_memory_device=loader.pin_memory_device,
        )


def can_be_shared(loader: DataLoader[Any]) -> bool:
    """Whether the loader's batches can be dealt out among particles; one over an IterableDataset cannot."""
    return not isinstance(loader.dataset, IterableDataset)


def warn_unshared() -> None:
    """Say that all particles train on the same data."""
    warnings.warn(
        "An IterableDataset cannot be shared out, so every particle trains on all of it: let the dataset "
        "skip what SWARM_PARTICLE_INDEX says belongs to others, or use a map-style dataset.",
        SwarmWarning,
        stacklevel=3,
    )


def prefetched(loader: DataLoader[Any]) -> int:
    """Batches that the loader draws ahead of the one that is trained."""
    return loader.num_workers * (loader.prefetch_factor or 0)


def _source(loader: DataLoader[Any]) -> Any:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


@contextmanager
def _seeded(seed: int, samplers: Iterable[object]) -> Iterator[None]:
    """Within the block every generator that samplers usually draw from starts from the seed."""
    owned = [getattr(sampler, "generator", None) for sampler in samplers]
    generators = [torch.default_generator, *(g for g in owned if isinstance(g, torch.Generator))]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)


def _hash(purpose: str, *numbers: int) -> int:
    text = ":".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
