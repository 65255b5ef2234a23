"""The least that one has to say to an API server: what the measuring client and the two simple contenders share."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from swarm_api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION, particle_name

AT_ONCE = 32
"""Pods that are made at once."""

Object = dict[str, Any]


def connect(kubeconfig: str) -> aiohttp.ClientSession:
    """By the address, the authority and the token in it."""
    found = json.loads(Path(kubeconfig).read_text())
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    return aiohttp.ClientSession(
        cluster["server"],
        connector=aiohttp.TCPConnector(ssl=context, limit=2 * AT_ONCE, keepalive_timeout=80),
        headers={"Authorization": f"Bearer {user['token']}"},
        timeout=aiohttp.ClientTimeout(total=None),
    )


def pods(namespace: str) -> str:
    """Their path."""
    return f"/api/v1/namespaces/{namespace}/pods"


def jobs(namespace: str) -> str:
    """Their path."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"


async def watch(api: aiohttp.ClientSession, path: str) -> AsyncIterator[tuple[str, Object]]:
    """Type and object of everything that is there or happens."""
    async with api.get(path) as response:
        response.raise_for_status()
        listed = await response.json()
    for item in listed["items"]:
        yield "ADDED", item
    version = listed["metadata"]["resourceVersion"]
    while True:  # the server ends a watch whose reader is too slow for a moment
        async with api.get(path, params={"watch": "1", "resourceVersion": version}) as response:
            response.raise_for_status()
            async for line in response.content:
                event = json.loads(line)
                version = event["object"]["metadata"]["resourceVersion"]
                yield event["type"], event["object"]


async def create_particle(api: aiohttp.ClientSession, job: Object, index: int, incarnation: int) -> None:
    """One pod of a job, unless it is there already."""
    metadata = job["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": particle_name(metadata["name"], index, incarnation), "ownerReferences": [owner]},
        "spec": {"restartPolicy": "Never", **job["spec"]["particles"]["template"]["spec"]},
    }
    async with api.post(pods(metadata["namespace"]), json=body) as response:
        await response.read()
        if response.status != 409:
            response.raise_for_status()


async def create_particles(api: aiohttp.ClientSession, job: Object) -> None:
    """All pods of a job."""
    indices = iter(range(job["spec"]["particles"]["replicas"]))

    async def work() -> None:
        for index in indices:
            await create_particle(api, job, index, 1)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def replace_particle(api: aiohttp.ClientSession, known: dict[str, Object], pod: Object) -> None:
    """The successor of a pod, by the jobs that are known."""
    name, _, index, incarnation = pod["metadata"]["name"].rsplit("-", 3)
    await create_particle(api, known[name], int(index), int(incarnation) + 1)
