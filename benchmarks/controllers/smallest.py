"""The smallest kopf operator that does it: two handlers, no status, no memory beyond the jobs themselves.

Run: python smallest.py KUBECONFIG NAMESPACE
"""

import asyncio
import os
import sys
from typing import Any

import aiohttp
import kopf
import plain

from swarm_api.names import GROUP, PLURAL, VERSION


async def run(kubeconfig: str, namespace: str) -> None:
    """Serve until killed."""
    async with plain.connect(kubeconfig) as api:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        os.environ["KUBECONFIG"] = kubeconfig
        handlers = registry(api)
        await kopf.operator(registry=handlers, settings=settings, standalone=True, namespaces=[namespace])


def registry(api: aiohttp.ClientSession) -> kopf.OperatorRegistry:
    """The operator."""
    handlers = kopf.OperatorRegistry()
    known: dict[str, plain.Object] = {}

    kopf.on.login(registry=handlers)(kopf.login_with_kubeconfig)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] in (None, "ADDED"):
            known[event["object"]["metadata"]["name"]] = dict(event["object"])
            await plain.create_particles(api, dict(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] == "MODIFIED" and event["object"]["status"].get("phase") == "Failed":
            await plain.replace_particle(api, known, dict(event["object"]))

    return handlers


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
