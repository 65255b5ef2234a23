"""`swarm run` as a process: started, watched and interrupted as a person does it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import uuid
from contextlib import contextmanager

from support.local import MARK, marked, written
from support.processes import eventually


def swarm(*arguments):
    """A finished `swarm` command."""
    command = [sys.executable, "-m", "swarm_operator.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class Run:
    """A `swarm run` that runs, its folder, and the mark on everything below it; without a manifest it resumes."""

    def __init__(self, folder, manifest, *arguments, on=None):
        self.mark = str(uuid.uuid4())
        self.folder = folder / "run"
        if manifest is None:
            job = ["--resume", str(self.folder)]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            job = [str(written(folder, manifest)), "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarm_operator.cli", "run", *job, *arguments],
            env={**os.environ, MARK: self.mark, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=on,
            stdout=subprocess.PIPE if on is None else on,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=on is not None,
            preexec_fn=lambda: _as_in_the_foreground(on),
        )
        if on is not None:
            os.close(on)

    @property
    def status(self):
        return self._json("status.json")

    def members(self):
        """Those that run: name to pids of the process and of its keeper."""
        members = (self._json("run.json") or {}).get("members", ())
        return {each["name"]: (each["pid"], each["keeper"]) for each in members if each["phase"] == "Running"}

    def trains(self, **incarnations):
        """Wait until two particles are ready, and the named members are in these incarnations (1, unless given)."""
        wanted = {"0": 1, "1": 1, "synchronizer": 1} | {key.lstrip("_"): n for key, n in incarnations.items()}

        def they_do():
            attempts = self.status["attempts"] if self.status else {}
            found = {key: attempt["incarnation"] for key, attempt in attempts.items()}
            return found == wanted and self.status["particles"]["ready"] == 2

        eventually(they_do, f"two particles ready in incarnations {wanted}")

    def ends(self, seconds=30):
        """Its exit code and what it printed; nothing of it is left."""
        output, _ = self.process.communicate(timeout=seconds)
        assert not marked(self.mark)
        return self.process.returncode, output

    def _json(self, name):
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None


def _as_in_the_foreground(terminal):
    # pytest itself may have been started in the background, where a shell has Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if terminal is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def a_run(folder, manifest, *arguments, **terminal):
    run = Run(folder, manifest, *arguments, **terminal)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        if run.process.stdout:
            run.process.stdout.close()
        eventually(lambda: not marked(run.mark), "nothing left")
