"""A swarm under test: its job, its pods, and what a person is told of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.kube import Kube, Object, until
from swarm_api.names import API_VERSION, KIND

SCRIPT = Path(__file__).parent / "scripts" / "train.py"
START_SECONDS = 90
"""Three pods import torch on two cores that others use too."""


@dataclass(frozen=True)
class Life:
    """One pod that must be left alone."""

    uid: str
    restarts: int
    node: str


class Swarm:
    """One job in the namespace of a test."""

    def __init__(self, kube: Kube, image: str, name: str = "swarm") -> None:
        self.kube = kube
        self.image = image
        self.name = name

    # -- what a user does

    def start(
        self, *, replicas: int = 2, script: str | None = None, container: Mapping[str, Any] | None = None, **spec: Any
    ) -> None:
        """Apply a job whose particles run `scripts/train.py`, or another script, which finds it as /script/good.py."""
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "script"},
                "data": {"train.py": script or SCRIPT.read_text(), "good.py": SCRIPT.read_text()},
            },
            self.manifest(replicas=replicas, container=container, **spec),
        )

    def manifest(self, *, replicas: int, container: Mapping[str, Any] | None, **spec: Any) -> Object:
        """The job."""
        trainer = {
            "name": "trainer",
            "image": self.image,
            "command": ["python", "/script/train.py"],
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "volumeMounts": [{"name": "script", "mountPath": "/script"}],
        } | dict(container or {})
        template = {
            # So that the process is not the first of its namespace, which a container cannot kill from within.
            "shareProcessNamespace": True,
            "terminationGracePeriodSeconds": 10,
            "volumes": [{"name": "script", "configMap": {"name": "script"}}],
            "containers": [trainer],
        }
        synchronizer = {"template": {"spec": {**template, "containers": [{"name": "trainer", "image": self.image}]}}}
        particles = {"replicas": replicas, "template": {"spec": template}} | spec.pop("particles", {})
        algorithm = {"name": "PSOPS", "syncPeriod": 5}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {"algorithm": algorithm, "particles": particles, "synchronizer": synchronizer, **spec},
        }

    def change(self, patch: str) -> None:
        """`kubectl patch` of the job."""
        self.kube("patch", "stj", self.name, "--type=merge", f"--patch={patch}")

    def finish(self) -> None:
        """Let every particle find that its training is over, then wait for the model."""
        for name in self.lives():
            if "-particle-" in name:
                self.kube("exec", name, "--container=trainer", "--", "touch", "/tmp/end")
        self.reaches("Complete")

    def kill(self, pod: str) -> None:
        """SIGKILL for the process that trains."""
        self.kube("exec", pod, "--container=trainer", "--", "sh", "-c", "kill -9 $(cat /tmp/pid)")

    # -- what a user sees

    @property
    def job(self) -> Object:
        """Empty if there is none."""
        return self.kube.get("stj", self.name) or {}

    @property
    def status(self) -> Object:
        """Empty if there is none yet."""
        return dict(self.job.get("status") or {})

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message."""
        found = self.status.get("conditions", ())
        each = next((each for each in found if each["type"] == kind), {})
        return each.get("status", ""), each.get("reason", ""), each.get("message", "")

    def row(self) -> dict[str, str]:
        """What `kubectl get stj` shows of it, by the heads of the columns."""
        heads, cells = (line.split() for line in self.kube("get", "stj", self.name).splitlines())
        return dict(zip(heads, cells, strict=True))

    def events(self) -> list[str]:
        """Reasons of the job's events."""
        chosen = "--field-selector=involvedObject.kind=" + KIND
        return self.kube("get", "events", chosen, "--output=jsonpath={.items[*].reason}").split()

    def pods(self) -> dict[str, Object]:
        """By name."""
        found = self.kube.list("pods", f"swarm.training/job-name={self.name}")
        return {pod["metadata"]["name"]: pod for pod in found}

    def lives(self) -> dict[str, Life]:
        """The pods whose containers run and are not told to end."""
        return {
            name: Life(pod["metadata"]["uid"], restarts(pod), pod["spec"]["nodeName"])
            for name, pod in self.pods().items()
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        }

    def lives_but(self, *names: str) -> dict[str, Life]:
        """The same without these."""
        return {name: life for name, life in self.lives().items() if name not in names}

    def keeps(self, lives: Mapping[str, Life]) -> None:
        """These pods are still the same, and none of their containers was started again."""
        now = self.lives()
        assert {name: now.get(name) for name in lives} == lives

    def pod(self, index: int, incarnation: int = 1) -> str:
        """Name of a particle's pod."""
        return f"{self.name}-particle-{index}-{incarnation}"

    def synchronizer(self, incarnation: int = 1) -> str:
        """Name of its pod."""
        return f"{self.name}-synchronizer-{incarnation}"

    # -- what is waited for

    def reaches(self, state: str, seconds: float = START_SECONDS) -> Object:
        """The status, as soon as the state is this."""
        return until(lambda: self.status, lambda status: status.get("state") == state, f"state {state}", seconds)

    def trains(self, seconds: float = START_SECONDS, **incarnations: int) -> Object:
        """The status, as soon as all are ready and the named particles (`_0=2`) contributed in these incarnations."""

        def good(status: Object) -> bool:
            attempts, particles = status.get("attempts", {}), status.get("particles", {})
            ready = particles.get("ready", 0) == particles.get("desired", -1)
            wanted = {key.lstrip("_"): number for key, number in incarnations.items()}
            there = all(
                attempts.get(key, {}).get("incarnation") == number
                and (key == "synchronizer" or attempts[key].get("contributed"))
                for key, number in wanted.items()
            )
            return status.get("state") == "Running" and ready and there

        return until(lambda: self.status, good, f"all ready and trained, {incarnations or 'at all'}", seconds)

    def goes_on(self, seconds: float = 30) -> None:
        """More rounds commit than did."""
        before = self.status["training"]["round"]
        until(
            lambda: self.status.get("training", {}).get("round", 0),
            lambda now: now > before + 1,
            f"rounds after {before}",
            seconds,
        )


def restarts(pod: Object) -> int:
    """Of all containers of a pod."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", ()))
