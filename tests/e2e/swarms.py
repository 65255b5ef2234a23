"""A swarm under test: its job, its pods, and what a person is told of them."""

import json
import re
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
        self,
        *,
        replicas: int = 2,
        script: str | None = None,
        container: Mapping[str, Any] | None = None,
        pod: Mapping[str, Any] | None = None,
        synchronizer: Mapping[str, Any] | None = None,
        keeps: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """Apply a job whose particles run `scripts/train.py`, or another script, which finds it as /script/good.py.

        Args:
            container: more fields of the container that trains.
            pod: more fields of a particle's pod.
            synchronizer: more fields of the synchronizer's pod.
            keeps: more fields of `spec.synchronizer`, such as a checkpoint's.
            spec: more fields of the job.
        """
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "script"},
                "data": {"train.py": script or SCRIPT.read_text(), "good.py": SCRIPT.read_text()},
            },
            self._manifest(replicas, container or {}, pod or {}, synchronizer or {}, keeps or {}, spec),
        )

    def _manifest(
        self,
        replicas: int,
        container: Mapping[str, Any],
        pod: Mapping[str, Any],
        synchronizer: Mapping[str, Any],
        keeps: Mapping[str, Any],
        spec: dict[str, Any],
    ) -> Object:
        # A process that is the first of its namespace cannot be killed from within.
        common = {"shareProcessNamespace": True, "terminationGracePeriodSeconds": 10}
        trainer = {
            "name": "trainer",
            "image": self.image,
            "command": ["python", "/script/train.py"],
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "volumeMounts": [{"name": "script", "mountPath": "/script"}],
            **container,
        }
        volumes = [{"name": "script", "configMap": {"name": "script"}}]
        template = {"spec": {**common, "volumes": volumes, "containers": [trainer], **pod}}
        holder = {"spec": {**common, "containers": [{"name": "trainer", "image": self.image}], **synchronizer}}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": self.name},
            "spec": {
                "algorithm": {"name": "PSOPS", "syncPeriod": 5},
                "synchronizer": {"template": holder, **keeps},
                **spec,
                "particles": {"replicas": replicas, "template": template, **spec.get("particles", {})},
            },
        }

    def change(self, **spec: Any) -> None:
        """`kubectl patch` of the job."""
        self.kube("patch", "stj", self.name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def scale(self, replicas: int) -> None:
        """`kubectl scale`."""
        self.kube("scale", f"stj/{self.name}", f"--replicas={replicas}")

    def finish(self) -> None:
        """Let every particle find that its training is over, then wait for the model."""
        for name in self.lives():
            if "-particle-" in name:
                self.kube("exec", name, "--container=trainer", "--", "touch", "/tmp/end")
        self.reaches("Complete")

    def kill(self, pod: str) -> None:
        """SIGKILL for the Python processes of a pod; the pattern does not match the shell that it is given to."""
        pids = "$(grep -l '^[p]ython' /proc/[0-9]*/cmdline | cut -d/ -f3)"
        self.kube("exec", pod, "--container=trainer", "--", "sh", "-c", f"kill -9 {pids}")

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
        each: Object = next((each for each in found if each["type"] == kind), {})
        return each.get("status", ""), each.get("reason", ""), each.get("message", "")

    def row(self, *, wide: bool = False) -> dict[str, str]:
        """What `kubectl get stj` shows of it, by the heads of the columns."""
        heads, cells = self.kube("get", "stj", self.name, *(["--output=wide"] if wide else [])).splitlines()
        starts = [head.start() for head in re.finditer(r"\S+", heads)]
        spans = list(zip(starts, [*starts[1:], None], strict=True))
        return {heads[start:end].strip(): cells[start:end].strip() for start, end in spans}

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


def shows(row: Mapping[str, str], **cells: str) -> bool:
    """Whether a row of `kubectl get` has these cells."""
    return cells.items() <= row.items()
