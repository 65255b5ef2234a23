"""What the watches tell, and which jobs are looked at because of it."""

import copy

import pytest

from swarm_operator.backends.kubernetes.loss import LEASE_SECONDS
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import read
from swarm_operator.cluster.cache import BURST_SECONDS, Cache, named_by
from swarm_operator.cluster.intake import SETTLE_SECONDS, Intake
from unit.kubernetes.objects import RUNNING, a_pod, terminated

KEY = ("team", "mnist")


class World:
    def __init__(self):
        self.now = 100.0
        self.added = []
        self.cache = Cache()
        self.nodes = Nodes(None, clock=lambda: self.now)
        self.intake = Intake(self.cache, self.nodes, lambda *key: self.added.append(key), lambda: self.now)

    def told(self):
        added, self.added = self.added, []
        return added


@pytest.fixture
def world():
    return World()


def a_job(version="1", *, uid="uid-1", generation=1, **metadata):
    metadata = {"namespace": "team", "name": "mnist", "uid": uid, "generation": generation, **metadata}
    return {"metadata": {**metadata, "resourceVersion": version, "managedFields": ["much"]}, "spec": {}}


def a_node(ready="True", name="n1"):
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def changed(pod, version, **status):
    pod = copy.deepcopy(pod)
    pod["metadata"]["resourceVersion"] = version
    pod["status"] |= status
    return pod


def test_a_job_is_looked_at_when_it_changes_and_not_when_it_is_told_again(world):
    world.intake.job("ADDED", a_job("1"))
    world.intake.job("MODIFIED", a_job("2"))
    world.intake.job("MODIFIED", a_job("2"))
    world.intake.job("MODIFIED", a_job("1"))
    assert world.told() == [(KEY, 0.0)] * 2
    assert world.cache.job(KEY)["metadata"]["resourceVersion"] == "2"
    assert "managedFields" not in world.cache.job(KEY)["metadata"]


def test_what_the_operator_wrote_itself_is_no_news_in_either_order(world):
    world.intake.job("ADDED", a_job("1"))
    world.told()
    assert not world.cache.wrote(a_job("5"))
    world.intake.job("MODIFIED", a_job("5"))
    assert world.told() == []
    world.intake.job("MODIFIED", a_job("6"))
    assert world.told() == [(KEY, 0.0)]
    assert not world.cache.wrote(a_job("6"))


def test_a_change_by_the_user_that_an_answer_brings_is_not_missed(world):
    world.intake.job("ADDED", a_job("1"))
    assert world.cache.wrote(a_job("5", generation=2))
    assert not world.cache.wrote(a_job("6", generation=2))
    assert world.cache.wrote(a_job("7", generation=2, deletionTimestamp="now"))


def test_a_deleted_job_is_looked_at_and_an_older_ones_end_does_not_touch_a_new_one(world):
    world.intake.job("ADDED", a_job("9", uid="new"))
    world.intake.job("DELETED", a_job("8", uid="old"))
    assert world.cache.job(KEY) is not None
    world.intake.job("DELETED", a_job("10", uid="new"))
    assert world.cache.job(KEY) is None
    assert world.told()[-1] == (KEY, 0.0)


def test_an_end_is_urgent_and_a_beginning_can_wait_for_others(world):
    pod = a_pod(phase="Pending", version="1")
    world.intake.pod("ADDED", pod)
    assert world.told() == [(KEY, 0.0)]
    running = a_pod(state=RUNNING, phase="Running", version="2")
    world.intake.pod("MODIFIED", running)
    ((key, delay),) = world.told()
    assert key == KEY
    assert SETTLE_SECONDS < delay < 2 * SETTLE_SECONDS
    world.intake.pod("MODIFIED", changed(running, "3"))
    assert world.told() == [], "nothing that matters changed"
    world.intake.pod(
        "MODIFIED", a_pod(state=RUNNING, phase="Running", version="4", metadata={"deletionTimestamp": "x"})
    )
    assert world.told() == [(KEY, 0.0)]
    world.intake.pod("MODIFIED", a_pod(state=terminated(1), phase="Failed", version="5"))
    assert world.told() == [(KEY, 0.0)]
    world.intake.pod("MODIFIED", running)
    assert world.told() == [], "it came late"
    world.intake.pod("DELETED", a_pod(state=terminated(1), phase="Failed", version="6"))
    world.intake.pod("DELETED", a_pod(state=terminated(1), phase="Failed", version="6"))
    assert world.told() == [(KEY, 0.0)]


def test_a_new_list_makes_everything_known_be_looked_at_once(world):
    for number in range(3):
        world.intake.job("ADDED", {**a_job(), "metadata": {**a_job()["metadata"], "name": f"job-{number}"}})
    world.told()
    world.now += 60
    for number in range(3):
        world.intake.job(None, {**a_job(), "metadata": {**a_job()["metadata"], "name": f"job-{number}"}})
        world.now += BURST_SECONDS / 2
    assert {key for key, _ in world.told()} == {("team", f"job-{number}") for number in range(3)}
    assert world.cache.listed_at == 160.0
    world.now += 60
    world.intake.job(None, a_job("2"))
    assert world.cache.listed_at > 200


def listed(world, version, *pods, namespace=""):
    world.intake.pods(namespace, [(named_by(pod), read(pod)) for pod in pods], version)
    return [key for key, _ in world.told()]


def test_what_is_not_in_a_list_of_pods_is_gone_and_only_news_make_a_job_be_looked_at(world):
    old, young = a_pod(version="5"), a_pod(version="9", metadata={"name": "later"})
    assert listed(world, 6, old) == [KEY]
    assert listed(world, 7, old) == []
    assert listed(world, 8, namespace="elsewhere") == []
    world.intake.pod("ADDED", young)
    world.told()
    assert listed(world, 8) == [KEY]
    assert [pod.name for pod in world.cache.pods(KEY)] == ["later"], "it was made after the list"


def test_a_node_in_trouble_concerns_the_jobs_that_live_on_it(world):
    world.intake.pod("ADDED", a_pod(state=RUNNING, phase="Running", node="n1"))
    world.intake.node("ADDED", a_node())
    world.told()
    world.intake.node("MODIFIED", a_node())
    world.intake.node("MODIFIED", a_node("Unknown", name="n2"))
    assert world.told() == []
    world.intake.node("MODIFIED", a_node("Unknown"))
    assert world.told() == [(KEY, 0.0)]
    assert world.nodes.in_trouble() == ["n1", "n2"]
    world.intake.node("MODIFIED", a_node())
    assert world.told() == [(KEY, 0.0)]
    world.intake.node("DELETED", a_node())
    assert world.told() == [(KEY, 0.0)]
    assert world.nodes.get("n1").gone
    assert world.nodes.in_trouble() == ["n2"], "nothing can come to one that is gone"
    assert LEASE_SECONDS > 10


def test_nothing_is_kept_of_jobs_that_are_gone(world):
    world.intake.pod("ADDED", a_pod())
    world.intake.pod("DELETED", a_pod())
    world.cache.forget(KEY)
    assert world.cache.keys() == []
