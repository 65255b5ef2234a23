"""Watches pods. kopf makes a task and dozens of objects for each event, and a thousand pods that start are many."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from swarm_operator.backends.kubernetes import paths
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.labels import JOB_NAME
from swarm_operator.backends.kubernetes.observe import Pod, read
from swarm_operator.cluster.cache import Key, named_by
from swarm_operator.cluster.complaint import Complaint

BREATH_SECONDS: Final = 0.05
"""Between two watches: a server that ends each at once is not to be flooded."""
PAUSE_SECONDS: Final = 1.0
"""Until it lists anew where the server was not reached."""
_GONE: Final = 410
"""Status of a version that the server has forgotten."""

log = logging.getLogger(__name__)


async def watch_pods(
    client: Client,
    namespace: str,
    listed: Callable[[list[tuple[Key, Pod | None]], int], None],
    seen: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Tell of pods that name a job, until cancelled.

    Args:
        client: Asks.
        namespace: Empty for all.
        listed: Hears at first, and whenever events may have been missed, what there is, and as of which version.
        seen: Hears type and object of each event after that.

    Raises:
        ApiError: they may not be watched.
    """
    path, complaint = paths.pods(namespace), Complaint(log, f"pods of {namespace or 'all namespaces'}")
    while True:
        try:
            found, version = await client.list(path, lambda pod: (named_by(pod), read(pod)), JOB_NAME)
            listed(found, version)
            complaint.settle()
            while True:
                async for kind, pod in client.watch(path, version, JOB_NAME):
                    version = int(pod["metadata"]["resourceVersion"])
                    if kind != "BOOKMARK":
                        seen(kind, pod)
                await asyncio.sleep(BREATH_SECONDS)
        except ApiError as error:
            if error.status == _GONE:
                continue
            if error.final:
                raise
            complaint.make(error, f"listed anew in {PAUSE_SECONDS:.0f} s")
            await asyncio.sleep(PAUSE_SECONDS)
