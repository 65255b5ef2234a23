"""What a user does to a running job befalls only those whom it concerns."""

from e2e.kube import Object, until
from e2e.swarms import Swarm, shows


def test_scaling_up_and_down_leaves_the_others_alone(swarm: Swarm) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    two = swarm.lives()

    swarm.scale(4)

    swarm.trains(_0=1, _1=1, _2=1, _3=1)
    swarm.keeps(two)
    assert swarm.row()["PARTICLES"] == "4/4"
    four = swarm.lives()

    swarm.scale(2)

    def over(status: Object) -> bool:
        return bool(status["particles"]["summary"] == "2/2" and len(swarm.lives()) == 3)

    until(lambda: swarm.status, over, "two particles and the synchronizer", 60)
    swarm.keeps({name: four[name] for name in swarm.lives()})
    swarm.goes_on()
    assert swarm.condition("Running")[:2] == ("True", "Training")
    assert swarm.condition("Degraded")[0] == "False"
    assert shows(swarm.row(wide=True), STATE="Running", PARTICLES="2/2", RESTARTS="0")


def test_a_suspended_job_holds_nothing_and_begins_again_when_resumed(swarm: Swarm) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)

    swarm.change(suspend=True)

    swarm.reaches("Suspended")
    assert not swarm.lives()
    held, _, message = swarm.condition("Suspended")
    assert (held, "from the beginning" in message) == ("True", True)
    assert shows(swarm.row(), STATE="Suspended", PARTICLES="0/2")

    swarm.change(suspend=False)

    status = swarm.trains(_0=2, _1=2, synchronizer=2)
    assert not any(each.get("failures") for each in status["particleStatuses"])
    assert {"JobSuspended", "JobResumed"} <= set(swarm.events())


def test_a_suspended_job_with_checkpoints_goes_on_where_it_was(swarm: Swarm) -> None:
    claim = {"resources": {"requests": {"storage": "100Mi"}}}
    swarm.start(replicas=2, keeps={"checkpoint": {"volumeClaim": claim}})
    swarm.trains(_0=1, _1=1)
    swarm.goes_on()
    reached = swarm.status["training"]["round"]

    swarm.change(suspend=True)

    swarm.reaches("Suspended")
    held, _, message = swarm.condition("Suspended")
    assert (held, "checkpoint" in message) == ("True", True)

    swarm.change(suspend=False)

    status = swarm.trains(_0=2, _1=2, synchronizer=2)
    assert status["training"]["round"] > reached
    swarm.finish()
    assert swarm.row()["STATE"] == "Complete"
