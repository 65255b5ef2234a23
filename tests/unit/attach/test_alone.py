"""A script that runs alone."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import swarm_trainer

MODEL = nn.Linear(1, 1)
OPTIMIZER = torch.optim.SGD(MODEL.parameters())


def test_attach_does_nothing_to_the_model() -> None:
    pointers = [parameter.data_ptr() for parameter in MODEL.parameters()]
    for optimizer in (OPTIMIZER, [OPTIMIZER], (OPTIMIZER, OPTIMIZER)):
        particle = swarm_trainer.attach(MODEL, optimizer)
        assert (particle.index, particle.replicas, particle.leader) == (0, 1, True)
    assert [parameter.data_ptr() for parameter in MODEL.parameters()] == pointers


def test_a_schedule_can_be_as_long_as_the_training() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(10, 1)), batch_size=4)
    particle = swarm_trainer.attach(MODEL, OPTIMIZER)
    assert particle.total_steps(loader, epochs=5) == 15
    particle.register(scheduler=torch.optim.lr_scheduler.ConstantLR(OPTIMIZER))
    with pytest.raises(TypeError, match=r"state\['scheduler'\] is a int"):
        particle.register(scheduler=1)  # type: ignore[arg-type]
    particle.replicas = 2
    assert particle.total_steps(loader, epochs=5) == 10


@pytest.mark.parametrize(
    ("model", "optimizer", "says"),
    [
        (MODEL.parameters(), OPTIMIZER, "model is generator"),
        (MODEL, MODEL, "optimizer is Linear"),
        (MODEL, [OPTIMIZER, None], "optimizer is NoneType"),
        (MODEL, [], "optimizer is nothing"),
    ],
)
def test_what_is_no_model_and_no_optimizer_is_named(model: Any, optimizer: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        swarm_trainer.attach(model, optimizer)
