"""What a pod says of itself, and what the plan is told."""

import pytest

from swarm_operator.backends.kubernetes import labels, podset
from swarm_operator.backends.kubernetes.observe import read
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.plan.facts import Phase, Role
from unit.kubernetes.objects import NOON, RUNNING, a_pod, terminated


def condition(kind, status="True", **fields):
    return {"type": kind, "status": status, **fields}


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


SIDECAR_RUNS = {"name": "proxy", "state": RUNNING}
SIDECAR_FAILED = {"name": "proxy", "state": terminated(1)}
DISRUPTION = condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempted by a better one")


@pytest.mark.parametrize(
    ("pod", "seen"),
    [
        (a_pod(), {"phase": Phase.PENDING, "reason": "", "role": Role.PARTICLE, "index": 2, "incarnation": 5}),
        (
            a_pod(
                phase="Pending",
                conditions=[condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: no GPU")],
            ),
            {"phase": Phase.PENDING, "reason": "Unschedulable", "message": "0/3 nodes: no GPU"},
        ),
        (
            a_pod(state=waiting("ImagePullBackOff", "Back-off pulling mine"), phase="Pending"),
            {"phase": Phase.PENDING, "reason": "ImagePullBackOff", "message": "Back-off pulling mine"},
        ),
        (
            a_pod(
                state=waiting("PodInitializing"),
                phase="Pending",
                initContainerStatuses=[{"name": "get", "state": waiting("ErrImagePull", "no such image")}],
            ),
            {"phase": Phase.PENDING, "reason": "ErrImagePull", "message": "no such image"},
        ),
        (a_pod(state=waiting("ContainerCreating"), phase="Pending"), {"reason": "ContainerCreating"}),
        (
            a_pod(state=RUNNING, phase="Running", node="n1"),
            {"phase": Phase.RUNNING, "started": NOON + 10, "node": "n1", "exit_code": None, "disrupted": False},
        ),
        (
            a_pod(state=waiting("ContainerCreating"), others=[SIDECAR_RUNS], phase="Running"),
            {"phase": Phase.PENDING},
        ),
        (
            a_pod(state=terminated(0, "Completed"), phase="Succeeded"),
            {"phase": Phase.SUCCEEDED, "exit_code": 0, "started": NOON + 10, "ended": NOON + 40, "created": NOON},
        ),
        (
            a_pod(state=terminated(3, message="ValueError: lr"), phase="Failed"),
            {"phase": Phase.FAILED, "exit_code": 3, "reason": "Error", "message": "ValueError: lr"},
        ),
        (a_pod(state=terminated(137), phase="Failed"), {"exit_code": -9, "reason": "Killed", "disrupted": False}),
        (a_pod(state=terminated(143), phase="Failed"), {"exit_code": -15}),
        (a_pod(state=terminated(255), phase="Failed"), {"exit_code": 255, "reason": "Error"}),
        (a_pod(state=terminated(137, "OOMKilled"), phase="Failed"), {"exit_code": -9, "reason": "OOMKilled"}),
        (
            a_pod(state=terminated(137, "ContainerStatusUnknown"), phase="Failed"),
            {"reason": "ContainerStatusUnknown", "disrupted": True},
        ),
        (
            a_pod(state=terminated(0, "Completed"), others=[SIDECAR_RUNS], phase="Running"),
            {"phase": Phase.SUCCEEDED, "exit_code": 0},
        ),
        (
            a_pod(state=terminated(0, "Completed"), others=[SIDECAR_FAILED], phase="Failed"),
            {"phase": Phase.SUCCEEDED, "exit_code": 0},
        ),
        (
            a_pod(state=RUNNING, phase="Running", metadata={"deletionTimestamp": "2026-03-01T12:01:00Z"}),
            {"phase": Phase.RUNNING, "deleting": True},
        ),
        (
            a_pod(state=terminated(143), phase="Failed", conditions=[DISRUPTION]),
            {"disrupted": True, "reason": "PreemptionByScheduler", "message": "preempted by a better one"},
        ),
        (
            a_pod(state=terminated(137), phase="Failed", reason="Evicted", message="Pod ephemeral local storage usage"),
            {"disrupted": False, "reason": "Evicted", "message": "Pod ephemeral local storage usage"},
        ),
        (
            a_pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"),
            {"phase": Phase.FAILED, "disrupted": True, "reason": "OutOfcpu", "exit_code": None},
        ),
        (
            a_pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed"),
            {"disrupted": True, "reason": "UnexpectedAdmissionError"},
        ),
        (
            a_pod(phase="Failed", reason="DeadlineExceeded", message="was active too long"),
            {"disrupted": False, "reason": "DeadlineExceeded"},
        ),
        (
            a_pod(
                state=waiting("PodInitializing"),
                phase="Failed",
                initContainerStatuses=[{"name": "get", "state": terminated(7, message="no data")}],
            ),
            {"phase": Phase.FAILED, "exit_code": 7, "reason": "InitContainerFailed", "message": "no data"},
        ),
    ],
    ids=lambda value: "" if "phase" in value or "reason" in value else str(value.get("status"))[:60],
)
def test_the_plan_is_told_what_became_of_the_training_container(pod, seen):
    member = read(pod).member
    assert {name: getattr(member, name) for name in seen} == seen


@pytest.mark.parametrize(
    ("pod", "lingers", "rejected"),
    [
        (a_pod(state=terminated(1), others=[SIDECAR_RUNS], phase="Running"), True, False),
        (a_pod(state=terminated(1), phase="Failed"), False, False),
        (a_pod(phase="Failed", reason="NodeAffinity"), False, True),
        (a_pod(phase="Failed", reason="NewWord", message="Pod was rejected: for reasons"), False, True),
        (a_pod(state=terminated(1), phase="Failed", reason="Evicted"), False, False),
    ],
)
def test_what_holds_resources_for_nothing_and_what_its_node_turned_away_is_known(pod, lingers, rejected):
    found = read(pod)
    assert (found.lingers, found.rejected) == (lingers, rejected)


def test_injected_containers_do_not_hide_the_one_that_trains():
    pod = a_pod(state=terminated(4), phase="Failed", others=[SIDECAR_FAILED])
    pod["spec"]["containers"].insert(0, {"name": "proxy", "image": "mesh"})
    assert read(pod).member.exit_code == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["labels"].update({labels.INCARNATION: "x"}),
        lambda metadata: metadata["labels"].update({labels.ROLE: "boss"}),
        lambda metadata: metadata.pop("labels"),
    ],
)
def test_a_pod_whose_labels_are_no_childs_is_none(change):
    pod = a_pod()
    change(pod["metadata"])
    assert read(pod) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["labels"].pop(labels.JOB_UID),
        lambda metadata: metadata.pop("ownerReferences"),
        lambda metadata: metadata["ownerReferences"][0].update(uid="another"),
        lambda metadata: metadata["ownerReferences"][0].update(controller=False),
    ],
)
def test_a_pod_that_only_looks_like_a_child_belongs_to_no_job(change):
    pod = a_pod()
    assert read(pod).job_uid == "uid-1"
    change(pod["metadata"])
    assert read(pod).job_uid == ""


def test_a_synchronizer_is_known_with_its_settings():
    found = read(a_pod(synchronizer=True, state=RUNNING, phase="Running", podIP="10.1.2.3"))
    assert (found.member.role, found.ip) == (Role.SYNCHRONIZER, "10.1.2.3")
    assert '"replicas":4' in found.settings


class TestPodSet:
    def test_what_arrives_late_replaces_nothing(self):
        pods = PodSet()
        pods.put(a_pod(state=RUNNING, phase="Running", version="20"))
        pods.put(a_pod(phase="Pending", version="9"))
        (pod,) = pods
        assert pod.member.phase is Phase.RUNNING

    def test_what_is_gone_is_not_taken_in_again_by_our_own_requests_answer(self):
        pods = PodSet()
        pods.put(a_pod(version="1"))
        assert pods.drop("mnist-particle-2-5", "pod-uid")
        pods.update(a_pod(version="2"))
        assert not len(pods)

    def test_only_the_pod_of_this_uid_is_dropped(self):
        pods = PodSet()
        pods.put(a_pod())
        assert not pods.drop("mnist-particle-2-5", "an older one's")
        assert len(pods) == 1

    def test_a_list_drops_what_is_not_in_it_unless_it_is_newer(self):
        pods = PodSet()
        old, new = a_pod(version="5"), a_pod(version="50", metadata={"name": "mnist-particle-3-1", "uid": "u2"})
        pods.put(old)
        pods.put(new)
        pods.replace([], 40)
        assert [pod.name for pod in pods] == ["mnist-particle-3-1"]
        pods.replace([read(a_pod(version="55")), None], 60)
        assert [pod.name for pod in pods] == ["mnist-particle-2-5"]

    def test_nothing_that_is_older_than_a_pods_end_brings_it_back(self):
        pods = PodSet()
        pods.put(a_pod(version="5"))
        pods.drop("mnist-particle-2-5", "pod-uid")
        assert not pods.replace([read(a_pod(version="5"))], 6), "the list began before the end"
        assert pods.put(a_pod(version="4")) == (None, None), "the answer to our own request came late"
        assert not len(pods)

    def test_an_older_list_does_not_bring_back_what_a_newer_one_had_not(self):
        pods = PodSet()
        pods.put(a_pod(version="5"))
        pods.replace([], 20)
        assert not pods.replace([read(a_pod(version="7"))], 9)
        assert not len(pods)

    def test_an_older_list_does_not_bring_back_what_another_pod_of_that_name_has_followed(self):
        pods = PodSet()
        pods.put(a_pod(version="5"))
        pods.replace([read(a_pod(version="12", metadata={"uid": "u2"}))], 20)
        pods.drop("mnist-particle-2-5", "u2")
        assert not pods.replace([read(a_pod(version="7"))], 9)
        assert not len(pods)

    def test_a_pod_that_was_out_of_sight_can_come_back(self):
        pods = PodSet()
        pods.put(a_pod(version="5"))
        pods.drop("mnist-particle-2-5", "pod-uid")
        pods.put(a_pod(version="8"))
        assert len(pods) == 1, "its label was taken away, and given back"

    def test_of_those_that_are_gone_only_the_last_are_remembered(self, monkeypatch):
        monkeypatch.setattr(podset, "REMEMBERED", 2)
        pods, gone = PodSet(), [a_pod(version="5", metadata={"name": f"p{n}", "uid": f"u{n}"}) for n in range(3)]
        for pod in gone:
            pods.put(pod)
            pods.drop(pod["metadata"]["name"], pod["metadata"]["uid"])
        for pod in gone:
            pods.put(pod)
        assert [pod.name for pod in pods] == ["p0"]
