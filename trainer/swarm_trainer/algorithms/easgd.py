"""Elastic averaging SGD, synchronous and asynchronous."""

from collections.abc import Mapping

import torch

from swarm_api.algorithm import ExchangeMode
from swarm_trainer.algorithms.average import average
from swarm_trainer.algorithms.base import Algorithm, Contribution, Message, Round, State, When


class EASGD(Algorithm):
    """Springs between each particle and the center (Zhang, Choromanska, LeCun, arXiv 1412.6651).

    Synchronous, equations 5 and 6, both from the values before the step:

        x_i <- x_i - eta g_i(x_i) - alpha (x_i - c)        c <- c + alpha sum_i (x_i - c) = (1-beta) c + beta mean(x)

    with alpha = beta / p over those present. Asynchronous, algorithm 1: each particle on its own clock does the
    same with the center of that moment, one at a time, and alpha = beta / members.

    Both ends of a spring are pulled by the same e = alpha (x_i - c), so sum_i x_i + c moves by gradients alone,
    whoever is present. The reply is (c before the merge, alpha), and the particle computes its e again from the
    x it pushed: a reply costs no tensor of its own on the synchronizer. The gradient is the one at the x before
    the pull, so e waits in the particle's state until its optimizer has stepped.

    A rebuilt center is the particles' mean, where their forces balance; the lag of the lost one is gone.
    """

    when = When.BEFORE
    rebuild_loses = "the lag of the center behind the particles"

    def __init__(self, *, beta: float = 0.9, mode: ExchangeMode = ExchangeMode.SYNCHRONOUS) -> None:
        self.beta = beta
        self.mode = mode

    @property
    def barrier(self) -> bool:
        """Synchronous mode waits for all members."""
        return self.mode is ExchangeMode.SYNCHRONOUS

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        """Pull the center towards those present; reply with the center they were pulled from."""
        before = center["x"]
        assert isinstance(before, torch.Tensor)
        present = len(contributions)
        alpha = self.beta / (present if self.barrier else round_.members)
        mean = average([contributions[index].message.tensors["x"] for index in sorted(contributions)])
        center["x"] = torch.lerp(before, mean, alpha * present, out=mean)
        return {index: Message({"x": before}, {"alpha": alpha}) for index in contributions}

    def pull(self, state: State, x: torch.Tensor, reply: Message, lr: float) -> None:
        """Keep e for `after_step`; a late reply's e adds to one that still waits."""
        del lr
        force = (x - reply.tensors["x"]).mul_(reply.numbers["alpha"])
        if isinstance(waiting := state.get("force"), torch.Tensor):
            force.add_(waiting)
        state["force"] = force

    def after_step(self, state: State, x: torch.Tensor, gradient: torch.Tensor | None, lr: float) -> None:
        """Let the spring pull, if there was an exchange."""
        del gradient, lr
        if isinstance(force := state.pop("force", None), torch.Tensor):
            x.sub_(force)
