"""A case: something that people's scripts have, and what becomes of it in a swarm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from unit.attach.twice import PERIOD, Swarm, Tensors
from unit.weights.models import mlp

Script = Callable[[Swarm], Tensors | None]


@dataclass(frozen=True)
class Case:
    section: str
    what: str
    means: str
    """For the user, in one sentence."""
    script: Script
    """Returns what must be the same when the exchange is done by hand, or nothing and checks for itself."""
    refused: str
    """What the error says, as a pattern; "" if the case works."""
    cuda: bool


CASES: dict[str, Case] = {}


class Section:
    """Its instances decorate scripts: `@models("tied weights", "they stay tied")`."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __call__(self, what: str, means: str, *, refused: str = "", cuda: bool = False) -> Callable[[Script], Script]:
        def keep(script: Script) -> Script:
            assert script.__name__ not in CASES
            CASES[script.__name__] = Case(self._title, what, means, script, refused, cuda)
            return script

        return keep


def batches(
    count: int = 2 * PERIOD, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(9, 6, generator=generator).to(device, dtype)


def a_model() -> tuple[nn.Module, Optimizer]:
    model = mlp()
    return model, SGD(model.parameters(), lr=0.1)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradients(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss: torch.Tensor = model(x).square().mean()
    loss.backward()
    return loss


def train(swarm: Swarm, model: nn.Module, *optimizers: Optimizer, steps: int = 2 * PERIOD) -> None:
    """As everybody does; the model is attached already."""
    dtype = trainable(model)[0].dtype
    for x in batches(steps, dtype=dtype):
        gradients(model, x)
        for optimizer in optimizers:
            optimizer.step()
        swarm.counts()


def plain(model: nn.Module, swarm: Swarm) -> Tensors:
    optimizer = SGD(trainable(model), lr=0.05, momentum=0.9)
    swarm.attach(model, optimizer)
    train(swarm, model, optimizer)
    return dict(model.state_dict())
