"""The operator beside the least that could do its work: a bare asyncio client, and the smallest kopf operator.

Run: make bench-operator, or PYTHONPATH=tests:benchmarks python benchmarks/controllers [--write] ...
One bare API server with Kubernetes' scheduler and kwok's fake nodes, everything on loopback; each contender is a
process of its own that works for the jobs of its own namespace. Seen by a watch of the measuring client.
"""

import argparse
import asyncio
import os
import random
import tempfile
from pathlib import Path

from _results import may_write, publish
from contenders import NAMES, all_running
from measures import bulks, idle, reactions
from scene import Scene
from tables import bulk_table, idle_table, peer_table, reaction_table

from cluster import binaries
from cluster.apiserver import ApiServer
from cluster.versions import KUBERNETES
from support.api_server import install_definition

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "kubeadm", "kubectl")
NODES = 10
RESULT = "operator.md"


async def measure(server: ApiServer, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """All tables."""
    key = folder / "key"
    key.write_text("0" * 32)
    with all_running(server, key, folder) as contenders:
        async with Scene.set(str(server.kubeconfig), key.read_bytes()) as scene:
            print("reactions ...", flush=True)
            await reactions(scene, contenders, 4)
            reaction = await reactions(scene, contenders, arguments.samples)
            print(f"{reaction_table(reaction)}\n\nidle jobs ...", flush=True)
            resting = await idle(
                scene,
                contenders,
                server.requests_by_user,
                jobs=arguments.jobs,
                settle_seconds=arguments.settle,
                seconds=arguments.seconds,
            )
            print("large jobs ...", flush=True)
            large = await bulks(scene, contenders, arguments.rounds, arguments.replicas)
            peaks = {name: each.mebibytes(peak=True) for name, each in contenders.items()}
    return [
        reaction_table(reaction),
        bulk_table(large, arguments.replicas),
        idle_table(resting, peaks, arguments.jobs, arguments.seconds),
        peer_table(reaction, large),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=120, help="reactions of each contender")
    parser.add_argument("--rounds", type=int, default=15, help="large jobs of each contender")
    parser.add_argument("--replicas", type=int, default=1000, help="particles of a large job")
    parser.add_argument("--jobs", type=int, default=200, help="jobs that run and do nothing")
    parser.add_argument("--settle", type=float, default=40.0, help="seconds after which they have said everything")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds for which they are looked at")
    may_write(parser, RESULT)
    arguments = parser.parse_args()
    random.seed(0)
    binaries.build(PROGRAMS)
    with tempfile.TemporaryDirectory() as folder, ApiServer(users=tuple(NAMES), nodes=NODES, audit=True) as server:
        install_definition(server)
        tables = asyncio.run(measure(server, arguments, Path(folder)))
    how = f"`make bench-operator`, Kubernetes {KUBERNETES} with kwok's nodes, {os.cpu_count()} cores, loopback."
    publish(RESULT, "Speed of the operator", how, *tables, write=arguments.write)


if __name__ == "__main__":
    main()
