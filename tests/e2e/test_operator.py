"""The operator comes and goes; swarms do not notice."""

from collections.abc import Iterator

import pytest

from cluster import Cluster
from e2e import deploy
from e2e.deploy import DEPLOYMENT
from e2e.kube import Kube, until
from e2e.swarms import Swarm


@pytest.fixture
def switch(operator: Kube) -> Iterator["Switch"]:
    switch = Switch(operator)
    yield switch
    switch.on()


class Switch:
    """Turns the operator off and on."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def kill(self) -> None:
        """At once, without a chance to say goodbye; the Deployment starts another one."""
        self._kube("delete", "pod", f"--selector={_SELECTOR}", "--grace-period=0", "--force", "--wait=false")

    def off(self) -> None:
        """For a while."""
        self._kube("scale", f"deployment/{DEPLOYMENT}", "--replicas=0")
        until(lambda: self._kube.list("pods", _SELECTOR), lambda pods: not pods, "the operator's end", 60)

    def on(self) -> None:
        """And ready."""
        self._kube("scale", f"deployment/{DEPLOYMENT}", "--replicas=1")
        self._kube("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=60s", timeout=70)


_SELECTOR = f"app.kubernetes.io/name={DEPLOYMENT}"


@pytest.mark.core
def test_a_killed_operator_comes_back_and_replaces_who_died_meanwhile(swarm: Swarm, switch: Switch) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    others = swarm.lives_but(swarm.pod(1))

    switch.kill()
    swarm.kill(swarm.pod(1))

    status = swarm.trains(seconds=90, _0=1, _1=2, synchronizer=1)
    swarm.keeps(others)
    assert set(swarm.pods()) == {*others, swarm.pod(1), swarm.pod(1, 2)}
    assert status["attempts"]["1"]["lastExitCode"] == -9
    swarm.finish()
    assert swarm.row()["STATE"] == "Complete"


def test_an_upgrade_of_the_chart_goes_unnoticed_by_a_running_job(
    swarm: Swarm, cluster: Cluster, switch: Switch
) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    lives = swarm.lives()
    before = swarm.kube("get", "pods", "--output=jsonpath={.items[*].metadata.generation}")

    deploy.install(cluster, "--set=logFormat=plain")

    swarm.goes_on()
    swarm.keeps(lives)
    assert set(swarm.pods()) == set(lives)
    assert swarm.kube("get", "pods", "--output=jsonpath={.items[*].metadata.generation}") == before
    assert swarm.row()["STATE"] == "Running"
    deploy.install(cluster)


def test_a_job_that_is_deleted_while_the_operator_is_down_is_gone_for_good(swarm: Swarm, switch: Switch) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    lives = swarm.lives()

    switch.off()
    swarm.keeps(lives)
    swarm.kube("delete", "stj", swarm.name, timeout=30)

    until(swarm.pods, lambda pods: not pods, "the end of all pods", 60)
    switch.on()
    swarm.name = "other"  # by the time that this one trains, the operator has seen all there is
    swarm.start(replicas=1)
    swarm.trains()
    assert set(swarm.kube("get", "pods", "--output=name").split()) == {
        f"pod/{name}" for name in (swarm.pod(0), swarm.synchronizer())
    }
