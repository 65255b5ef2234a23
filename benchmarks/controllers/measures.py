"""What is measured: a reaction, a large job, and nothing at all."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from contenders import Contender
from scene import Scene

JOB_SIZE: Final = 16
"""Particles of one job whose failures are counted: each of them fails once, so that nobody has to wait."""
PAUSE_SECONDS: Final = 0.25
"""After a reaction: what follows it is to be over before the next contender's turn."""
SETTLE_SECONDS: Final = 3.0
"""After new jobs run."""
QUIET: Final = 0.02
"""Share of a core below which somebody has nothing to do."""
WRITES: Final = ("create", "update", "patch", "delete", "deletecollection")


class Bulk(NamedTuple):
    """A job of very many particles."""

    seconds: float
    """From the request for the job until all pods exist."""
    cpu_seconds: float
    """Of the contender, until all pods run."""


class Idle(NamedTuple):
    """Running jobs to which nothing happens."""

    writes: int
    reads: int
    """Requests to the API server of either kind."""
    cpu_percent: float
    """Of one core."""
    mebibytes: float


async def reactions(scene: Scene, contenders: Mapping[str, Contender], samples: int) -> dict[str, list[float]]:
    """Seconds from the patch that makes a pod Failed until its replacement exists; contenders take turns."""
    count = -(-samples // JOB_SIZE)
    await populate(scene, contenders, count, JOB_SIZE)
    victims = {name: random.sample(sorted(scene.running[name]), samples) for name in contenders}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(samples):
        for name in random.sample(list(contenders), len(contenders)):
            victim = victims[name][number]
            successor = (name, f"{victim.removesuffix('-1')}-2")
            failed = await scene.fail(name, victim)
            await scene.until(lambda: successor in scene.born)  # noqa: B023 - awaited at once
            taken[name].append(scene.born[successor] - failed)
            await asyncio.sleep(PAUSE_SECONDS)
    await clear(scene, contenders)
    return taken


async def bulks(scene: Scene, contenders: Mapping[str, Contender], rounds: int, replicas: int) -> dict[str, list[Bulk]]:
    """A large job, again and again; contenders take turns."""
    taken: dict[str, list[Bulk]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in random.sample(list(contenders), len(contenders)):
            taken[name].append(await _bulk(scene, contenders[name], f"large-{number}", replicas))
            await clear(scene, contenders)
    return taken


async def idle(
    scene: Scene,
    contenders: Mapping[str, Contender],
    requests: Callable[[], Counter[tuple[str, str]]],
    *,
    jobs: int,
    settle_seconds: float,
    seconds: float,
) -> dict[str, Idle]:
    """All at once, since nobody disturbs anybody; `requests` by user and verb so far, as the audit log counts them."""
    await populate(scene, contenders, jobs, 2)
    await asyncio.sleep(settle_seconds)
    before, cpu_before = requests(), {name: each.cpu_seconds for name, each in contenders.items()}
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - began
    cpu = {name: each.cpu_seconds - cpu_before[name] for name, each in contenders.items()}
    made = requests() - before
    found = {}
    for name, each in contenders.items():
        verbs = Counter({verb: count for (user, verb), count in made.items() if user == name})
        writes = sum(verbs[verb] for verb in WRITES)
        found[name] = Idle(writes, verbs.total() - writes, 100 * cpu[name] / passed, each.mebibytes())
    await clear(scene, contenders)
    return found


async def populate(scene: Scene, contenders: Mapping[str, Contender], jobs: int, replicas: int) -> None:
    """So many jobs each, until all their particles run."""
    for number in range(jobs):
        for name in contenders:
            await scene.create_job(name, f"job-{number}", replicas)
    await scene.until(lambda: all(len(scene.running[name]) == jobs * replicas for name in contenders))
    await asyncio.sleep(SETTLE_SECONDS)


async def clear(scene: Scene, contenders: Mapping[str, Contender]) -> None:
    """Nothing is left but the contenders, who have nothing to do."""
    for name in contenders:
        await scene.clear(name)
    await quiet(contenders)


async def quiet(contenders: Mapping[str, Contender]) -> None:
    """Wait until all have had nothing to do for a second."""
    while True:
        before = {name: each.cpu_seconds for name, each in contenders.items()}
        await asyncio.sleep(1.0)
        if all(each.cpu_seconds - before[name] <= QUIET for name, each in contenders.items()):
            return


async def _bulk(scene: Scene, contender: Contender, job: str, replicas: int) -> Bulk:
    name, cpu = contender.name, contender.cpu_seconds
    asked = await scene.create_job(name, job, replicas)
    await scene.until(lambda: len(scene.pods[name]) == replicas)
    seconds = max(scene.born[name, pod] for pod in scene.pods[name]) - asked
    await scene.until(lambda: len(scene.running[name]) == replicas)
    return Bulk(seconds, contender.cpu_seconds - cpu)
