"""Sharing out a DataLoader among particles."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)

from swarm_trainer.data import Order, SwarmWarning, can_be_shared, particle_seed
from swarm_trainer.particle import Particle
from swarm_trainer.wire.units import Stream, Unit


class Numbers(Dataset[int]):
    """Sample i is i, whether asked for one or for a list."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        return torch.tensor(index)


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(6))


class DrawnFromElsewhere(Sampler[int]):
    """Draws from torch, numpy and random at once, and notes the epochs it is told."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.epochs: list[int] = []

    def __iter__(self) -> Iterator[int]:
        draws = [torch.rand(()).item() + np.random.rand() + random.random() for _ in range(self.size)]
        return iter(np.argsort(draws).tolist())

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def share(loader: DataLoader, index: int, replicas: int, *, epoch: int, seed: int) -> list[torch.Tensor]:
    """Every replicas-th batch."""
    order = Order(loader, seed)
    stream = Stream(epoch, 0, len(order.of(epoch)))
    units = [Unit(stream, number) for number in range(index, stream.total, replicas)]
    loaded = list(order.load(iter(units)))
    assert [unit for unit, _ in loaded] == units
    return [batch for _, batch in loaded]


def batches(loader: DataLoader, replicas: int, *, epoch: int = 0, seed: int = 0) -> list[list[list[int]]]:
    """Of each particle, its batches."""
    return [
        [batch.tolist() for batch in share(loader, index, replicas, epoch=epoch, seed=seed)]
        for index in range(replicas)
    ]


def flat(shards: list[list[list[int]]]) -> list[int]:
    return [sample for particle in shards for batch in particle for sample in batch]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("size", "batch", "replicas", "drop_last", "seen"),
    [
        (100, 10, 4, False, 100),
        (103, 10, 4, False, 103),
        (103, 10, 4, True, 100),
        (103, 10, 1, False, 103),
        (7, 3, 5, False, 7),
        (7, 3, 5, True, 6),
        (2, 8, 3, False, 2),
        (2, 8, 3, True, 0),
        (64, 1, 3, False, 64),
    ],
)
def test_one_epoch_of_the_swarm_is_one_pass(size, batch, replicas, drop_last, seen, shuffle):
    shards = batches(DataLoader(Numbers(size), batch, shuffle=shuffle, drop_last=drop_last), replicas)
    samples = flat(shards)
    assert len(samples) == seen
    assert len(set(samples)) == seen
    counts = [len(particle) for particle in shards]
    assert max(counts) - min(counts) <= 1
    assert sum(len(b) < batch for particle in shards for b in particle) <= 1
    if not shuffle:
        assert sorted(samples) == list(range(seen))
        assert shards[0][:1] == ([list(range(min(batch, seen)))] if seen else [])


def test_an_empty_dataset_has_empty_shards():
    assert batches(DataLoader(Numbers(0), 4), 3) == [[], [], []]


def test_the_order_follows_seed_and_epoch_and_nothing_else():
    loader = DataLoader(Numbers(40), 4, shuffle=True)
    first = batches(loader, 2, epoch=3, seed=7)
    torch.manual_seed(1234)
    list(loader)
    assert batches(DataLoader(Numbers(40), 4, shuffle=True), 2, epoch=3, seed=7) == first
    with_generator = [
        batches(
            DataLoader(Numbers(40), 4, shuffle=True, generator=torch.Generator().manual_seed(s)), 2, epoch=3, seed=7
        )
        for s in (1, 2)
    ]
    assert with_generator[0] == with_generator[1]
    assert batches(loader, 2, epoch=4, seed=7) != first
    assert batches(loader, 2, epoch=3, seed=8) != first
    assert flat(batches(loader, 1, epoch=3, seed=7)) != list(range(40))


def test_the_scripts_own_random_numbers_are_left_alone():
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(Numbers(40), sampler=RandomSampler(Numbers(40), generator=generator))

    def draws() -> list[object]:
        return [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), generator.initial_seed()]

    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    expected = draws()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(3)
    Order(loader, 1).of(1)
    assert draws() == expected


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Numbers(30), 4, sampler=DrawnFromElsewhere(30)),
        lambda: DataLoader(Numbers(30), batch_sampler=BatchSampler(DrawnFromElsewhere(30), 4, drop_last=False)),
        lambda: DataLoader(Numbers(30), batch_size=None, sampler=DrawnFromElsewhere(30)),
        lambda: DataLoader(Numbers(30), batch_size=None, sampler=BatchSampler(DrawnFromElsewhere(30), 4, False)),
        lambda: DataLoader(Numbers(30), batch_size=None, sampler=SequentialSampler(Numbers(30))),
    ],
    ids=["sampler", "batch sampler", "unbatched", "dataset batches", "unbatched sequential"],
)
def test_custom_samplers_are_evaluated_then_split(loader):
    samples: Counter[int] = Counter()
    for index in range(3):
        # Particles are processes: each has a loader and random state of its own.
        torch.manual_seed(index)
        np.random.seed(index)
        random.seed(index)
        for batch in share(loader(), index, 3, epoch=2, seed=0):
            samples.update(batch.flatten().tolist())
    assert samples == Counter(range(30))


def test_a_sampler_is_told_its_epoch():
    for wrapped in (False, True):
        sampler = DrawnFromElsewhere(8)
        if wrapped:
            loader = DataLoader(Numbers(8), batch_sampler=BatchSampler(sampler, 2, False))
        else:
            loader = DataLoader(Numbers(8), 2, sampler=sampler)
        Order(loader, 0).of(5)
        assert sampler.epochs == [5]


def test_drawing_with_replacement_gives_all_particles_parts_of_one_draw():
    weighted = WeightedRandomSampler([1.0] * 10 + [0.0] * 10, 40, generator=torch.Generator())
    loader = DataLoader(Numbers(20), 5, sampler=weighted)
    shards = batches(loader, 2)
    assert len(flat(shards)) == 40
    assert max(flat(shards)) < 10
    whole = batches(loader, 1)[0]
    assert shards == [whole[0::2], whole[1::2]]


def collate(samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(samples) * 10


def test_workers_and_everything_else_of_the_loader_are_kept():
    loader = DataLoader(
        Numbers(24),
        4,
        shuffle=True,
        num_workers=2,
        collate_fn=collate,
        prefetch_factor=3,
        persistent_workers=True,
        timeout=60,
        worker_init_fn=torch.manual_seed,
        multiprocessing_context="fork",
        in_order=False,
    )
    part = Order(loader, 0).loader_over([[1], [2], [3]])
    for name in ("num_workers", "collate_fn", "prefetch_factor", "timeout", "worker_init_fn", "pin_memory"):
        assert getattr(part, name) == getattr(loader, name), name
    assert part.multiprocessing_context is loader.multiprocessing_context
    assert not part.persistent_workers
    assert part.in_order, "units are told from each other by their order"
    assert sorted(flat(batches(loader, 2))) == [10 * i for i in range(24)]


def test_a_stream_passes_through_and_says_so():
    loader = DataLoader(Endless(), 2)
    assert not can_be_shared(loader)
    particle = Particle()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(particle.batches(loader))) == 3
    particle.replicas = 2
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(3):
            assert len(list(particle.batches(loader))) == 3
    assert [warning.category for warning in said] == [SwarmWarning]
    assert "map-style" in str(said[0].message)


def test_outside_a_swarm_a_pass_is_the_whole_order_and_progress_follows_it():
    particle = Particle()
    progress = []
    for _ in particle.epochs(2):
        progress.append([particle.progress for _ in particle.batches(DataLoader(Numbers(8), 2))])
    assert progress == [[0.125, 0.25, 0.375, 0.5], [0.625, 0.75, 0.875, 1.0]]


def test_particle_seeds_are_fixed_and_differ():
    assert [particle_seed(0, 0), particle_seed(0, 1), particle_seed(1, 0), particle_seed(-1, 0)] == [
        2401898447394892858,
        4135407503706115100,
        3423685944017488427,
        7783251631393230772,
    ]
    seeds = {particle_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.manual_seed(max(seeds))
