"""What a pod template comes to on one machine."""

import os
import platform
import sys

import pytest

from support.local import manifest, written
from swarm_operator.cli.manifest import load

TEMPLATE = "spec.particles.template.spec"
CONTAINER = f"{TEMPLATE}.containers[0]"


def recipes(folder, container=None, **pod):
    data = manifest(["python", "train.py"], container=container or {})
    data["spec"]["particles"]["template"]["spec"] |= pod
    loaded = load(written(folder, data))
    return loaded, loaded.recipes


def launched(folder, container, **pod):
    loaded, found = recipes(folder, container, **pod)
    assert not loaded.said(found.problems)
    own = {"SWARM_PARTICLE_INDEX": "3", "SWARM_INSTANCE_UID": "uid", "SWARM_NAMESPACE": "default"}
    return found.particle.launch("job-particle-3-1", own, {"OMP_NUM_THREADS": "2"}, {"CUDA_VISIBLE_DEVICES": "5"})


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({}, [sys.executable, "train.py"]),
        ({"command": ["python3"], "args": ["-m", "x"]}, [sys.executable, "-m", "x"]),
        ({"command": ["torchrun", "train.py"]}, ["torchrun", "train.py"]),
        (
            {"args": ["--lr=$(LR)", "$$(LR)", "$(NONE)", "$LR", "$(SWARM_PARTICLE_INDEX)"]},
            [sys.executable, "train.py", "--lr=0.1", "$(LR)", "$(NONE)", "$LR", "3"],
        ),
    ],
)
def test_the_command_is_the_containers_with_variables_filled_in(tmp_path, container, argv):
    environment = [{"name": "LR", "value": "0.1"}]
    assert list(launched(tmp_path, {"env": environment, **container}).argv) == argv


def test_the_environment_is_this_machines_with_the_templates_on_top(tmp_path, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "here")
    monkeypatch.setenv("SWARM_JOB_NAME", "another swarm's")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    environment = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(LATER)-$(FROM_HERE)"},
        {"name": "LATER"},
        {"name": "CUDA_VISIBLE_DEVICES", "value": "0"},
        {"name": "MY_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "MY_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
    ]
    found = launched(tmp_path, {"env": environment}).env
    assert found["FROM_HERE"] == "here"
    assert (found["A"], found["B"]) == ("1", "1-$(LATER)-$(FROM_HERE)")
    assert (found["MY_POD"], found["MY_NODE"]) == ("job-particle-3-1", platform.node())
    assert (found["OMP_NUM_THREADS"], found["CUDA_VISIBLE_DEVICES"]) == ("2", "5")
    assert found["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable)
    assert not {"SWARM_JOB_NAME", "OPTIONAL"} & found.keys()


def test_without_a_working_directory_it_runs_where_the_manifest_lies(tmp_path):
    (tmp_path / "sub").mkdir()
    assert launched(tmp_path, {}).cwd == tmp_path
    assert launched(tmp_path, {"workingDir": str(tmp_path / "sub")}).cwd == tmp_path / "sub"


def test_the_synchronizer_has_a_command_of_its_own(tmp_path):
    _, found = recipes(tmp_path)
    own = found.synchronizer.launch("job-synchronizer-1", {}, {}, {})
    assert own.argv == (sys.executable, "-m", "swarm_trainer.synchronizer")


VOLUME = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}


@pytest.mark.parametrize(
    ("container", "pod", "problem", "everywhere"),
    [
        ({"command": []}, {}, f"{CONTAINER}.command: needed on one machine", False),
        ({"workingDir": "/no/such"}, {}, f"{CONTAINER}.workingDir: /no/such is no folder of this machine", False),
        ({"env": [{"name": "SWARM_X", "value": ""}]}, {}, f"{CONTAINER}.env[0].name: SWARM_X is set by swarm", True),
        ({"env": [{"name": "X", "value": 1}]}, {}, f"{CONTAINER}.env[0].value: Input should be a valid string", True),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            {},
            f"{CONTAINER}.env[0].valueFrom.secretKeyRef: one machine has none",
            False,
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.qosClass"}}}]},
            {},
            f"{CONTAINER}.env[0].valueFrom: one machine has no status.qosClass",
            False,
        ),
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, {}, f"{CONTAINER}.envFrom[0]: one machine has no Conf", False),
        (VOLUME, {}, f"{CONTAINER}.volumeMounts[0].name: no volume is named v", True),
        (
            VOLUME,
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
            f"{TEMPLATE}.volumes[0].persistentVolumeClaim: cannot be mounted at /data",
            False,
        ),
        (VOLUME, {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}, f"{TEMPLATE}.volumes[0].hostPath: ", False),
        (
            {"resources": {"limits": {"nvidia.com/gpu": "half"}}},
            {},
            f"{CONTAINER}.resources.limits.nvidia.com/gpu: 'half' must be a whole number",
            True,
        ),
        ({"resources": {"limits": {"amd.com/gpu": 1}}}, {}, "amd.com/gpu: one machine deals out nvidia.com/gpu", False),
        ({}, {"containers": []}, f"{TEMPLATE}.containers: one of them must be named trainer", True),
        (
            {},
            {"containers": [{"name": "a"}, {"name": "b"}]},
            f"{TEMPLATE}.containers: one of them must be named trainer",
            True,
        ),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path, container, pod, problem, everywhere):
    loaded, found = recipes(tmp_path, container, **pod)
    (said,) = loaded.said(found.problems)
    assert problem in said
    assert found.problems[0].everywhere is everywhere


@pytest.mark.parametrize(
    ("container", "pod", "notes"),
    [
        ({"resources": {"requests": {"cpu": 4, "nvidia.com/gpu": 1}}}, {}, ()),
        (
            {"resources": {"limits": {"memory": "4Gi"}}},
            {},
            ("limits of cpu and memory are not enforced on one machine",),
        ),
        (
            VOLUME,
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            ("volume v (emptyDir) is not mounted on one machine: /data is this machine's own",),
        ),
        (VOLUME, {"volumes": [{"name": "v", "hostPath": {"path": "/data"}}]}, ()),
        (
            {},
            {"containers": [{"name": "log"}, {"name": "trainer", "command": ["true"]}], "initContainers": [{}]},
            (
                "initContainers are not run on one machine",
                "only container trainer runs on one machine; ignored: log",
            ),
        ),
    ],
)
def test_what_is_left_out_is_said(tmp_path, container, pod, notes):
    _, found = recipes(tmp_path, container, **pod)
    assert (found.problems, found.notes) == ((), notes)


def test_gpus_matter_to_all_as_soon_as_anyone_asks_for_one(tmp_path):
    assert not recipes(tmp_path)[1].gpus_matter
    _, found = recipes(tmp_path, {"resources": {"limits": {"nvidia.com/gpu": "2"}}})
    assert (found.gpus_matter, found.particle.gpus, found.synchronizer.gpus) == (True, 2, 0)
