"""When a step of the swarm begins and is over."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from swarm_trainer.steps import Steps


class Named(Optimizer):
    """Notes in the trace when it moves weights; it moves none."""

    def __init__(self, name: str, parameter: nn.Parameter, trace: list[str]) -> None:
        super().__init__([parameter], {})
        self.name = name
        self.trace = trace

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        self.trace.append(self.name)


def some(count: int) -> tuple[list[Named], list[str]]:
    """Optimizers 0, 1, ... of one swarm, and their trace, with b where a step begins and e where it is over."""
    trace: list[str] = []
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(count)]
    optimizers = [Named(str(i), weight, trace) for i, weight in enumerate(weights)]
    Steps(optimizers, weights, begin=lambda: trace.append("b"), end=lambda: trace.append("e"))
    return optimizers, trace


@pytest.mark.parametrize(
    ("count", "order", "expected"),
    [
        (1, "000", "b0eb0eb0e"),
        (2, "0101", "b01eb01e"),
        (2, "1010", "b10eb10e"),
        (2, "0001001", "b0001eb001e"),
        (2, "01100", "b01eb10eb0"),
        (3, "210120", "b210eb120e"),
        (2, "0000", "b0000"),
    ],
)
def test_a_step_is_over_when_each_optimizer_has_stepped(count: int, order: str, expected: str) -> None:
    optimizers, trace = some(count)
    for number in order:
        optimizers[int(number)].step()
    assert "".join(trace) == expected


def test_a_step_that_the_optimizer_itself_skips_is_none() -> None:
    (optimizer,), trace = some(1)
    for found_inf in (1.0, 1.0, 0.0):
        optimizer.found_inf = torch.tensor([found_inf])  # As GradScaler does around `step`.
        optimizer.step()
        del optimizer.found_inf
    assert "".join(trace) == "b0b0b0e"


def test_whoever_keeps_the_swarm_waiting_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    optimizers, _ = some(3)
    with caplog.at_level(logging.WARNING, "swarm.particle"):
        for _ in range(300):
            optimizers[1].step()
    assert [record.getMessage()[:51] for record in caplog.records] == [
        "nothing is exchanged until optimizer 0, 2 has stepp"
    ]


@pytest.mark.parametrize(("requires_grad", "warnings"), [(True, 1), (False, 0)])
def test_what_is_trained_and_not_exchanged_is_said(
    caplog: pytest.LogCaptureFixture, requires_grad: bool, warnings: int
) -> None:
    weight, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1), requires_grad)
    optimizer = torch.optim.SGD([weight, other], lr=0.1)
    with caplog.at_level(logging.WARNING, "swarm.particle"):
        Steps([optimizer], [weight], begin=lambda: None, end=lambda: None)
    assert len(caplog.records) == warnings
    assert all("1 tensors of SGD are no weights of the model" in record.getMessage() for record in caplog.records)
