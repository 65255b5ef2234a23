"""A client that watches and creates, and nothing else: what any controller costs at least.

Run: python bare.py KUBECONFIG NAMESPACE
"""

import asyncio
import sys

import aiohttp
import plain


async def run(kubeconfig: str, namespace: str) -> None:
    """Serve until killed."""
    known: dict[str, plain.Object] = {}
    async with plain.connect(kubeconfig) as api, asyncio.TaskGroup() as tasks:
        tasks.create_task(make_pods(api, namespace, known, tasks))
        tasks.create_task(replace_pods(api, namespace, known, tasks))


async def make_pods(
    api: aiohttp.ClientSession, namespace: str, known: dict[str, plain.Object], tasks: asyncio.TaskGroup
) -> None:
    async for kind, job in plain.watch(api, plain.jobs(namespace)):
        if kind == "ADDED":
            known[job["metadata"]["name"]] = job
            tasks.create_task(plain.create_particles(api, job))


async def replace_pods(
    api: aiohttp.ClientSession, namespace: str, known: dict[str, plain.Object], tasks: asyncio.TaskGroup
) -> None:
    async for kind, pod in plain.watch(api, plain.pods(namespace)):
        if kind == "MODIFIED" and pod["status"].get("phase") == "Failed":
            tasks.create_task(plain.replace_particle(api, known, pod))


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
