"""What befalls a particle's pod befalls no other."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.deploy import DEPLOYMENT
from e2e.kube import Kube, Object, until
from e2e.swarms import Swarm, shows


@pytest.mark.core
def test_a_killed_process_is_replaced_and_the_others_train_on(
    swarm: Swarm, operator: Kube, recoveries: dict[str, Object]
) -> None:
    before = measured(operator)
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    others = swarm.lives_but(swarm.pod(1))

    swarm.kill(swarm.pod(1))

    status = swarm.trains(seconds=60, _0=1, _1=2)
    swarm.keeps(others)
    (killed,) = [each for each in status["particleStatuses"] if each["index"] == 1]
    assert (killed["failures"], killed["lastExitCode"], killed["phase"]) == (1, -9, "Running")
    assert status["recovery"]["count"] == 1
    recoveries["process killed"] = status["recovery"]
    after = measured(operator)
    for phase in ("detect", "schedule", "start", "rejoin"):
        seconds = status["recovery"][f"{phase}Seconds"]
        assert after[phase] - before.get(phase, 0.0) == pytest.approx(seconds, abs=1e-6)
    assert shows(swarm.row(wide=True), STATE="Running", PARTICLES="2/2", RESTARTS="1")
    assert swarm.condition("Degraded")[:2] == ("False", "AllPresent")
    swarm.finish()
    assert swarm.condition("Complete")[:2] == ("True", "Finished")
    assert swarm.row()["STATE"] == "Complete"


def test_a_deleted_pod_is_replaced_free_of_charge(swarm: Swarm) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    others = swarm.lives_but(swarm.pod(0))

    swarm.kube("delete", "pod", swarm.pod(0))

    status = swarm.trains(seconds=60, _0=2, _1=1)
    swarm.keeps(others)
    (deleted,) = [each for each in status["particleStatuses"] if each["index"] == 0]
    assert (deleted.get("failures", 0), deleted["phase"]) == (0, "Running")
    assert {"ParticleFailed", "ParticleReplaced"} & set(swarm.events())
    assert shows(swarm.row(wide=True), STATE="Running", PARTICLES="2/2", RESTARTS="1")


def test_an_image_that_cannot_be_pulled_is_named(swarm: Swarm) -> None:
    swarm.start(replicas=2, container={"image": "nowhere.invalid/trainer:1"})

    def why() -> str:
        return swarm.condition("Running")[2]

    message = until(why, lambda why: "ImagePull" in why or "ErrImage" in why, "a word about the image", 60)
    assert "nowhere.invalid/trainer:1" in message
    assert swarm.condition("Running")[0] == "False"
    until(swarm.row, lambda row: shows(row, STATE="Starting", PARTICLES="0/2"), "the synchronizer alone", 30)
    assert {name for name in swarm.pods() if "particle" in name} == {swarm.pod(0), swarm.pod(1)}


def test_a_script_that_always_fails_ends_the_job_when_its_budget_is_spent(swarm: Swarm) -> None:
    script = """
import os, sys, runpy, time
if os.environ["SWARM_PARTICLE_INDEX"] == "1":
    sys.exit("there is no such data set")
runpy.run_path("/script/good.py")
"""
    swarm.start(replicas=2, script=script, particles={"minReplicas": 2, "failurePolicy": {"maxFailuresPerParticle": 1}})

    status = swarm.reaches("Failed", seconds=120)

    held, reason, message = swarm.condition("Failed")
    assert (held, reason) == ("True", "TooManyFailures")
    assert "there is no such data set" in message
    assert "failed with exit code 1" in message
    assert status["particles"]["quarantined"] == 1
    assert swarm.row()["STATE"] == "Failed"
    until(swarm.lives, lambda lives: not lives, "nothing lives on", 60)
    until(swarm.events, lambda seen: {"ParticleQuarantined", "JobFailed"} <= set(seen), "its events", 30)


def measured(operator: Kube) -> dict[str, float]:
    """Seconds of all recoveries so far by phase, as the operator tells Prometheus."""
    port = operator("get", "service", f"{DEPLOYMENT}-metrics", "--output=jsonpath={.spec.ports[0].port}")
    path = f"/api/v1/namespaces/{operator.namespace}/services/{DEPLOYMENT}-metrics:{port}/proxy/metrics"
    families = text_string_to_metric_families(operator("get", f"--raw={path}"))
    samples = (sample for family in families for sample in family.samples)
    return {each.labels["phase"]: each.value for each in samples if each.name == "swarm_operator_recovery_seconds_sum"}
