"""Weights that count what was trained and merged, and processes that kill themselves at a moment the test names.

This module is imported by the processes of a swarm; `tallied` is the test's side of it. A row of the weights belongs to
an index, a column to a sample, and an element is how often that index trained that sample. Rows only grow and nobody
writes to another's, so the highest of all that is known is the truth, and an average would blur it. The last column
counts merges: every push that is merged adds one.
"""

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swarm_api.algorithm import AlgorithmName
from swarm_trainer import algorithms
from swarm_trainer.algorithms import Contribution, LocalSGD, Message, Round, State
from swarm_trainer.checkpoint import snapshot
from swarm_trainer.connection import Connection
from swarm_trainer.session import Session
from swarm_trainer.synchronizer import __main__ as synchronizer
from swarm_trainer.synchronizer.answers import Answers
from swarm_trainer.synchronizer.hub import Hub
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.wire.messages import Push

ROWS, SAMPLES = 13, 600


class Counts(nn.Module):
    """The weights of a model that learns nothing."""

    def __init__(self, rows: int = ROWS) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(rows, SAMPLES + 1, dtype=torch.float64))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.trained[0, 0] * 0 + numbers

    def draw(self, index: int, numbers: torch.Tensor) -> None:
        """Set the gradient with which a step of SGD at rate 1 counts these samples for this index."""
        self.trained.grad = torch.zeros_like(self.trained)
        self.trained.grad[index, numbers] = -1.0

    def row(self, index: int) -> torch.Tensor:
        """What this index trained, as the weights have it."""
        return self.trained.detach()[index, :SAMPLES].clone()


class Tally(LocalSGD):
    """The center is the highest of all that is known, and everybody goes on from it."""

    pulls = 0
    """In this process: replies to pushes that were merged."""

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        before = center["x"]
        assert isinstance(before, torch.Tensor)
        after = _highest(before, *(contributions[index].message.tensors["x"] for index in sorted(contributions)))
        _merges(after)[sorted(contributions)] += 1
        center["x"] = after
        _die("synchronizer", "in the merge")
        return {index: Message({"x": after}) for index in contributions}

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        super().pull(state, x, reply, lr)
        Tally.pulls += 1

    def rebuild(self, positions: Mapping[int, torch.Tensor]) -> State:
        return self.center_state(_highest(*positions.values()))


def _highest(*vectors: torch.Tensor) -> torch.Tensor:
    return functools.reduce(torch.maximum, vectors).clone()


def _merges(x: torch.Tensor) -> torch.Tensor:
    return x[: ROWS * (SAMPLES + 1)].view(ROWS, SAMPLES + 1)[:, SAMPLES]


def become_a_particle(index: int) -> None:
    """Count with the weights, and die when the test says so."""
    _count()
    me = f"particle-{index}"
    _watch(Session, "exchange", me, "before a push", after=False)
    _watch(Connection, "say", me, "after a push", after=True, where=lambda _, message, *__: isinstance(message, Push))
    _watch(Session, "exchange", me, "after a pull", after=True)


def become_a_synchronizer() -> None:
    """Likewise; ends the process."""
    _count()
    me = "synchronizer"
    _watch(Hub, "report", me, "idle", where=lambda hub: _is_idle(hub._swarm))
    _watch(Swarm, "sleep", me, "in a round", where=lambda swarm, *_: swarm.rounds.open)
    _watch(Answers, "give", me, "before the ack")
    _watch(Answers, "_sent", me, "between the acks")
    _watch(snapshot, "_synced_digest", me, "in a checkpoint")
    sys.exit(synchronizer.main())


MOMENTS_OF_A_SYNCHRONIZER = (
    "idle",
    "in a round",
    "in the merge",
    "before the ack",
    "between the acks",
    "in a checkpoint",
)


def order(who: str, moment: str) -> str:
    """Name of the file that has this process die at this moment, once."""
    return f"{who} dies {moment}"


def _die(who: str, moment: str) -> None:
    file = Path(order(who, moment))
    if file.exists():
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _is_idle(swarm: Swarm) -> bool:
    return not swarm.rounds.open and not any(peer.transferring for peer in swarm.peers.values())


def _count() -> None:
    """In the place of LocalSGD."""
    algorithms._ALGORITHMS[AlgorithmName.LOCAL_SGD] = (Tally, "local_sgd")


def _watch(
    owner: Any,
    name: str,
    who: str,
    moment: str,
    *,
    after: bool = False,
    where: Callable[..., bool] = lambda *_: True,
) -> None:
    """The moment is before or after a call of this function, where that is so of its arguments."""
    call = getattr(owner, name)

    @functools.wraps(call)
    def watched(*arguments: Any, **named: Any) -> Any:
        if not after and where(*arguments):
            _die(who, moment)
        result = call(*arguments, **named)
        if after and where(*arguments):
            _die(who, moment)
        return result

    @functools.wraps(call)
    async def watched_later(*arguments: Any, **named: Any) -> Any:
        if not after and where(*arguments):
            _die(who, moment)
        result = await call(*arguments, **named)
        if after and where(*arguments):
            _die(who, moment)
        return result

    setattr(owner, name, watched_later if inspect.iscoroutinefunction(call) else watched)
