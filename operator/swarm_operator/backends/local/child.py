"""A child process as `swarm run` holds it: by the pipes of its keeper."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What to run, with the whole environment, where."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path


class Child:
    """One process under its keeper. Every change is followed by a call of `changed`, in the running loop."""

    def __init__(self, launch: Launch, log: Path, changed: Callable[[], None]) -> None:
        """Start it; output is appended to `log`.

        Raises:
            OSError: the working directory or the log cannot be used.
        """
        self.pid: int | None = None
        """Of the process itself, once it runs."""
        self.failure = ""
        """Why it could not be started."""
        self.exit_code: int | None = None
        """Set when it ended; negative: the signal that ended it."""
        self._changed = changed
        self._unread = b""
        self._gone = asyncio.Event()
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(launch.env),
                cwd=launch.cwd,
                start_new_session=True,
            )
        assert self._keeper.stdout
        self._reports = self._keeper.stdout.fileno()
        os.set_blocking(self._reports, False)
        asyncio.get_running_loop().add_reader(self._reports, self._hear)
        self._order(argv=list(launch.argv))

    @property
    def keeper(self) -> int:
        """Pid of the keeper."""
        return self._keeper.pid

    @property
    def gone(self) -> bool:
        """Whether the process, all that it started and the keeper ended (or the keeper alone: `abandoned`)."""
        return self._gone.is_set()

    @property
    def abandoned(self) -> bool:
        """Whether the keeper ended by itself, so that others must see to what it kept."""
        return self.gone and self._keeper.returncode != 0

    def signal(self, number: int) -> None:
        """Send a signal to the process itself."""
        self._order(signal=number)

    def stop(self, grace: float) -> None:
        """SIGTERM; after `grace` seconds SIGKILL for it and all that it started."""
        self._order(stop=grace)

    def kill(self) -> None:
        """SIGKILL for it and all that it started, now."""
        self._hang_up()

    def kill_keeper(self) -> None:
        """Last resort where the keeper does not answer: end it, and see to what it kept."""
        if not self.gone:
            self._keeper.kill()

    async def wait(self) -> None:
        """Until `gone`."""
        await self._gone.wait()

    def _order(self, **order: Any) -> None:
        assert self._keeper.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):  # ended, or told to: nothing is left to order
            self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
            self._keeper.stdin.flush()

    def _hang_up(self) -> None:
        assert self._keeper.stdin
        with contextlib.suppress(BrokenPipeError):  # an order that never reached it
            self._keeper.stdin.close()

    def _hear(self) -> None:
        data = os.read(self._reports, 65536)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.pid = said.get("started", self.pid)
            self.failure = said.get("failed", self.failure)
            self.exit_code = said.get("ended", self.exit_code)
        if not data:
            self._end()
        self._changed()

    def _end(self) -> None:
        assert self._keeper.stdout
        asyncio.get_running_loop().remove_reader(self._reports)
        self._keeper.stdout.close()
        self._hang_up()
        # Its end of the pipe closed because it ends: this waits for the kernel to hand its orphans on.
        self._keeper.wait()
        self._gone.set()
