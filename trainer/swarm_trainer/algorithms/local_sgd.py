"""Local SGD: parameter averaging."""

from collections.abc import Mapping

from swarm_trainer.algorithms.average import average
from swarm_trainer.algorithms.base import Algorithm, Contribution, Message, Round, State


class LocalSGD(Algorithm):
    """Every particle continues from the mean of those present: x_i <- (1/p) sum_j x_j.

    Known as parameter averaging, bulk synchronous or local SGD (McDonald et al. 2010; Stich, arXiv 1805.09767,
    algorithm 1). The optimizer's state stays with its particle. With one step between exchanges and plain or
    momentum SGD from equal starts it is SGD on the mean gradient.
    """

    def merge(self, center: State, contributions: Mapping[int, Contribution], round_: Round) -> dict[int, Message]:
        """Center and replies are the mean."""
        del round_
        mean = average([contributions[index].message.tensors["x"] for index in sorted(contributions)])
        center["x"] = mean
        return {index: Message({"x": mean}) for index in contributions}
