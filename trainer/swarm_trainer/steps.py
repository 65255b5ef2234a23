"""When a step of the swarm begins and is over, told by the hooks of one or several optimizers."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from swarm_trainer.errors import UnsupportedModelError

log = logging.getLogger("swarm.particle")

_untraced: Callable[[Callable[..., None]], Callable[..., None]] = torch.compiler.disable
"""A script may compile its whole step, and an exchange is nothing to be traced."""

_UNEVEN = 100
"""Steps that the others may take before it is said that the swarm waits for one optimizer."""


class Steps:
    """Hooks around the steps of optimizers, which may step in any order and some more often, as a GAN's critic does.

    A step that GradScaler skips is none. An optimizer that handles this itself (a fused one) is called even then and
    has `found_inf` set, which is read: that waits for the GPU.

    Args:
        optimizers: At least one.
        weights: What is exchanged.
        begin: Called before the first of them moves weights.
        end: Called once each of them has, and then the next step begins.

    Raises:
        UnsupportedModelError: An optimizer holds none of the weights.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        weights: Collection[nn.Parameter],
        *,
        begin: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        _check(optimizers, {id(weight) for weight in weights})
        self._begin = begin
        self._end = end
        self._missing = self._all = frozenset(range(len(optimizers)))
        self._calls = 0
        for number, optimizer in enumerate(optimizers):
            optimizer.register_step_pre_hook(_untraced(self._before))
            optimizer.register_step_post_hook(_untraced(self._after(number)))

    def _before(self, *_: Any) -> None:
        if torch._C._current_graph_task_id() >= 0:
            raise UnsupportedModelError(
                "optimizer.step() was called inside backward(), which still reads the weights that an exchange "
                "changes: call it after backward()"
            )
        if self._missing == self._all:
            self._begin()

    def _after(self, number: int) -> Callable[..., None]:
        def stepped(optimizer: Optimizer, *_: Any) -> None:
            if _skipped(optimizer):
                return
            self._missing -= {number}
            self._calls += 1
            if not self._missing:
                self._missing, self._calls = self._all, 0
                self._end()
            elif self._calls == _UNEVEN:
                log.warning(
                    "nothing is exchanged until optimizer %s has stepped: a step is over when each that was attached "
                    "has, so attach those that always do",
                    ", ".join(map(str, sorted(self._missing))),
                )

        return stepped


def _skipped(optimizer: Optimizer) -> bool:
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def _check(optimizers: Sequence[Optimizer], weights: Collection[int]) -> None:
    if not weights:
        raise UnsupportedModelError("no weight of the model requires a gradient, so there is nothing to exchange")
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        others = [parameter for parameter in held if id(parameter) not in weights]
        if len(others) == len(held):
            raise UnsupportedModelError(
                f"{kind} holds none of the model's weights that require a gradient: attach the optimizer that steps "
                "this model, made after the last change of the model"
            )
        if strangers := sum(parameter.requires_grad for parameter in others):
            log.warning(
                "%d tensors of %s are no weights of the model and are not exchanged: attach an nn.ModuleList of all "
                "modules that are trained",
                strangers,
                kind,
            )
