"""Labels, annotations and names by which a job's children are known."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from swarm_api.job import SwarmTrainingJob
from swarm_api.names import API_VERSION, GROUP, KIND
from swarm_operator.plan.facts import Role

JOB_NAME: Final = f"{GROUP}/job-name"
"""On every child; the operator watches pods that have it."""
JOB_UID: Final = f"{GROUP}/job-uid"
ROLE: Final = f"{GROUP}/role"
PARTICLE_INDEX: Final = f"{GROUP}/particle-index"
INCARNATION: Final = f"{GROUP}/incarnation"
SETTINGS: Final = f"{GROUP}/settings"
"""Annotation of a synchronizer: its settings as JSON, which it reads as a file."""

MANAGER: Final = "swarm-operator"
"""Who made the children, and whose words the events are."""


def of_child(job: SwarmTrainingJob, component: str) -> dict[str, str]:
    """Labels of a child that is no pod."""
    return {
        JOB_NAME: job.metadata.name,
        JOB_UID: job.metadata.uid,
        "app.kubernetes.io/name": "swarm-training",
        "app.kubernetes.io/instance": job.metadata.name,
        "app.kubernetes.io/managed-by": MANAGER,
        "app.kubernetes.io/component": component,
    }


def of_pod(job: SwarmTrainingJob, role: Role, index: int, incarnation: int) -> dict[str, str]:
    """Labels of a pod."""
    own = {ROLE: role.value, INCARNATION: str(incarnation)}
    if role is Role.PARTICLE:
        own[PARTICLE_INDEX] = str(index)
    return {**of_child(job, role.value), **own}


def merged(theirs: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """A template's labels with a pod's own: of those only the operator's are beyond the user's reach."""
    forced = {key: value for key, value in own.items() if key.startswith(f"{GROUP}/")}
    return {**own, **theirs, **forced}


def of_synchronizer(job: SwarmTrainingJob, incarnation: int) -> dict[str, str]:
    """What selects the pod of this incarnation and no other."""
    return {JOB_UID: job.metadata.uid, ROLE: Role.SYNCHRONIZER.value, INCARNATION: str(incarnation)}


def child_name(job: SwarmTrainingJob, what: str = "") -> str:
    """`<job>-<what>-<five characters of a hash of the uid>`: a later job of the same name has other children."""
    digest = hashlib.blake2b(job.metadata.uid.encode(), digest_size=4).hexdigest()[:5]
    return "-".join(part for part in (job.metadata.name, what, digest) if part)


def owner(job: SwarmTrainingJob) -> dict[str, Any]:
    """The ownerReference that makes Kubernetes delete a child with its job.

    It does not block the job's deletion: that would need the right to change the job's finalizers.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def metadata(job: SwarmTrainingJob, name: str, component: str, *, owned: bool = True) -> dict[str, Any]:
    """Metadata of a child that is no pod."""
    found = {"name": name, "namespace": job.metadata.namespace, "labels": of_child(job, component)}
    return {**found, "ownerReferences": [owner(job)]} if owned else found
