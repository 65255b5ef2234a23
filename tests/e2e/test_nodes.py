"""What befalls a node, and where a swarm that asks for GPUs comes to."""

import time
from collections.abc import Iterator

import pytest

from cluster import Cluster
from e2e.kube import Object, until
from e2e.swarms import Swarm, shows

WITHIN_SECONDS = 25
"""From the moment at which a node goes dark to the first contribution of the replacement."""
_GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
_GOES_DARK = {"killed": Cluster.kill, "frozen": Cluster.pause, "cut off": Cluster.disconnect}
_COMES_BACK = {"killed": Cluster.start, "frozen": Cluster.unpause, "cut off": Cluster.reconnect}


@pytest.fixture
def doomed(cluster: Cluster, how: str) -> Iterator[str]:
    """A worker that the test may make go dark so; it is back afterwards."""
    node = cluster.workers[1]
    yield node
    _COMES_BACK[how](cluster, node)
    before = _renewed(cluster, node)  # by its Lease, since its condition tells late that it was away
    until(lambda: _renewed(cluster, node), lambda now: now != before, f"a sign of life of {node}", 60)
    cluster.wait_until_ready()


@pytest.fixture
def gpus(cluster: Cluster) -> Iterator[str]:
    """A worker that the test may give GPUs; there are no others."""
    node = cluster.workers[0]
    for worker in cluster.workers:
        cluster.add_gpus(worker, 0)
    yield node
    cluster.add_gpus(node, 0)


@pytest.mark.parametrize("how", [pytest.param("killed", marks=pytest.mark.core), "frozen", "cut off"])
def test_a_particle_on_a_dead_node_is_replaced_elsewhere(
    swarm: Swarm, cluster: Cluster, doomed: str, how: str, recoveries: dict[str, Object]
) -> None:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"swarm.training/role": "particle"}},
    }
    safe = {"nodeSelector": {"kubernetes.io/hostname": cluster.workers[0]}}
    swarm.start(replicas=2, pod={"topologySpreadConstraints": [spread]}, synchronizer=safe)
    swarm.trains(_0=1, _1=1)
    lives = swarm.lives()
    (lost,) = [name for name, life in lives.items() if life.node == doomed]
    index = lost.split("-")[2]

    _GOES_DARK[how](cluster, doomed)
    start = time.monotonic()

    status = swarm.trains(seconds=60, **{f"_{index}": 2})
    took = time.monotonic() - start
    swarm.keeps({name: life for name, life in lives.items() if name != lost})
    (replaced,) = [each for each in status["particleStatuses"] if each["index"] == int(index)]
    assert replaced["node"] == cluster.workers[0]
    assert replaced.get("failures", 0) == 0
    assert replaced["lastReason"] == "NodeLost"
    assert shows(swarm.row(wide=True), STATE="Running", PARTICLES="2/2", RESTARTS="1")
    recoveries[f"node {how}"] = status["recovery"]
    assert took < WITHIN_SECONDS, status["recovery"]


def test_a_swarm_that_asks_for_gpus_waits_for_them_and_says_so(swarm: Swarm, cluster: Cluster, gpus: str) -> None:
    swarm.start(replicas=2, container=_GPU)

    def why() -> str:
        return swarm.condition("Running")[2]

    until(why, lambda why: "Insufficient nvidia.com/gpu" in why, "the scheduler's words", 60)
    until(swarm.lives, lambda lives: set(lives) == {swarm.synchronizer()}, "the synchronizer, which asks for none", 30)
    until(swarm.row, lambda row: shows(row, STATE="Starting", PARTICLES="0/2"), "the same in a table", 30)

    cluster.add_gpus(gpus, 2)

    swarm.trains(_0=1, _1=1)
    lives = swarm.lives()
    assert {lives[swarm.pod(index)].node for index in range(2)} == {gpus}
    assert swarm.row()["PARTICLES"] == "2/2"


def _renewed(cluster: Cluster, node: str) -> str:
    return cluster.kubectl("get", "lease", node, "--namespace=kube-node-lease", "--output=jsonpath={.spec.renewTime}")
