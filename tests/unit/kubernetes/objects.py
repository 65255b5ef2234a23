"""Jobs, pods as the API server shows them, an office where jobs are worked on, and servers that answer as told."""

import contextlib
import copy

from aiohttp import web

from swarm_api.job import SwarmTrainingJob
from swarm_operator.backends.kubernetes.backend import Surroundings
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.pods import particle_pod, synchronizer_pod
from swarm_operator.backends.kubernetes.reports import Reports
from swarm_operator.cluster.metrics import Metrics
from swarm_operator.cluster.tracked import Office

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


def an_office(server):
    """`server` answers in the client's stead."""
    around = Surroundings(
        client=server,
        nodes=Nodes(server),
        reports=Reports(server, proxied=False),
        key=bytes(32),
        report_interval=lambda: 1.0,
    )
    metrics = Metrics(states=lambda: (), depth=lambda: 0, silence=lambda: 0.0)
    return Office(around=around, metrics=metrics, progress_seconds=lambda: 10.0, wrote=lambda _: False)


@contextlib.asynccontextmanager
async def serving(path, answer):
    """`host:port` of a server that answers to GET of this path so."""
    application = web.Application()
    application.router.add_get(path, answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()
