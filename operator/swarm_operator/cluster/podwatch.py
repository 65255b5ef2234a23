"""Watches pods. kopf makes a task and dozens of objects for each event, and a thousand pods that start are many."""

import asyncio
import logging
import math
import time
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
FIRST_PAUSE: Final = 1.0
"""Seconds after a failure; twice as long after each further one."""
LONGEST_PAUSE: Final = 30.0
_LIST_ANEW: Final = (401, 410)
"""The server has forgotten the version; or the login is over, which a list renews."""

log = logging.getLogger(__name__)

Pods = list[tuple[Key, Pod | None]]


class PodWatch:
    """The pods of one namespace, or of all, that name a job."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        listed: Callable[[Pods, int], None],
        seen: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """A watch that `run` begins.

        Args:
            client: Asks.
            namespace: Empty for all.
            listed: Hears at first, and whenever events may have been missed, what there is, and as of which version.
            seen: Hears type and object of each event after that.
        """
        self._client = client
        self._path = paths.pods(namespace)
        self._listed = listed
        self._seen = seen
        self._version: int | None = None
        """Of what was heard last; None: everything is to be listed."""
        self._heard_at = -math.inf
        self._failures = 0
        self._complaint = Complaint(log, f"pods of {namespace or 'all namespaces'}")

    @property
    def silent_seconds(self) -> float:
        """Since it heard anything; the server has something to say every minute, be it that nothing happened."""
        return time.monotonic() - self._heard_at

    async def run(self) -> None:
        """Watch until cancelled, whatever the server says."""
        while True:
            try:
                await self._list_and_watch()
                pause = BREATH_SECONDS
            except ApiError as error:
                pause = self._failed(error)
            await asyncio.sleep(pause)

    async def _list_and_watch(self) -> None:
        """Until the server ends the watch, as it does every few minutes."""
        if self._version is None:
            found, version = await self._client.list(self._path, _understood, JOB_NAME)
            self._listed(found, version)
            self._heard(version)
        assert self._version is not None
        async for kind, pod in self._client.watch(self._path, self._version, JOB_NAME):
            if kind != "BOOKMARK":
                self._tell(kind, pod)
            self._heard(int(pod["metadata"]["resourceVersion"]))
        self._heard(self._version)

    def _tell(self, kind: str, pod: Mapping[str, Any]) -> None:
        try:
            self._seen(kind, pod)
        except Exception:
            log.exception("an event of pod %s is left out: this is a bug of the operator", pod["metadata"]["name"])

    def _heard(self, version: int) -> None:
        self._version, self._heard_at, self._failures = version, time.monotonic(), 0
        self._complaint.settle()

    def _failed(self, error: ApiError) -> float:
        """Seconds until the next try."""
        if error.status in _LIST_ANEW:
            self._version = None
        if error.status == 410:
            return BREATH_SECONDS
        pause = max(error.retry_after, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10)))
        self._failures += 1
        self._complaint.make(error, f"watched again in {pause:.0f} s")
        return pause


def _understood(pod: Mapping[str, Any]) -> tuple[Key, Pod | None]:
    try:
        return named_by(pod), read(pod)
    except Exception:
        log.exception("pod %s is left out: this is a bug of the operator", pod["metadata"]["name"])
        return named_by(pod), None
