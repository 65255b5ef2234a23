"""What happens around the contenders: jobs are made, pods fail, synchronizers report; and one watch sees it all."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import plain
from aiohttp import web

from swarm_api import env
from swarm_api.names import API_VERSION, KIND
from swarm_api.report import ParticleReport, Presence, Report, SwarmState
from swarm_api.secrets import report_token

PATIENCE: Final = 120.0
"""Seconds until something that does not happen is a failure of the benchmark."""
_PARTICLE: Final = "-particle-"


class Scene:
    """The measuring client, which is the administrator, and the synchronizers of all jobs."""

    def __init__(self, api: aiohttp.ClientSession, key: bytes) -> None:
        self.api = api
        self.pods: dict[str, dict[str, plain.Object]] = defaultdict(dict)
        """By namespace and name; particles only."""
        self.running: dict[str, set[str]] = defaultdict(set)
        """Names of those that run, by namespace."""
        self.born: dict[tuple[str, str], float] = {}
        """When each pod was seen first, on the performance counter, by namespace and name."""
        self._key = key
        self._changed = asyncio.Event()
        self._watching = asyncio.create_task(self._watch())
        self._jobs: dict[str, plain.Object] = {}
        """By the token that opens their report."""
        self._servers: dict[str, web.AppRunner] = {}
        """By address."""

    @classmethod
    @contextlib.asynccontextmanager
    async def set(cls, kubeconfig: str, key: bytes) -> AsyncIterator["Scene"]:
        """For the duration it watches, and synchronizers answer."""
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(plain.connect(kubeconfig))
            scene = cls(api, key)
            stack.push_async_callback(scene._stop_answering)
            stack.callback(scene._watching.cancel)
            yield scene

    # -- what a user does

    async def create_job(self, namespace: str, name: str, replicas: int) -> float:
        """Returns when it was asked for, on the performance counter."""
        container = {"name": "trainer", "image": "mine", "command": ["python", "train.py"]}
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name},
            "spec": {
                "algorithm": {"name": "PSOPS"},
                "particles": {"replicas": replicas, "template": {"spec": {"containers": [container]}}},
            },
        }
        asked = time.perf_counter()
        made = await self.request("POST", plain.jobs(namespace), json=body)
        self._jobs[report_token(self._key, made["metadata"]["uid"])] = made
        return asked

    async def clear(self, namespace: str) -> None:
        """Delete all jobs and pods, whatever their contender may do meanwhile."""
        await self.request("DELETE", plain.jobs(namespace))
        while self.pods[namespace]:
            await self.request("DELETE", plain.pods(namespace), params={"gracePeriodSeconds": "0"})
            await asyncio.sleep(0.5)
        self._jobs = {token: job for token, job in self._jobs.items() if job["metadata"]["namespace"] != namespace}
        self.born = {key: when for key, when in self.born.items() if key[0] != namespace}

    # -- what a kubelet does

    async def fail(self, namespace: str, name: str) -> float:
        """A particle ends with exit code 1; returns when it was said, on the performance counter."""
        ended = {"exitCode": 1, "reason": "Error", "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        container = {"name": "trainer", "image": "mine", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Failed", "containerStatuses": [{**container, "state": {"terminated": ended}}]}
        said = time.perf_counter()
        path = f"{plain.pods(namespace)}/{name}/status"
        headers = {"Content-Type": "application/merge-patch+json"}
        await self.request("PATCH", path, json={"status": status}, headers=headers)
        return said

    # -- what is seen

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that the watch tells."""
        end = time.monotonic() + PATIENCE
        while not true():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1.0)
            if self._watching.done():
                self._watching.result()
            if time.monotonic() > end:
                counts = {name: (len(pods), len(self.running[name])) for name, pods in self.pods.items()}
                raise RuntimeError(f"not within {PATIENCE:.0f} s; pods, and those that run: {counts}")

    async def request(self, verb: str, path: str, **options: Any) -> plain.Object:
        """One object as it is then."""
        async with self.api.request(verb, path, **options) as response:
            text = await response.text()
            if response.status >= 400:
                raise RuntimeError(f"{verb} {path}: {text}")
            found: plain.Object = await response.json()
            return found

    async def _watch(self) -> None:
        async for kind, pod in plain.watch(self.api, "/api/v1/pods"):
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            if _PARTICLE not in name:
                await self._answer_at(pod["status"].get("podIP"))
                continue
            if kind == "ADDED":
                self.born[namespace, name] = time.perf_counter()
            running = kind != "DELETED" and pod["status"].get("phase") == "Running"
            (self.running[namespace].add if running else self.running[namespace].discard)(name)
            if kind == "DELETED":
                self.pods[namespace].pop(name, None)
            else:
                self.pods[namespace][name] = pod
            self._changed.set()

    # -- what a synchronizer does

    async def _answer_at(self, address: str | None) -> None:
        if address and address not in self._servers:
            application = web.Application()
            application.router.add_get("/report", self._report)
            self._servers[address] = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await self._servers[address].setup()
            await web.TCPSite(self._servers[address], address, env.REPORT_PORT).start()

    async def _stop_answering(self) -> None:
        for runner in self._servers.values():
            await runner.cleanup()

    async def _report(self, request: web.Request) -> web.Response:
        """Everybody who runs is attached and contributes, and no number moves."""
        job = self._jobs.get(request.headers.get(env.REPORT_TOKEN_HEADER, ""))
        if job is None:
            return web.Response(status=403)
        metadata = job["metadata"]
        running = self.running[metadata["namespace"]]
        newest: dict[int, int] = {}
        for name in running:
            owner, _, index, incarnation = name.rsplit("-", 3)
            if owner == metadata["name"]:
                newest[int(index)] = max(newest.get(int(index), 0), int(incarnation))
        report = Report(
            uid=metadata["uid"],
            incarnation=1,
            state=SwarmState.TRAINING,
            round=1,
            last_sync_time=1.0,
            settings_generation=1,
            particles=tuple(
                ParticleReport(
                    index=index,
                    incarnation=incarnation,
                    instance_uid="",
                    presence=Presence.ATTACHED,
                    contributions=1,
                    last_round=1,
                    attached_time=1.0,
                    first_contribution_time=1.0,
                )
                for index, incarnation in sorted(newest.items())
            ),
        )
        return web.Response(text=report.model_dump_json(by_alias=True))
