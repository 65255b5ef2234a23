"""A swarm of real processes without an operator: what the trainer does by itself, and what a kill does to it."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file

from support import nursery
from support.nursery import Process
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import ParticleReport, Presence, Report
from swarm_api.settings import Settings
from swarm_trainer.synchronizer.output import MODEL_FILE

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
        self.checkpoints = folder / "checkpoints"
        self.settings = settings
        self.started: list[Process] = []
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

    def synchronizer(
        self,
        incarnation: int = 1,
        *,
        keeps: bool = False,
        program: Sequence[str] = ("-m", "swarm_trainer.synchronizer"),
        **extra: str,
    ) -> Process:
        """Start one, with these environment variables; keeps: with checkpoints in the folder `checkpoints`."""
        (self.folder / "where.json").unlink(missing_ok=True)
        return self.start(
            f"synchronizer-{incarnation}",
            program,
            {
                env.INCARNATION: str(incarnation),
                env.INSTANCE_UID: f"s{incarnation}",
                env.SYNCHRONIZER_ADDRESS: "127.0.0.1:0",
                env.REPORT_ADDRESS: "127.0.0.1:0",
                env.REPORT_TOKEN_FILE: str(self.folder / "token"),
                env.SETTINGS_FILE: str(self.folder / "settings.json"),
                **({env.CHECKPOINT_DIR: str(self.checkpoints)} if keeps else {}),
                **extra,
            },
        )

    def particle(self, index: int, incarnation: int = 1, uid: str = "", **extra: str) -> Process:
        """Start one that runs the script, with these environment variables."""
        return self.start(
            f"particle-{index}-{incarnation}",
            [str(self._script)],
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

    def said(self, name: str) -> list[dict[str, Any]]:
        """The lines of JSON that the process of this name has printed; the last may still be half-written."""
        path = self.folder / f"{name}.log"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def steps(self, name: str) -> int:
        """Optimizer steps that this process has said it took."""
        return max((line["step"] for line in self.said(name) if "step" in line), default=0)

    def trains_on(self, *names: str, steps: int = 10) -> None:
        """Wait until each of these processes has taken so many more steps."""
        before = {name: self.steps(name) for name in names}
        eventually(
            lambda: all(self.steps(name) >= before[name] + steps for name in names), f"{', '.join(names)} train on"
        )

    def until_loss(self, name: str, below: float) -> None:
        """Wait until this process has come so far."""
        eventually(lambda: any(line.get("loss", below) < below for line in self.said(name)), f"{name} learns")

    def round(self) -> int:
        """The last that was committed, as the report has it."""
        report = self.report()
        return report.round if report else 0

    def contributors(self) -> list[int]:
        """Of the last round in metrics.jsonl."""
        rounds = self.history("round")
        return list(rounds[-1]["contributors"]) if rounds else []

    def rounds_go_on(self, rounds: int = 5) -> None:
        """Wait for so many more rounds."""
        before = eventually(self.report, "a report").round
        eventually(lambda: self.round() >= before + rounds, "rounds go on")

    def until_presence(self, index: int, presence: Presence) -> ParticleReport:
        """Wait until the synchronizer says so of a particle."""

        def found() -> ParticleReport | None:
            particle = self.reported(index)
            return particle if particle and particle.presence is presence else None

        return eventually(found, f"particle {index} {presence}")

    def touch(self, name: str) -> None:
        """Make an empty file, as a sign to the script."""
        (self.folder / name).touch()

    def model(self) -> dict[str, torch.Tensor]:
        """The trained model's file, read without swarm_trainer."""
        return load_file(self.folder / MODEL_FILE)

    def ended(self, synchronizer: Process, *, seconds: float = 60.0) -> int:
        """Wait for the synchronizer's end, as an operator does that reads its report; returns its exit code."""
        eventually(lambda: not self.report() and synchronizer.poll() is not None, "the job's end", seconds=seconds)
        return synchronizer.wait()

    def start(self, name: str, program: Sequence[str], extra: dict[str, str]) -> Process:
        """A process of this job with these environment variables besides; it prints to `NAME.log`."""
        environ = {
            "PATH": os.environ["PATH"],
            "OMP_NUM_THREADS": "1",
            env.JOB_NAME: self.settings.job,
            env.JOB_UID: self.settings.uid,
            env.NAMESPACE: "default",
            env.SYNCHRONIZER_ADDRESS_FILE: str(self.folder / "where.json"),
            env.SECRET_FILE: str(self.folder / "secret"),
            env.OUTPUT_DIR: str(self.folder),
            **extra,
        }
        process = nursery.start(program, environ, self.folder, self.folder / f"{name}.log")
        self.started.append(process)
        return process


@contextmanager
def swarm_of(folder: Path, script: str, **changes: Any) -> Iterator[Processes]:
    """Processes of a swarm with these settings; all are gone afterwards, and a failure shows what they printed."""
    processes = Processes(folder, some_settings(**changes), script)
    try:
        yield processes
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"---- {log.name}\n{log.read_text()[-2000:]}")
        raise
    finally:
        for process in processes.started:
            process.signal(signal.SIGKILL)
            process.wait()
