"""The operator as a whole: everything is made, wired and ended here."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Final

from swarm_operator.backends.kubernetes.backend import Surroundings
from swarm_operator.backends.kubernetes.client import Client
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.backends.kubernetes.reports import Reports
from swarm_operator.backends.report import INTERVAL
from swarm_operator.cluster.cache import Cache, Key
from swarm_operator.cluster.config import Config
from swarm_operator.cluster.handlers import watch
from swarm_operator.cluster.intake import Intake
from swarm_operator.cluster.metrics import Metrics
from swarm_operator.cluster.podwatch import watch_pods
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
        self.listed: set[str] = set()
        """Namespaces whose pods are known; the empty name stands for all."""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, config: Config) -> AsyncIterator["_Operator"]:
        """For the duration everything but the watches works."""
        key = config.key()
        async with AsyncExitStack() as stack:
            metrics = Metrics(lambda: operator.reconciler.states(), lambda: len(operator.queue))
            # Connections that are cut off in the middle need a moment of the loop to be closed.
            stack.push_async_callback(asyncio.sleep, 0.05)
            client = await Client.connect(config.kubeconfig, metrics.requested)
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
        """Watch until cancelled, and begin anew whenever that ends; `begun` is called each time."""
        intake = Intake(self.cache, self.nodes, self.queue.add, time.monotonic)
        pause = 1.0
        while True:
            since = time.monotonic()
            try:
                await self._watch(intake, begun)
            except* Exception as errors:
                log.error("watching failed and begins anew in %.0f s: %s", pause, errors.exceptions[0])
            self.listed.clear()
            self.metrics.restarts.inc()
            await asyncio.sleep(pause)
            pause = 1.0 if time.monotonic() - since > LONGEST_PAUSE else min(LONGEST_PAUSE, 2 * pause)

    async def _watch(self, intake: Intake, begun: Callable[[], None]) -> None:
        nodes = await self.client.allowed("watch", "nodes")
        if not nodes:
            log.warning("nodes may not be watched: a lost node is noticed only when Kubernetes gives up its pods")
        async with asyncio.TaskGroup() as watches:
            for namespace in self._namespaces:
                watches.create_task(watch_pods(self.client, namespace, self._on_list(intake, namespace), intake.pod))
            login, namespaces = self.client.entrance, self.config.namespaces
            watches.create_task(watch(intake, login, namespaces, nodes=nodes, ready=self.ready, begun=begun))

    def _on_list(self, intake: Intake, namespace: str) -> Callable[[list[tuple[Key, Pod | None]], int], None]:
        def on_list(found: list[tuple[Key, Pod | None]], version: int) -> None:
            intake.pods(namespace, found, version)
            self.listed.add(namespace)

        return on_list

    @property
    def _namespaces(self) -> tuple[str, ...]:
        return self.config.namespaces or ("",)

    def alive(self) -> str:
        """For the liveness probe."""
        if self.queue.overdue > STUCK_SECONDS:
            return f"a job has waited for {self.queue.overdue:.0f} s"
        if self.queue.longest > ENDLESS_SECONDS:
            return f"a job has been worked on for {self.queue.longest:.0f} s"
        return HEALTHY

    def is_ready(self) -> str:
        """For the readiness probe."""
        begun = self.ready.is_set() and self.listed >= set(self._namespaces)
        return HEALTHY if begun else "the watches have not begun"
