"""The operator as a whole: everything is made, wired and ended here."""

import asyncio
import contextlib
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from swarm_operator.backends.kubernetes.backend import Surroundings
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.reports import Reports
from swarm_operator.backends.report import INTERVAL
from swarm_operator.cluster.cache import Cache, Key
from swarm_operator.cluster.config import Config
from swarm_operator.cluster.handlers import watch
from swarm_operator.cluster.intake import Intake
from swarm_operator.cluster.metrics import Metrics
from swarm_operator.cluster.podwatch import PodWatch
from swarm_operator.cluster.queue import WorkQueue
from swarm_operator.cluster.reconcile import Reconciler
from swarm_operator.cluster.server import HEALTHY, serve_health, serve_metrics
from swarm_operator.cluster.tracked import Office

STUCK_SECONDS: Final = 60.0
"""What is due is not begun for so long: something is wrong with this process."""
ENDLESS_SECONDS: Final = 300.0
"""The same for a step that does not end."""
READINGS_A_SECOND: Final = 50.0
"""Reports of all jobs together: with more jobs each is read less often."""
MANY_JOBS: Final = 100
"""Above it numbers alone are written less often."""
DEAF_SECONDS: Final = 150.0
"""Nothing was heard of pods for so long: the watch is no watch."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to watch."""

log = logging.getLogger(__name__)


async def run(config: Config, *, stop: asyncio.Event | None = None) -> None:
    """Work until SIGTERM, SIGINT or `stop`.

    Raises:
        ConfigError: there is no key.
        LoginError: there is no cluster.
    """
    stop = stop or asyncio.Event()

    def listen_to_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    listen_to_signals()
    async with _Operator.running(config) as operator:
        watching = asyncio.create_task(operator.watch(listen_to_signals))
        told = asyncio.create_task(stop.wait())
        await asyncio.wait((told, watching), return_when=asyncio.FIRST_COMPLETED)
        log.info("told to stop")
        for task in (told, watching):
            task.cancel()
        await asyncio.gather(told, watching, return_exceptions=True)


class _Operator:
    def __init__(self, config: Config, client: Client, metrics: Metrics) -> None:
        self.config = config
        self.client = client
        self.metrics = metrics
        self.cache = Cache()
        self.nodes = Nodes(client)
        self.queue: WorkQueue[Key]
        self.reconciler: Reconciler
        self.ready = asyncio.Event()
        self.pod_watches: list[PodWatch] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, config: Config) -> AsyncIterator["_Operator"]:
        """For the duration everything but the watches works."""
        key = config.key()
        async with AsyncExitStack() as stack:
            metrics = Metrics(
                states=lambda: operator.reconciler.states(),
                depth=lambda: len(operator.queue),
                silence=lambda: operator.silent_seconds,
            )
            # Connections that are cut off in the middle need a moment of the loop to be closed.
            stack.push_async_callback(asyncio.sleep, 0.05)
            client = await Client.connect(config.kubeconfig, metrics.requested, watches=max(1, len(config.namespaces)))
            stack.push_async_callback(client.close)
            operator = cls(config, client, metrics)
            reports = await stack.enter_async_context(Reports(client, proxied=config.proxied))
            around = Surroundings(
                client=client,
                nodes=operator.nodes,
                reports=reports,
                key=key,
                report_interval=lambda: max(INTERVAL, operator.reconciler.living / READINGS_A_SECOND),
            )
            office = Office(
                around=around,
                metrics=metrics,
                progress_seconds=lambda: 30.0 if operator.reconciler.living > MANY_JOBS else 10.0,
                wrote=operator.cache.wrote,
            )
            operator.reconciler = Reconciler(operator.cache, client, office, lambda *job: operator.queue.add(*job))
            operator.queue = WorkQueue(operator.reconciler.reconcile)
            stack.push_async_callback(operator.reconciler.close)
            stack.push_async_callback(operator.queue.close)
            looking = asyncio.create_task(operator.nodes.run())
            stack.callback(looking.cancel)
            if config.metrics_port:
                await serve_metrics(stack, config.metrics_port, metrics.registry)
            if config.liveness_port:
                await serve_health(stack, config.liveness_port, alive=operator.alive, ready=operator.is_ready)
            yield operator

    async def watch(self, begun: Callable[[], None]) -> None:
        """Watch until cancelled; `begun` is called each time that kopf begins."""
        intake = Intake(self.cache, self.nodes, self.queue.add, time.monotonic)
        self.pod_watches = [
            PodWatch(self.client, namespace, partial(intake.pods, namespace), intake.pod)
            for namespace in self.config.namespaces or ("",)
        ]
        async with asyncio.TaskGroup() as watches:
            for pods in self.pod_watches:
                watches.create_task(pods.run())
            watches.create_task(self._watch_jobs_and_nodes(intake, begun))

    async def _watch_jobs_and_nodes(self, intake: Intake, begun: Callable[[], None]) -> None:
        pause = 1.0
        while True:
            since = time.monotonic()
            try:
                nodes = await self.client.allowed("watch", "nodes")
                if not nodes:
                    log.warning(
                        "nodes may not be watched: a lost node is noticed only when Kubernetes gives up its pods"
                    )
                await watch(
                    intake,
                    self.client.entrance,
                    self.config.namespaces,
                    nodes=nodes,
                    ready=self.ready,
                    begun=begun,
                )
            except Exception as error:
                known = isinstance(error, ApiError)
                log.error("watching failed and begins anew in %.0f s: %s", pause, error, exc_info=not known)
            self.metrics.restarts.inc()
            lasted = time.monotonic() - since > LONGEST_PAUSE
            await asyncio.sleep(pause)
            pause = 1.0 if lasted else min(LONGEST_PAUSE, 2 * pause)

    @property
    def silent_seconds(self) -> float:
        """For how long nothing was heard of the pods of some namespace."""
        return max((pods.silent_seconds for pods in self.pod_watches), default=math.inf)

    def alive(self) -> str:
        """For the liveness probe."""
        if self.queue.overdue > STUCK_SECONDS:
            return f"a job has waited for {self.queue.overdue:.0f} s"
        if self.queue.longest > ENDLESS_SECONDS:
            return f"a job has been worked on for {self.queue.longest:.0f} s"
        return HEALTHY

    def is_ready(self) -> str:
        """For the readiness probe."""
        if not self.ready.is_set():
            return "the watches have not begun"
        silent = self.silent_seconds
        if math.isinf(silent):
            return "the pods have not been listed"
        return HEALTHY if silent <= DEAF_SECONDS else f"nothing was heard of pods for {silent:.0f} s"
