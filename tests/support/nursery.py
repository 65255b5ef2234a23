"""Real processes that start in milliseconds: forked from one that has imported torch already.

Importing torch costs seconds of CPU, and a test of a kill starts four processes. Each process of the nursery has its
own pid, environment and log, is a child of the test, and runs its program to the ordinary end of an interpreter: exit
codes, signals, uncaught errors and atexit are as for one that was started by name.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_PRELOADED = ("swarm_trainer", "swarm_trainer.synchronizer.hub", "torch._dynamo")
"""The last is imported by a process's first optimizer."""


class Process:
    """A child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"process {self.pid} still runs after {seconds:.0f} s")
            time.sleep(0.01)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def start(program: Sequence[str], environ: dict[str, str], folder: Path, log: Path) -> Process:
    """Run `[script, ...]` or `["-m", module, ...]` in this folder, with just this environment."""
    order = {"program": list(program), "environ": environ, "folder": str(folder), "log": str(log)}
    nursery = _nursery()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    libc = ctypes.CDLL(None)
    # Whoever loses its parent meanwhile becomes a child of this process: that is how the new one gets here.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        nursery.stdin.write(json.dumps(order).encode() + b"\n")
        nursery.stdin.flush()
        return Process(int(nursery.stdout.readline()))
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@functools.cache
def _nursery() -> "subprocess.Popen[bytes]":
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    nursery = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, start_new_session=True
    )
    atexit.register(nursery.communicate)
    return nursery


def _serve() -> dict[str, Any] | None:
    """Fork one process for every line; returns in each of them with its order, and at the end with None."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            if child := os.fork():
                os.write(writing, str(child).encode())
                os._exit(0)
            os.close(reading)
            os.close(writing)
            order: dict[str, Any] = json.loads(line)
            return order
        os.waitpid(between, 0)
        print(os.read(reading, 32).decode(), flush=True)
        os.close(reading)
        os.close(writing)
    return None


def _become(order: dict[str, Any]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    os.closerange(3, 256)
    # Runs last: what other people's modules say of the frozen objects that they meet then would hide the log's end.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    option, *rest = order["program"]
    if option == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = order["program"], str(Path(option).parent)
        runpy.run_path(option, run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = ""
    for module in _PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # Else a collection in a child copies every page that it shares with the others.
    birth = _serve()
    if birth is None:
        os._exit(0)
    _become(birth)
