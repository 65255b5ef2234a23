"""The folder of one run: what lies where, and how it is written so that a reader never sees half a file."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from swarm_api.job import SwarmTrainingJob


class FolderError(Exception):
    """The folder cannot be used; the message says what to do."""


class RunFolder:
    """Paths of one run. Everything below `internal` is between swarm and its children."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.manifest = path / "job.yaml"
        self.run = path / "run.json"
        """Who runs: pids, addresses, members."""
        self.status = path / "status.json"
        self.events = path / "events.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.model = path / "model.safetensors"
        self.checkpoints = path / "checkpoints"
        self.internal = path / "internal"
        self.settings = self.internal / "settings.json"
        self.addresses = self.internal / "synchronizer.json"
        self.link_secret = self.internal / "link-secret"
        self.report_token = self.internal / "report-token"
        self.home = self.internal / "home"
        """Where the manifest came from: what it says of folders is meant from there."""
        self.socket = self.internal / "control.sock"

    @classmethod
    def create(cls, job: str, path: Path | None = None, root: Path = Path("runs")) -> "RunFolder":
        """A new folder; without a path one below `root`, to which `latest` there then points.

        Raises:
            FolderError: it is not empty, or cannot be made.
        """
        try:
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)
                if any(path.iterdir()):
                    raise FolderError(f"{path} is not empty: name another folder with --dir, or remove it")
            else:
                path = _fresh(root, job)
                link = root / f".latest-{path.name}"
                link.symlink_to(path.name)
                link.replace(root / "latest")
            folder = cls(path.resolve())
            folder.logs.mkdir()
            folder.internal.mkdir(mode=0o700)
        except OSError as error:
            raise FolderError(f"{error.filename}: {error.strerror}: choose another folder with --dir") from error
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of a run that was started before.

        Raises:
            FolderError: it is none.
        """
        folder = cls(path.resolve())
        if not folder.run.is_file():
            raise FolderError(f"{path} is not the folder of a run: it has no run.json")
        return folder

    def log(self, name: str) -> Path:
        """Output of the child of this name."""
        return self.logs / f"{name}.log"

    def shown(self, path: Path | None = None) -> str:
        """A path in it, or its own, as one would type it here."""
        path = path or self.path
        here = Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any(self.checkpoints.glob("[0-9]*-[0-9]*"))

    def write_manifest(self, manifest: Mapping[str, Any], home: Path) -> None:
        """What was run, as it was after --set, and the folder that it came from."""
        self.manifest.write_text(yaml.safe_dump(dict(manifest), sort_keys=False))
        self.home.write_text(str(home))

    def write_status(self, job: SwarmTrainingJob) -> None:
        """The status as `kubectl get -o json` would show it."""
        replace(self.status, job.status.model_dump_json(by_alias=True, indent=2) + "\n")

    def append_event(self, event: Mapping[str, Any]) -> None:
        """One line of events.jsonl."""
        with self.events.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def read_addresses(self) -> dict[str, str]:
        """Where the newest synchronizer listens: `address` and `report`; empty before the first one does."""
        try:
            found = json.loads(self.addresses.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def tail(path: Path, lines: int = 20, size: int = 2048) -> str:
    """The last lines of a file, at most `size` bytes of them; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            cut = file.tell() > 0
            text = file.read(size).decode(errors="replace")
    except FileNotFoundError:
        return ""
    found = text.splitlines()
    if cut and len(found) > 1:
        found = found[1:]
    return "\n".join(found[-lines:]).strip("\n")


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old or the new text, whenever it looks."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def _fresh(root: Path, job: str) -> Path:
    """A new folder of this second; a second run within it gets a number."""
    name = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path
