"""A swarm of real processes without an operator: what the trainer does by itself, and what a kill does to it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import ParticleReport, Report
from swarm_api.settings import Settings

T = TypeVar("T")

UID = "9f0c2f6e"


def some_settings(**changes: Any) -> Settings:
    """Settings of a small swarm."""
    values: dict[str, Any] = {
        "generation": 1,
        "job": "test",
        "uid": UID,
        "seed": 7,
        "replicas": 2,
        "min_replicas": 1,
        "algorithm": Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=2),
        "sync": Sync(grace_milliseconds=30_000),
    }
    return Settings(**(values | changes))


def eventually(probe: Callable[[], T], what: str, *, seconds: float = 30.0) -> T:
    """The first truthy value of the probe, or a failure that says what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


class Processes:
    """One folder, one job; every process is ended by `swarm_of`."""

    def __init__(self, folder: Path, settings: Settings, script: str) -> None:
        self.folder = folder
        self.settings = settings
        self.alive: list[subprocess.Popen[bytes]] = []
        self._script = folder / "train.py"
        self._script.write_text(script)
        (folder / "secret").write_text("a secret of the test")
        (folder / "token").write_text("token")
        self.write(settings)

    def write(self, settings: Settings) -> None:
        """Change the synchronizer's settings."""
        partial = self.folder / "settings.partial"
        partial.write_text(settings.model_dump_json(by_alias=True))
        partial.replace(self.folder / "settings.json")

    def synchronizer(self, incarnation: int = 1) -> subprocess.Popen[bytes]:
        """Start one."""
        (self.folder / "where.json").unlink(missing_ok=True)
        return self._start(
            f"synchronizer-{incarnation}",
            [sys.executable, "-m", "swarm_trainer.synchronizer"],
            {
                env.INCARNATION: str(incarnation),
                env.INSTANCE_UID: f"s{incarnation}",
                env.SYNCHRONIZER_ADDRESS: "127.0.0.1:0",
                env.REPORT_ADDRESS: "127.0.0.1:0",
                env.REPORT_TOKEN_FILE: str(self.folder / "token"),
                env.SETTINGS_FILE: str(self.folder / "settings.json"),
            },
        )

    def particle(self, index: int, incarnation: int = 1, uid: str = "", **extra: str) -> subprocess.Popen[bytes]:
        """Start one that runs the script."""
        return self._start(
            f"particle-{index}-{incarnation}",
            [sys.executable, str(self._script)],
            {
                env.PARTICLE_INDEX: str(index),
                env.INCARNATION: str(incarnation),
                env.INSTANCE_UID: uid or f"p{index}.{incarnation}",
                **extra,
            },
        )

    def log(self, name: str) -> str:
        """What the process of this name has printed."""
        return (self.folder / f"{name}.log").read_text()

    def report(self) -> Report | None:
        """The synchronizer's report, if it can be read."""
        try:
            where = json.loads((self.folder / "where.json").read_text())["report"]
            request = urllib.request.Request(f"http://{where}/report", headers={env.REPORT_TOKEN_HEADER: "token"})
            with urllib.request.urlopen(request, timeout=2) as answer:
                return Report.model_validate_json(answer.read())
        except (OSError, ValueError):
            return None

    def reported(self, index: int) -> ParticleReport | None:
        """One particle in the report."""
        report = self.report()
        return report.particle(index) if report else None

    def history(self, kind: str) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl of this kind."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]

    def _start(self, name: str, command: list[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            env.JOB_NAME: self.settings.job,
            env.JOB_UID: self.settings.uid,
            env.NAMESPACE: "default",
            env.SYNCHRONIZER_ADDRESS_FILE: str(self.folder / "where.json"),
            env.SECRET_FILE: str(self.folder / "secret"),
            env.OUTPUT_DIR: str(self.folder),
            "OMP_NUM_THREADS": "1",
            **extra,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=self.folder)
        self.alive.append(process)
        return process


@contextmanager
def swarm_of(folder: Path, script: str, **changes: Any) -> Iterator[Processes]:
    """Processes of a swarm with these settings; all are gone afterwards."""
    processes = Processes(folder, some_settings(**changes), script)
    try:
        yield processes
    finally:
        for process in processes.alive:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
