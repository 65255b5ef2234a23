"""Weights that torch shards itself: each process exchanges the shard it holds."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from swarm_trainer.weights import FlatWeights, Kind


@pytest.fixture
def mesh():
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def test_a_dtensor_is_copied_through_its_local_shard(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    model = nn.Linear(4, 3)
    plain = model.weight.detach().clone()
    model.weight = nn.Parameter(distribute_tensor(plain, mesh, [Shard(0)]))
    weights = FlatWeights(model)
    x = weights.gather()
    x.add_(1)
    weights.scatter()
    assert torch.equal(model.weight.to_local(), plain + 1)
    with weights.swapped(torch.zeros_like(x)):
        assert not model.weight.to_local().any()
    assert torch.equal(weights.schema.layouts[Kind.WEIGHT].views(weights.read(Kind.WEIGHT))[0], plain + 1)
    model.weight.sum().backward()
    assert weights.gather_gradient().sum() == 12
