"""Jobs, and pods as the API server shows them."""

import copy

from swarm_api.job import SwarmTrainingJob
from swarm_operator.backends.kubernetes.pods import particle_pod, synchronizer_pod

CREATED = "2026-03-01T12:00:00Z"
NOON = 1_772_366_400.0
"""The same in Unix seconds."""


def a_job(*, template=None, container=None, pod=None, synchronizer=None, uid="uid-1", **spec):
    """A job of one container a particle; `container` and `pod` are further fields of that and of the pod's spec."""
    trainer = {"name": "trainer", "image": "mine", "command": ["python", "train.py"], **(container or {})}
    template = template or {"spec": {"containers": [trainer], **(pod or {})}}
    return SwarmTrainingJob(
        metadata={"name": "mnist", "namespace": "team", "uid": uid, "generation": 3},
        spec={
            "algorithm": {"name": "PSOPS"},
            "particles": {"replicas": 4, "template": template},
            **({"synchronizer": synchronizer} if synchronizer else {}),
            **spec,
        },
    )


def the_trainer(pod):
    """The container into which the operator put its variables."""
    (found,) = [
        each
        for each in pod["spec"]["containers"]
        if any(item["name"] == "SWARM_JOB_UID" for item in each.get("env", ()))
    ]
    return found


def environment(pod):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in the_trainer(pod)["env"]}


def a_pod(*, state=None, synchronizer=False, version="7", metadata=None, node="", **status):
    """A particle's pod, or the synchronizer's, as the server shows it; `state` is that of its training container."""
    made = synchronizer_pod(a_job(), 1) if synchronizer else particle_pod(a_job(), 2, 5)
    pod = copy.deepcopy(made)
    pod["metadata"] |= {"uid": "pod-uid", "creationTimestamp": CREATED, "resourceVersion": version, **(metadata or {})}
    if node:
        pod["spec"]["nodeName"] = node
    if state is not None:
        status["containerStatuses"] = [{"name": "trainer", "state": state}, *status.pop("others", ())]
    pod["status"] = status
    return pod


def terminated(code, reason="Error", **fields):
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": "2026-03-01T12:00:10Z",
            "finishedAt": "2026-03-01T12:00:40Z",
            **fields,
        }
    }


RUNNING = {"running": {"startedAt": "2026-03-01T12:00:10Z"}}
