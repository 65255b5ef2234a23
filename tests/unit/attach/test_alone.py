"""A script that runs alone."""

from typing import Any

import pytest
import torch
from torch import nn

import swarm_trainer

MODEL = nn.Linear(1, 1)
OPTIMIZER = torch.optim.SGD(MODEL.parameters())


def test_attach_does_nothing_to_the_model() -> None:
    pointers = [parameter.data_ptr() for parameter in MODEL.parameters()]
    for optimizer in (OPTIMIZER, [OPTIMIZER], (OPTIMIZER, OPTIMIZER)):
        particle = swarm_trainer.attach(MODEL, optimizer)
        assert (particle.index, particle.replicas, particle.leader) == (0, 1, True)
    assert [parameter.data_ptr() for parameter in MODEL.parameters()] == pointers


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
