"""Where the data comes from, and what else the process does."""

import os
import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from swarm_trainer.data import SwarmWarning
from unit.attach.case import Section, a_model, batches, gradients, train
from unit.attach.training import scaled
from unit.attach.twice import PERIOD, Swarm, Tensors

data = Section("Data")
process = Section("Process")


class Evens(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(12).mul(2).tolist())

    def __len__(self) -> int:
        return 12


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.cat(list(batches())))


class Numbers(Dataset[tuple[int, int]]):
    """Every sample is its number, and the process that made it."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, os.getpid()


def drawn(swarm: Swarm, loader: DataLoader[tuple[int, int]]) -> tuple[list[int], set[int]]:
    """The samples that this particle got of one epoch, and the processes that made them."""
    model, optimizer = a_model()
    particle = swarm.attach(model, optimizer)
    numbers: list[int] = []
    makers: set[int] = set()
    for _ in particle.epochs(1):
        for indices, processes in particle.batches(loader):
            gradients(model, indices[:, None].expand(-1, 6).float())
            optimizer.step()
            numbers += indices.tolist()
            makers |= set(processes.tolist())
    return numbers, makers


@data("any loop, without `particle.batches`", "every particle trains on all of the data")
def own_loop(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    loader = DataLoader(TensorDataset(torch.randn(8 * PERIOD, 6)), 4, shuffle=True, num_workers=1)
    for (x,) in loader:
        gradients(model, x)
        optimizer.step()
        swarm.counts()
    return dict(model.state_dict())


@data("workers of a DataLoader", "those of `particle.batches` live for one epoch, whatever `persistent_workers` says")
def workers(swarm: Swarm) -> None:
    numbers, makers = drawn(swarm, DataLoader(Numbers(), 3, num_workers=2, persistent_workers=True))
    assert len(set(numbers)) == len(numbers) >= 12
    assert len(makers) == 2
    assert os.getpid() not in makers


@data(
    "samplers and batch samplers of your own",
    "particles share out what they draw from torch's, numpy's or Python's generator",
)
def samplers(swarm: Swarm) -> None:
    numbers, _ = drawn(swarm, DataLoader(Numbers(), 2, sampler=Evens()))
    assert len(set(numbers)) == len(numbers) >= 6
    assert set(numbers) <= set(range(0, 24, 2))


@data(
    "IterableDataset",
    "every particle trains on all of it, which a warning says: shard it with `particle.index` and `particle.replicas`",
)
def streams(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    particle = swarm.attach(model, optimizer)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for x in particle.batches(DataLoader(Stream(), 9)):
            gradients(model, x)
            optimizer.step()
            swarm.counts()
    assert [warning.category for warning in said] == [SwarmWarning] * (particle.replicas > 1)
    return dict(model.state_dict())


@process(
    "`init_process_group` in the script",
    "before or after `attach`, which neither needs nor takes the default group",
)
def own_process_group(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    swarm.attach(model, optimizer)
    dist.all_reduce(torch.ones(1))
    train(swarm, model, optimizer, steps=PERIOD)
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    dist.all_reduce(torch.ones(1))
    train(swarm, model, optimizer, steps=PERIOD)
    dist.destroy_process_group()
    return dict(model.state_dict())


@process("DistributedDataParallel", "wrapped before or after `attach`; weights keep their plain names")
def wrapped(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    replica = nn.parallel.DistributedDataParallel(model)
    swarm.attach(replica, optimizer)
    train(swarm, replica, optimizer, steps=PERIOD)
    train(swarm, nn.parallel.DistributedDataParallel(model), optimizer, steps=PERIOD)
    dist.destroy_process_group()
    return dict(model.state_dict())


@process(
    "several ranks of one particle, as `torchrun` starts them",
    "a particle is one process: ask for more particles",
    refused="WORLD_SIZE is 2, and a particle is one process",
)
def ranks(swarm: Swarm) -> None:
    os.environ["WORLD_SIZE"] = "2"
    swarm.attach(*a_model())


@process(
    "CUDA", "weights stay on their device and are copied to the host for an exchange; the test needs a GPU", cuda=True
)
def cuda(swarm: Swarm) -> Tensors:
    return scaled(swarm, fused=True, device="cuda")
