"""What a job has beside its pods: a Service, a Secret, and a claim where the model is to be kept."""

from typing import Any, Final

from swarm_api import env
from swarm_api.job import SwarmTrainingJob
from swarm_api.secrets import link_secret, report_token
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


def claim_name(job: SwarmTrainingJob) -> str:
    """Of the claim on which the model is kept: the user's own, or one made for the job; empty: it is not kept."""
    output = job.spec.synchronizer.output
    if output is None:
        return ""
    return output.existing_claim or labels.child_name(job, "output")


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


def claim(job: SwarmTrainingJob) -> dict[str, Any] | None:
    """The claim to make, if one is wanted. It has no owner: the model outlives the job."""
    output = job.spec.synchronizer.output
    if output is None or output.volume_claim is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": labels.metadata(job, claim_name(job), "output", owned=False),
        "spec": output.volume_claim.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
