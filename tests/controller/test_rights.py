"""The operator with exactly the rights that the chart gives it, in all namespaces."""

import asyncio
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import binaries
from cluster.versions import KUBERNETES
from swarm_api.report import Presence

CHART = Path(__file__).parents[2] / "charts" / "swarm-operator"
NAMESPACE = "swarm-system"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
EVERYBODY = ("mnist-synchronizer-1", "mnist-particle-0-1", "mnist-particle-1-1")


@pytest.fixture(scope="module")
def installed(server):
    """The login of the operator's ServiceAccount."""
    command = [binaries.path("helm"), "template", "swarm", CHART, "--namespace", NAMESPACE]
    command += ["--kube-version", KUBERNETES]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in RIGHTS]
    server.kubectl("create", "namespace", NAMESPACE)
    server.kubectl("apply", "--filename=-", stdin=yaml.safe_dump_all(found))
    (account,) = [each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"]
    return server.kubeconfig_of(NAMESPACE, account)


def test_the_chart_lets_it_do_all_that_it_does(play, installed, caplog):
    async def story(stage):
        node = f"{stage.namespace}-node"
        await stage.create_node(node)
        claim = {"resources": {"requests": {"storage": "1Gi"}}}
        await stage.create_job(synchronizer={"output": {"volumeClaim": claim}})
        await stage.has_pods(*EVERYBODY)
        await stage.bind("mnist-particle-0-1", node)
        await stage.train()
        await stage.end("mnist-synchronizer-1", 1)
        await stage.has_pods(*EVERYBODY, "mnist-synchronizer-2")
        await stage.run("mnist-synchronizer-2")
        await stage.say((0, 1), (1, 1), epoch=2)
        await stage.change_job({"particles": {"replicas": 1}})
        everybody = ("mnist-synchronizer-1", "mnist-synchronizer-2", "mnist-particle-0-1")
        await stage.has_pods(*everybody)
        await stage.renew_lease(node, seconds_ago=60)
        await stage.say((0, 1), epoch=2, presence=Presence.DETACHED, silent_seconds=5.0)
        await asyncio.sleep(3)
        await stage.say((0, 1), epoch=2, presence=Presence.DETACHED, silent_seconds=12.0)
        await stage.until(stage.pods, lambda pods: "mnist-particle-0-2" in pods)
        await stage.change_job({"suspend": True})
        await stage.status_is(state="Suspended")

    play(story, installed=installed)
    assert "orbidden" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
