"""Which samples a particle trains on, and the seed it draws its own randomness from."""

import hashlib
import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset


class SwarmWarning(UserWarning):
    """Training goes on, but not as the user may expect; the message says what to do."""


def particle_seed(seed: int, index: int) -> int:
    """Seed of one particle, in 0..2**63-1: a fixed function of the job's seed and the particle's index.

    The index-th of independent streams: particles differ, and a particle that comes back has its old seed.
    """
    return _hash("particle", seed, index)


def shard(loader: DataLoader[Any], index: int, replicas: int, *, epoch: int, seed: int) -> Iterable[Any]:
    """The batches of one epoch that belong to one particle of `replicas`.

    The epoch's order is the same for all particles, and particle i has the batches i, i + replicas, i + 2*replicas
    ... of it: together they are one pass over the data, nothing twice, and their numbers of batches differ by one at
    most. A shuffling loader has another order in every epoch, drawn from (seed, epoch); a sequential one stays
    sequential. Any other sampler or batch sampler is evaluated to its end, after `set_epoch(epoch)` where it has that,
    with torch's, numpy's and Python's generators (and its own `generator`, if that is torch's) seeded from (seed,
    epoch) and then restored. One that draws from elsewhere gives each particle another order, so that some samples
    are trained twice and others not at all.

    The result is a plain DataLoader with the same dataset, batch size, drop_last, collate_fn, workers, pinning,
    timeout and the rest. Only persistent_workers is not honoured: workers live for one epoch.

    Args:
        loader: Over a map-style dataset. One over an IterableDataset is returned as it is, with a SwarmWarning.
        index: Of the particle, 0..replicas-1.
        replicas: Particles that share the data; 1 has all of it.
        epoch: Of the swarm.
        seed: The job's, the same for all particles.

    Raises:
        ValueError: index is not in 0..replicas-1.
    """
    if not 0 <= index < replicas:
        raise ValueError(f"index is {index} and must be in 0..{replicas - 1} for replicas={replicas}")
    if isinstance(loader.dataset, IterableDataset):
        if replicas > 1:
            warnings.warn(
                "An IterableDataset cannot be shared out, so every particle trains on all of it: let the dataset "
                "skip what SWARM_PARTICLE_INDEX says belongs to others, or use a map-style dataset.",
                SwarmWarning,
                stacklevel=2,
            )
        return loader
    # Without batch size the dataset is asked for one of the sampler's items at a time, and batches by itself.
    source: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    samplers = [source, getattr(source, "sampler", None)]
    with _seeded(_hash("order", seed, epoch), samplers):
        for sampler in samplers:
            if callable(set_epoch := getattr(sampler, "set_epoch", None)):
                set_epoch(epoch)
        mine = list(source)[index::replicas]
    order: dict[str, Any] = {"batch_sampler": mine}
    if loader.batch_sampler is None:
        order = {"batch_size": None, "sampler": mine}
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
        in_order=loader.in_order,
    )


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
