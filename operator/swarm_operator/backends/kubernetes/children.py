"""What a job has beside its pods: a Service, a Secret, and claims where model and checkpoints are to be kept."""

from typing import Any, Final

from swarm_api import env
from swarm_api.job import SwarmTrainingJob
from swarm_api.secrets import link_secret, report_token
from swarm_api.storage import Storage
from swarm_operator.backends.kubernetes import labels

LINK_SECRET: Final = "link-secret"  # noqa: S105
"""Key in the Secret, and name of the file in every pod."""
REPORT_TOKEN: Final = "report-token"  # noqa: S105
"""Key in the Secret, and name of the file in the synchronizer."""


def service_name(job: SwarmTrainingJob) -> str:
    """Of the Service by which particles find the synchronizer."""
    return labels.child_name(job)


def secret_name(job: SwarmTrainingJob) -> str:
    """Of the Secret that holds what both sides prove themselves with."""
    return labels.child_name(job)


def storages(job: SwarmTrainingJob) -> dict[str, Storage]:
    """What the synchronizer keeps on claims, by what it is."""
    synchronizer = job.spec.synchronizer
    found = {"output": synchronizer.output, "checkpoint": synchronizer.checkpoint}
    return {what: storage for what, storage in found.items() if storage is not None}


def claim_name(job: SwarmTrainingJob, what: str) -> str:
    """Of the claim on which this is kept: the user's own, or one made for the job."""
    return storages(job)[what].existing_claim or labels.child_name(job, what)


def service(job: SwarmTrainingJob, incarnation: int) -> dict[str, Any]:
    """Headless, so that its name is the synchronizer's address; of one incarnation, so that no older one is found.

    Addresses are published before the pod is ready, since the particles are what it gets ready with.
    """
    ports = {"swarm": env.PORT, "report": env.REPORT_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(job, service_name(job), "synchronizer"),
        "spec": {
            "clusterIP": "None",
            "selector": labels.of_synchronizer(job, incarnation),
            "publishNotReadyAddresses": True,
            "ports": [{"name": name, "port": port, "targetPort": port} for name, port in ports.items()],
        },
    }


def secret(job: SwarmTrainingJob, key: bytes) -> dict[str, Any]:
    """Derived from the operator's key, so that nobody ever has to read it back."""
    uid = job.metadata.uid
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": labels.metadata(job, secret_name(job), "secret"),
        "type": "Opaque",
        "immutable": True,
        "stringData": {LINK_SECRET: link_secret(key, uid), REPORT_TOKEN: report_token(key, uid)},
    }


def claims(job: SwarmTrainingJob) -> list[dict[str, Any]]:
    """The claims to make. They have no owner: what is on them outlives the job."""
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": labels.metadata(job, claim_name(job, what), what, owned=False),
            "spec": storage.volume_claim.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        for what, storage in storages(job).items()
        if storage.volume_claim is not None
    ]
