"""The nodes of the cluster: whether they are ready and, of those under suspicion, whether their kubelet lives."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from swarm_operator.backends.kubernetes import paths
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.loss import Node, trouble
from swarm_operator.plan.times import unix

LOOK_SECONDS: Final = 2.0
"""Between two looks at a suspect's Lease."""
FORGET_SECONDS: Final = 3 * LOOK_SECONDS
"""Whom nobody suspects any more is not looked at any more."""

MOST_REMOVED: Final = 256
"""Removed nodes that are remembered: pods may still say that they are there."""

log = logging.getLogger(__name__)


class Nodes:
    """Fed by the watch of nodes. Leases are read only on suspicion: there are many, and all change all the time."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._suspected: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._leases_allowed = True

    def put(self, raw: Mapping[str, Any]) -> bool:
        """Take note of a node; whether it fell into trouble or came out of it."""
        conditions = (raw.get("status") or {}).get("conditions") or ()
        status = next((each.get("status") for each in conditions if each.get("type") == "Ready"), None)
        return self._set(raw["metadata"]["name"], ready=None if status is None else status == "True", gone=False)

    def drop(self, name: str) -> bool:
        """The node was removed; whether that is news. Of those that were removed long ago nothing is kept."""
        changed = self._set(name, gone=True)
        removed = [each for each, node in self._nodes.items() if node.gone]
        for each in removed[:-MOST_REMOVED]:
            del self._nodes[each]
        return changed

    def get(self, name: str) -> Node:
        """What is known of it; a node that nobody told of may be well."""
        return self._nodes.get(name, Node())

    def in_trouble(self) -> list[str]:
        """Names of the nodes that nothing new should come to."""
        now = self._clock()
        return sorted(name for name, node in self._nodes.items() if not node.gone and trouble(node, now))

    def suspect(self, name: str) -> None:
        """Somebody on this node is silent: look at its Lease for a while."""
        fresh = name not in self._suspected
        self._suspected[name] = self._clock()
        if fresh:
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wake.clear()
            self._release()
            if not (self._suspected and self._leases_allowed):
                await self._wake.wait()
                continue
            await asyncio.gather(*(self._look(name) for name in self._suspected), return_exceptions=True)
            await asyncio.sleep(LOOK_SECONDS)

    def _release(self) -> None:
        """Let go of those whom nobody suspects any more; what their Lease said then says nothing later.

        A node is kept in sight while its Lease is all that speaks against it.
        """
        now = self._clock()
        for name, since in list(self._suspected.items()):
            node = self.get(name)
            accused = node.ready is not False and not node.gone and trouble(node, now)
            if now - since >= FORGET_SECONDS and not accused:
                del self._suspected[name]
                self._set(name, renewed=None)

    async def _look(self, name: str) -> None:
        try:
            lease = await self._client.find(paths.lease_of_node(name)) or {}
        except ApiError as error:
            if error.status == 403:
                self._leases_allowed = False
                log.warning("a lost node is noticed late, since its Lease may not be read: %s", error)
            return
        renewed = (lease.get("spec") or {}).get("renewTime")
        self._set(name, renewed=None if renewed is None else unix(renewed))

    def _set(self, name: str, **changes: Any) -> bool:
        before, now = self.get(name), self._clock()
        self._nodes[name] = after = replace(before, **changes)
        return bool(trouble(before, now)) != bool(trouble(after, now))
