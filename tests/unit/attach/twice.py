"""Runs a training script twice in one process: as a particle of a swarm, and by hand; both must end with the same.

The swarm has one more particle, whose weights are always ONE and whose integers are always MANY, and averages every
PERIOD steps. By hand that is three lines, which is what makes it a check. Scripts say themselves when a step counts.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer

import swarm_trainer
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.vectors import INTEGERS
from swarm_trainer.weights.survey import unwrapped
from unit.trainer.in_process import Particle as Peer
from unit.trainer.in_process import a_push

PERIOD = 2
ONE = 1.0
MANY = 100

Tensors = dict[str, torch.Tensor]


class Swarm(Protocol):
    """What a script is given in the place of the module `swarm_trainer`."""

    def attach(self, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> swarm_trainer.Particle: ...

    def counts(self) -> None:
        """The step before this line is one: said right after it, by every script that is compared."""
        ...


class ByHand:
    """Exchanges as anyone would write it."""

    def attach(self, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> swarm_trainer.Particle:
        self._steps = 0
        self._model = model
        self._weights = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._buffers = [name for name, _ in model.named_buffers() if name in model.state_dict()]
        return swarm_trainer.Particle()

    @torch.no_grad()
    def counts(self) -> None:
        self._steps += 1
        if self._steps % PERIOD == 0:
            tensors = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
            averages = {name: _average(tensors[name]) for name in self._weights + self._buffers}
            for name, average in averages.items():
                tensors[name].copy_(average)


class InSwarm:
    """Really exchanges."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        self._thread = threading.Thread(target=self._push, daemon=True)

    def attach(self, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> swarm_trainer.Particle:
        own = Surroundings.read()
        other = replace(own, identity=own.identity.model_copy(update={"index": 1, "instance_uid": "peer"}))
        with contextlib.suppress(swarm_trainer.UnsupportedModelError):  # `attach` has to say it.
            if self._peer is None:
                self._peer = Peer(other, copy.deepcopy(unwrapped(model)), ThreadPoolExecutor(1))
                self._thread.start()
        return swarm_trainer.attach(model, optimizer)

    def counts(self) -> None:
        pass

    def close(self) -> None:
        if self._peer is not None:
            self._peer.session.close()

    def _push(self) -> None:
        peer = self._peer
        assert peer is not None
        tensors = peer.constant(ONE)
        if INTEGERS in tensors:
            tensors[INTEGERS].fill_(MANY)
        try:
            peer.session.attach()
            answer, sequence = True, 0
            while answer:
                sequence += 1
                answer = bool(peer.session.exchange(a_push(sequence, tensors), tensors))
        except swarm_trainer.LinkError:
            pass  # Closed.


def _average(own: torch.Tensor) -> torch.Tensor:
    if own.is_complex():
        return own
    if own.is_floating_point():
        # A mask's -inf is nobody's average.
        return torch.where(own.isinf(), own, (own.double() + ONE) / 2)
    return own.long().clamp(min=MANY)


def run(script: Callable[[Swarm], Tensors | None]) -> None:
    """Run a script as a particle, and by hand if there is something to compare."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    swarm = InSwarm()
    try:
        found = script(swarm)
    finally:
        swarm.close()
    if found is not None:
        torch.manual_seed(0)
        torch.testing.assert_close(found, script(ByHand()))
