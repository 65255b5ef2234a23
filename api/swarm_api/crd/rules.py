"""What the API server refuses beyond types and bounds: rules in CEL, each with a message that names the remedy.

They say what the models' validators say, so that a job is refused in the same words with and without a cluster; rules
with `oldSelf` speak about changes, which only a cluster knows.

One hole is Kubernetes' own (seen in 1.34): of two objects it compares a field that the schema does not declare only
where both have it. A running job's template in which such a field takes the place of another one therefore passes,
and holds for the pods that are made from then on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from swarm_api.algorithm import Algorithm
from swarm_api.names import MAX_JOB_NAME, TRAINER_CONTAINER
from swarm_api.template import RESTART_POLICY


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One entry of `x-kubernetes-validations`."""

    rule: str
    """CEL; true where all is well."""
    message: str
    """What to do where it is not."""
    field: str = ""
    """Where the error is shown, relative to what the rule stands on, such as `.replicas`."""

    def schema(self) -> dict[str, Any]:
        """As the CRD has it."""
        return {"rule": self.rule, "message": self.message, **({"fieldPath": self.field} if self.field else {})}


NAME: Final = (
    Rule(
        rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message="metadata.name must start with a letter, hold only a-z, 0-9 and '-', and not end in '-'",
    ),
    Rule(
        rule=f"size(self.metadata.name) <= {MAX_JOB_NAME}",
        message=f"metadata.name must have at most {MAX_JOB_NAME} characters, since names of pods append to it",
    ),
)
"""They stand on the root, the only place from which metadata can be seen."""


def _immutable(what: str) -> Rule:
    return Rule(rule="self == oldSelf", message=f"{what} cannot be changed: delete the job and make a new one")


def _kept(what: str, field: str) -> Rule:
    """One field of several that stays, set or not."""
    return Rule(
        rule=f"has(self.{field}) ? has(oldSelf.{field}) && self.{field} == oldSelf.{field} : !has(oldSelf.{field})",
        message=f"{what}.{field} cannot be changed: delete the job and make a new one",
        field=f".{field}",
    )


def _while_suspended(what: str, *, optional: bool = False) -> Rule:
    """Pods are made anew after a suspension, so this is when it may change."""
    same = f"self.{what} == oldSelf.{what}"
    if optional:
        same = f"(has(self.{what}) ? has(oldSelf.{what}) && {same} : !has(oldSelf.{what}))"
    return Rule(
        rule=f"self.suspend || oldSelf.suspend || {same}",
        message=f"{what} can be changed only while the job is suspended: set spec.suspend to true first",
        field=f".{what}",
    )


_ONE_PLACE: Final = Rule(
    rule="has(self.existingClaim) != has(self.volumeClaim)",
    message="needs either existingClaim or volumeClaim: set one of them",
)
_INSIDE: Final = Rule(
    rule="self != '' && !self.startsWith('/') && !self.split('/').exists(part, part == '..')",
    message="must be a relative path without '..', such as models/mnist",
)

RULES: Final[Mapping[str, Sequence[Rule]]] = {
    "Spec": (
        _while_suspended("particles.template"),
        _while_suspended("synchronizer.template", optional=True),
    ),
    "Spec.seed": (_immutable("seed"),),
    "Sync.link": (_immutable("link"),),
    "Algorithm": tuple(
        Rule(
            rule=f"self.name == '{name}' || !has(self.{member})",
            message=f"{member} is set, but name is another algorithm: remove {member}, or set name: {name}",
            field=f".{member}",
        )
        for name, member in Algorithm.members.items()
    ),
    "Particles": (
        Rule(
            rule="self.minReplicas <= self.replicas",
            message="replicas must be at least minReplicas: raise replicas or lower minReplicas",
            field=".replicas",
        ),
        Rule(
            rule="!has(self.maxReplicas) || self.replicas <= self.maxReplicas",
            message="replicas must be at most maxReplicas: lower replicas or raise maxReplicas",
            field=".replicas",
        ),
    ),
    "PodSpec": (
        Rule(
            rule=f"size(self.containers) == 1 || self.containers.exists(c, c.name == '{TRAINER_CONTAINER}')",
            message=f"one of several containers must be named {TRAINER_CONTAINER}: the one that trains",
            field=".containers",
        ),
        Rule(
            rule="!has(self.restartPolicy) || self.restartPolicy == 'Never'",
            message=f"restartPolicy must be Never: {RESTART_POLICY}",
            field=".restartPolicy",
        ),
        Rule(rule="!has(self.hostname)", message="hostname is set by the operator: remove it", field=".hostname"),
        Rule(rule="!has(self.subdomain)", message="subdomain is set by the operator: remove it", field=".subdomain"),
    ),
    "EnvironmentVariable.name": (
        Rule(
            rule="!self.startsWith('SWARM_')",
            message="variables named SWARM_* are set by the operator: remove it or rename it",
        ),
    ),
    "Synchronizer": tuple(
        Rule(
            rule=f"has(self.{what}) == has(oldSelf.{what})",
            message=f"{what} cannot be set or removed later: delete the job and make a new one",
            field=f".{what}",
        )
        for what in ("output", "checkpoint")
    ),
    "Output": (_ONE_PLACE, _immutable("output")),
    "Output.path": (_INSIDE,),
    "Checkpoint": (_ONE_PLACE, *(_kept("checkpoint", field) for field in ("existingClaim", "volumeClaim", "path"))),
    "Checkpoint.path": (_INSIDE,),
}
"""By the name of a model, or of a model and one of its fields."""
