"""The edge: kopf watches jobs and nodes, and what it sees goes to the intake. Nothing is written from here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import kopf

from swarm_api.names import GROUP, PLURAL, VERSION
from swarm_operator.backends.kubernetes.client import PAGE
from swarm_operator.backends.kubernetes.login import Entrance
from swarm_operator.cluster.intake import Intake

STOP_SECONDS: Final = 15.0
"""The watches may take so long to end."""
_IDENTITY: Final[Any] = "swarm-operator"  # its type is private to kopf

log = logging.getLogger(__name__)


async def watch(
    intake: Intake,
    login: Callable[[], Awaitable[Entrance]],
    namespaces: tuple[str, ...],
    *,
    nodes: bool,
    ready: asyncio.Event,
    begun: Callable[[], None],
) -> None:
    """Watch jobs and nodes until cancelled.

    Args:
        intake: Told of everything.
        login: Where the API server is, and who asks.
        namespaces: Empty for all.
        nodes: Whether nodes may be watched.
        ready: Set once the watches have begun, until they end.
        begun: Called after kopf has taken over the process's signals, to take them back.

    kopf's tasks are run here rather than by `kopf.operator()`, which at its end would cancel every task of this loop
    that is younger than itself, the workers' requests included.

    Raises:
        Exception: a watch ended for good; the caller begins anew.
    """
    tasks = await kopf.spawn_tasks(
        registry=_registry(intake, login, nodes=nodes),
        settings=_settings(namespaced=bool(namespaces)),
        standalone=True,
        # By default kopf asks who runs it, and in a container nobody knows the name of the user.
        identity=_IDENTITY,
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=ready,
    )
    begun()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.clear()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    raise RuntimeError(f"watching ended: {', '.join(task.get_name() for task in done)}")


def _registry(intake: Intake, login: Callable[[], Awaitable[Entrance]], *, nodes: bool) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login")
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return _connection(await login())

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="job")
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        intake.job(event["type"], event["object"])

    if nodes:

        @kopf.on.event("", "v1", "nodes", registry=registry, id="node")
        async def node(event: kopf.RawEvent, **_: Any) -> None:
            intake.node(event["type"], event["object"])

    return registry


def _settings(*, namespaced: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = namespaced
    settings.watching.chunk_size = PAGE
    # Handlers of changes, which there are none of, would compare each object with a stored copy.
    settings.persistence.diffbase_storage = _NoCopies()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    # Each object's worker keeps the last event, and so the whole object, until it ends.
    settings.queueing.idle_timeout = 0.2
    settings.queueing.error_delays = (1, 2, 5, 10, 30)
    # The process outlives a watch that ended; the liveness probe ends the process.
    settings.process.ultimate_exiting_timeout = None
    return settings


class _NoCopies(kopf.DiffBaseStorage):
    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def _connection(found: Entrance) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.authority,
        insecure=not found.verified,
        certificate_path=found.certificate,
        private_key_path=found.private_key,
        token=found.token or None,
        proxy_url=found.proxy,
    )
