"""A namespace in which an operator works, and hands that do what kubelets and synchronizers would."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from swarm_api import env
from swarm_api.names import API_VERSION, KIND
from swarm_api.report import ParticleReport, Presence, Report, SwarmState
from swarm_operator.backends.kubernetes import paths
from swarm_operator.backends.kubernetes.client import Client
from swarm_operator.cluster import operator
from swarm_operator.cluster.config import Config
from swarm_operator.plan.times import stamp

NODES = "api/v1/nodes"
LEASES = "apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Stage:
    """The administrator's view, and one operator at a time."""

    def __init__(self, namespace: str, ip: str, admin: Client, config: Config) -> None:
        self.namespace = namespace
        self.ip = ip
        """Of the synchronizer, which the test speaks for."""
        self.admin = admin
        self.config = config
        self.report: Report | None = None
        self.reads = 0
        """How often the report was read, with the right token or not."""
        self._stop = asyncio.Event()
        self._operator: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def set(cls, namespace: str, ip: str, kubeconfig: Path, config: Config) -> AsyncIterator["Stage"]:
        """For the duration the operator runs."""
        logging.getLogger("swarm_operator").setLevel(logging.INFO)
        async with contextlib.AsyncExitStack() as stack:
            admin = await Client.connect(str(kubeconfig))
            stack.push_async_callback(admin.close)
            stage = cls(namespace, ip, admin, config)
            metadata = {"name": namespace}
            await admin.create("api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            await stage._serve_reports(stack)
            stack.push_async_callback(stage.stop_operator)
            stage.start_operator()
            yield stage

    def start_operator(self) -> None:
        self._stop = asyncio.Event()
        self._operator = asyncio.create_task(operator.run(self.config, stop=self._stop))

    async def stop_operator(self) -> None:
        self._stop.set()
        if self._operator is not None:
            await self._operator
            self._operator = None

    # -- what a user does and sees

    async def create_job(self, name: str = "mnist", *, replicas: int = 2, template: Any = None, **spec: Any) -> Any:
        container = {"name": "trainer", "image": "mine", "command": ["python", "train.py"]}
        particles = {"replicas": replicas, "template": template or {"spec": {"containers": [container]}}}
        particles |= spec.pop("particles", {})
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {"algorithm": {"name": "PSOPS"}, "particles": particles, **spec},
        }
        return await self.admin.create(paths.jobs(self.namespace), body)

    async def job(self, name: str = "mnist") -> dict[str, Any]:
        return await self.admin.get(paths.jobs(self.namespace, name))

    async def change_job(self, spec: dict[str, Any], name: str = "mnist") -> None:
        await self.admin.patch(paths.jobs(self.namespace, name), {"spec": spec})

    async def condition(self, kind: str, name: str = "mnist") -> tuple[str, str, str]:
        """Status, reason and message."""
        found = (await self.job(name)).get("status", {}).get("conditions", ())
        each = next((each for each in found if each["type"] == kind), {})
        return each.get("status", ""), each.get("reason", ""), each.get("message", "")

    async def all(self, path: Callable[[str], str]) -> list[dict[str, Any]]:
        """Every object of a kind in the namespace."""
        found, _ = await self.admin.list(path(self.namespace), dict)
        return found

    async def pods(self) -> dict[str, dict[str, Any]]:
        return {pod["metadata"]["name"]: pod for pod in await self.all(paths.pods)}

    async def pod(self, name: str) -> dict[str, Any]:
        return await self.admin.get(paths.pods(self.namespace, name))

    async def has_pods(self, *names: str, seconds: float = 20) -> dict[str, dict[str, Any]]:
        """The pods, as soon as they are these and no others."""
        return await self.until(self.pods, lambda pods: set(pods) == set(names), seconds)

    async def events(self) -> list[tuple[str, str]]:
        """Reason and message, oldest first."""
        return [(each["reason"], each["message"]) for each in await self.all(paths.events)]

    async def told(self, *reasons: str) -> dict[str, str]:
        """Messages by reason, as soon as all of these were told: that comes after the status."""

        async def look() -> dict[str, str]:
            return dict(await self.events())

        return dict(await self.until(look, lambda told: told.keys() >= {*reasons}))

    async def until(self, look: Callable[[], Any], good: Callable[[Any], Any], seconds: float = 20) -> Any:
        """What is seen as soon as it is good."""
        end = time.monotonic() + seconds
        while True:
            seen = await look()
            if good(seen):
                return seen
            if time.monotonic() > end:
                job = await self.admin.find(paths.jobs(self.namespace, "mnist"))
                status = json.dumps((job or {}).get("status"), indent=1)
                shown = sorted(seen) if isinstance(seen, dict) else seen
                raise AssertionError(f"not within {seconds} s: {shown}\n{status}\n{await self.events()}")
            await asyncio.sleep(0.02)

    async def status_is(self, seconds: float = 20, **fields: Any) -> dict[str, Any]:
        """The status, as soon as these fields of it have these values."""

        async def look() -> dict[str, Any]:
            return dict((await self.job()).get("status") or {})

        found: dict[str, Any] = await self.until(
            look, lambda status: all(status.get(key) == value for key, value in fields.items()), seconds
        )
        return found

    # -- what a kubelet does

    async def bind(self, name: str, node: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self.admin.create(f"{paths.pods(self.namespace, name)}/binding", body)

    async def set_pod(self, name: str, **status: Any) -> None:
        await self.admin.patch(f"{paths.pods(self.namespace, name)}/status", {"status": status})

    async def run(self, *names: str) -> None:
        for name in names:
            state = {"running": {"startedAt": stamp(time.time())}}
            ip = {"podIP": self.ip, "podIPs": [{"ip": self.ip}]} if "synchronizer" in name else {}
            await self.set_pod(name, phase="Running", containerStatuses=[a_container(state)], **ip)

    async def end(self, name: str, code: int = 1, message: str = "", **status: Any) -> float:
        """Returns when."""
        now = time.time()
        reason = "Completed" if code == 0 else "Error"
        state = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": stamp(now)}}
        phase = "Succeeded" if code == 0 else "Failed"
        await self.set_pod(name, phase=phase, containerStatuses=[a_container(state)], **status)
        return now

    async def delete_pod(self, name: str, grace: int | None = None) -> None:
        pod = await self.pod(name)
        await self.admin.delete(paths.pods(self.namespace, name), pod["metadata"]["uid"], grace)

    async def create_node(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        await self.admin.create(NODES, body)
        await self.set_node(name, ready=True)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        await self.admin.create(LEASES, {**lease, "spec": {"renewTime": stamp(time.time())}})

    async def set_node(self, name: str, *, ready: bool) -> None:
        condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
        await self.admin.patch(f"{NODES}/{name}/status", {"status": {"conditions": [condition]}})

    async def renew_lease(self, name: str, seconds_ago: float = 0.0) -> None:
        await self.admin.patch(f"{LEASES}/{name}", {"spec": {"renewTime": stamp(time.time() - seconds_ago)}})

    # -- what a synchronizer does

    async def say(self, *particles: tuple[int, int], state: SwarmState = SwarmState.TRAINING, **fields: Any) -> None:
        """The report from now on: who is attached, each as (index, incarnation); fields: of every particle."""
        job = await self.job()
        epoch = fields.pop("epoch", 1)
        now = time.time()
        known = {"presence": Presence.ATTACHED, "contributions": 1, "attached_time": now, "last_round": 1}
        self.report = Report(
            uid=job["metadata"]["uid"],
            incarnation=epoch,
            state=state,
            round=1,
            last_sync_time=now,
            particles=tuple(
                ParticleReport(
                    index=index,
                    incarnation=incarnation,
                    instance_uid="",
                    **{**known, "first_contribution_time": now, **fields},
                )
                for index, incarnation in particles
            ),
        )

    async def is_heard(self) -> None:
        """Until the operator knows what was said last: it asks again only when it has read an answer."""
        enough = self.reads + 2

        async def look() -> int:
            return self.reads

        await self.until(look, lambda reads: reads >= enough)

    async def train(self, replicas: int = 2) -> None:
        """Everything that exists runs, and the swarm trains."""
        names = [f"mnist-particle-{index}-1" for index in range(replicas)]
        await self.has_pods("mnist-synchronizer-1", *names)
        await self.run("mnist-synchronizer-1", *names)
        await self.say(*((index, 1) for index in range(replicas)))
        await self.status_is(state="Running")

    async def _serve_reports(self, stack: contextlib.AsyncExitStack) -> None:
        async def answer(request: web.Request) -> web.Response:
            self.reads += 1
            if self.report is None:
                return web.Response(status=503)
            if len(request.headers.get(env.REPORT_TOKEN_HEADER, "")) != 64:
                return web.Response(status=403)
            return web.Response(text=self.report.model_dump_json(by_alias=True))

        application = web.Application()
        application.router.add_get("/report", answer)
        runner = web.AppRunner(application, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.ip, env.REPORT_PORT).start()


def a_container(state: dict[str, Any]) -> dict[str, Any]:
    """The status of the container that trains."""
    running = "running" in state
    return {
        "name": "trainer",
        "image": "mine",
        "imageID": "",
        "ready": running,
        "restartCount": 0,
        "state": state,
    }
