"""Jobs for one machine whose particles are small scripts, and a look at what is left running."""

import asyncio
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support import stand_in

MARK = "TEST_MARK"
"""Environment variable that every process below a test's children inherits."""

FAMILY = """
import multiprocessing, os, subprocess, sys, time
if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,)).start()
    subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(300)
        os._exit(0)
    os.wait()
"""
"""Beginning of a script that starts five processes: a worker, a shell with two sleeps, and a daemon."""
FAMILY_SIZE = 7
"""With the script itself and its keeper."""


def manifest(command: list[str] | str, name: str = "job", **spec: Any) -> dict[str, Any]:
    """A manifest whose particles run a command, or a Python script that is given as text."""
    if isinstance(command, str):
        command = ["python", "-c", textwrap.dedent(command)]
    container = {"name": "trainer", "image": "unused", "command": command}
    particles = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    particles |= spec.pop("particles", {})
    container |= spec.pop("container", {})
    return {
        "apiVersion": "swarm.training/v1alpha1",
        "kind": "SwarmTrainingJob",
        "metadata": {"name": name},
        "spec": {"algorithm": {"name": "PSOPS"}, "particles": particles, **spec},
    }


def written(folder: Path, data: dict[str, Any]) -> Path:
    """The manifest as a file."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def marked(mark: str) -> dict[int, str]:
    """Processes that run (zombies do not) and inherited this mark: their command lines by pid."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"{MARK}={mark}\0".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found[int(entry)] = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def python(script: str) -> list[str]:
    """A command that runs a script."""
    return [sys.executable, "-c", textwrap.dedent(script)]


async def becomes_true(probe: Callable[[], Any]) -> None:
    """Look until the probe is true: at the system, which tells nobody when it changes."""
    while not probe():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def swarm_manifest(script: str, name: str = "job", **spec: Any) -> dict[str, Any]:
    """A manifest whose synchronizer is the stand-in, and whose particles can `tell` it how they are."""
    container = {"name": "trainer", "command": ["python", stand_in.__file__]}
    synchronizer = {"template": {"spec": {"containers": [container]}}}
    text = stand_in.PARTICLE + textwrap.dedent(script)
    return manifest(["python", "-c", text], name=name, synchronizer=synchronizer, **spec)
