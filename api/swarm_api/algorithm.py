"""`spec.algorithm`: which swarm algorithm, how often, and its own settings."""

from enum import StrEnum
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from swarm_api.base import Model


class AlgorithmName(StrEnum):
    """The algorithms that work in this version."""

    PSOPS = "PSOPS"
    LOCAL_SGD = "LocalSGD"
    EASGD = "EASGD"


class Attractor(StrEnum):
    """What the social term of PSO-PS pulls a particle towards."""

    SOFTMAX = "Softmax"
    GLOBAL_BEST = "GlobalBest"
    RING = "Ring"


class Memory(StrEnum):
    """How long a particle remembers its best weights."""

    NONE = "None"
    BEST_EVER = "BestEver"


class Draws(StrEnum):
    """Whether PSO's random factors are one number per particle and round, or one per weight."""

    SCALAR = "Scalar"
    PER_DIMENSION = "PerDimension"


class PSOPS(Model):
    """PSO-PS (arXiv 2009.03816): the weights move by particle swarm optimisation on the training loss.

    The defaults are for particles that train by SGD between rounds. Textbook PSO is inertia 0.7298, cognitive
    and social 1.49618, attractor GlobalBest, memory BestEver: right for fixed functions, too wild for SGD.
    """

    inertia: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """w: share of the last velocity that is kept."""
    cognitive: Annotated[float, Field(ge=0, le=4)] = 0.0
    """c1: pull towards the particle's own best; no effect while memory is None."""
    social: Annotated[float, Field(ge=0, le=4)] = 1.0
    """c2: pull towards the attractor."""
    attractor: Attractor = Attractor.SOFTMAX
    """Softmax: mean of all weighted by loss; GlobalBest: the best particle; Ring: the best of 2k+1 neighbours."""
    neighbors: Annotated[int, Field(ge=1, le=512)] = 1
    """k of Ring: neighbours on each side."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Of Softmax, in units of the losses' spread; towards 0 it becomes GlobalBest."""
    memory: Memory = Memory.NONE
    """None: only this round's losses count; BestEver: best weights are remembered, with their loss then."""
    draws: Draws = Draws.SCALAR
    """Scalar keeps the swarm in the span of its models; PerDimension is the textbook's."""
    max_velocity: Annotated[float, Field(gt=0)] | None = None
    """Largest move of one weight in one round; unset: no limit."""


class ExchangeMode(StrEnum):
    """Whether the members of a round wait for each other."""

    SYNCHRONOUS = "Synchronous"
    ASYNCHRONOUS = "Asynchronous"


class EASGD(Model):
    """Elastic averaging SGD (Zhang, Choromanska, LeCun 2015): particles are tied to the center by springs."""

    beta: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Moving rate of the center in one full round; each particle's alpha is beta / particles."""
    mode: ExchangeMode = ExchangeMode.SYNCHRONOUS
    """Synchronous: equations 5 and 6; Asynchronous: Algorithm 1, each particle on its own clock."""


class LocalSGD(Model):
    """Parameter averaging: every particle continues from the mean of all. It has no settings of its own."""


class Algorithm(Model):
    """Only the member of the named algorithm may be set; left out, its defaults hold."""

    members: ClassVar[dict[AlgorithmName, str]] = {
        AlgorithmName.PSOPS: "psops",
        AlgorithmName.EASGD: "easgd",
        AlgorithmName.LOCAL_SGD: "localSGD",
    }
    """Where each algorithm has its own settings, as in a manifest."""

    name: AlgorithmName
    sync_period: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Optimizer steps of a particle between two exchanges (n, tau)."""
    psops: PSOPS | None = None
    easgd: EASGD | None = None
    local_sgd: Annotated[LocalSGD | None, Field(alias="localSGD")] = None

    @model_validator(mode="after")
    def only_the_named_member(self) -> Self:
        """Refuse settings of an algorithm that does not run: they would silently mean nothing."""
        given = self.model_dump(by_alias=True, exclude_none=True)
        for name, member in self.members.items():
            if member in given and name is not self.name:
                msg = f"{member} is set, but name is {self.name}: remove {member}, or set name: {name}"
                raise ValueError(msg)
        return self
