"""The CustomResourceDefinition as a whole."""

from typing import Any, Final

from swarm_api.crd.rules import NAME, RULES
from swarm_api.crd.schema import structural
from swarm_api.job import Spec, SwarmTrainingJob
from swarm_api.names import GROUP, KIND, PLURAL, SHORT_NAME, VERSION
from swarm_api.status import JobStatus

_WIDE: Final = {"priority": 1}

COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "State", "type": "string", "jsonPath": ".status.state"},
    {"name": "Algorithm", "type": "string", "jsonPath": ".spec.algorithm.name"},
    {"name": "Particles", "type": "string", "jsonPath": ".status.particles.summary"},
    {"name": "Round", "type": "integer", "jsonPath": ".status.training.round"},
    {"name": "Best-Loss", "type": "number", "jsonPath": ".status.training.bestLoss"},
    {"name": "Restarts", "type": "integer", "jsonPath": ".status.recovery.count", **_WIDE},
    {"name": "Step", "type": "integer", "jsonPath": ".status.training.step", **_WIDE},
    {"name": "Best-Particle", "type": "integer", "jsonPath": ".status.training.bestParticle", **_WIDE},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)
"""What `kubectl get` shows; with a priority only `kubectl get -o wide`."""


def definition() -> dict[str, Any]:
    """The object that `kubectl apply` takes."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all", "swarm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [dict(column) for column in COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.particles.replicas",
                            "statusReplicasPath": ".status.particles.running",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": " ".join((SwarmTrainingJob.__doc__ or "").split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(Spec, RULES),
            "status": structural(JobStatus, RULES, defaults=False),
        },
        "x-kubernetes-validations": [rule.schema() for rule in NAME],
    }
