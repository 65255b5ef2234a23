"""Kubernetes' own events, as `kubectl describe` shows them. Posting them is ours, since reasons and moment are."""

import uuid
from typing import Any, Final

from swarm_api.job import Metadata
from swarm_api.names import API_VERSION, KIND
from swarm_operator.backends.kubernetes.labels import MANAGER
from swarm_operator.plan.facts import Event
from swarm_operator.plan.times import stamp

LONGEST: Final = 1024
"""Characters of a message that the API server takes."""


def body(job: Metadata, event: Event, now: float, pod_uid: str = "") -> dict[str, Any]:
    """A v1 Event of the job, so that describing the job tells its story; the child that it regards stands beside it."""
    namespace, name = job.namespace, job.name
    moment = f"{stamp(now)[:19]}Z"
    related = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": event.regarding, "uid": pod_uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": job.uid,
        },
        **({"related": related} if event.regarding and pod_uid else {}),
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": event.message if len(event.message) <= LONGEST else f"{event.message[: LONGEST - 2]} …",
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
