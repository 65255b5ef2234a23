"""Keeper of one child process: whatever happens to `swarm run`, nothing that the child started outlives it.

Run as a script (`python -I -S keeper.py`) with standard library only, so that it starts in milliseconds and has one
thread: a parent-death signal fires at the end of the *thread* that forked. It is a subreaper, so that all orphans
below it become its children, and ends only when it has no child left.

It hears JSON lines on stdin, first `{"argv": [...]}`, then `{"signal": 15}` for the child or `{"stop": seconds}`
(SIGTERM, and after so long SIGKILL for everything). The end of its stdin, be it by SIGKILL of `swarm run`, kills
everything at once. It says on stdout `{"started": pid}`, `{"failed": why}` where the program cannot be run, and
`{"ended": code}` as soon as the child ended; a negative code is a signal. The child writes to the keeper's stderr.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

_Order = dict[str, Any]
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START = 127
"""What a shell says of a program that it cannot run."""


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int, exempt: Collection[int] = ()) -> list[int]:
    """Pids of all processes below `root`, zombies among them; not those in `exempt` nor anything below them."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        if pid not in exempt:
            children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found


def kill_all(pids: Collection[int]) -> None:
    """SIGKILL for each; those that ended meanwhile, or belong to another user, are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # The name in parentheses may hold anything, parentheses too.
                yield int(entry), int(file.read().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_LIBC = ctypes.CDLL(None, use_errno=True)


class _Keeper:
    def __init__(self) -> None:
        # The child gets neither pipe: a copy in its hands would hide the end of swarm run, or the keeper's own.
        self.control = os.dup(0)
        self.report = os.dup(1)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        self.woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.unread = b""
        self.child = 0
        self.code: int | None = None
        self.deadline: float | None = None

    def run(self) -> None:
        """Start what the first line names, and keep it until nothing is left."""
        while not (lines := self._hear()):
            pass
        if lines[0] is None:
            return
        self.child = self._start(lines[0]["argv"])
        self._obey(lines[1:])
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        while self.code is None:
            left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            ready = dict(poll.poll(None if left is None else left * 1000))
            if self.woken in ready:
                os.read(self.woken, 4096)
                while self._reap(os.WNOHANG):
                    pass
            elif self.control in ready:
                self._obey(self._hear())
            elif not ready:
                break
        self._end_all()

    def _end_all(self) -> None:
        # Each end hands its orphans to us, so no child left means no descendant left.
        while True:
            kill_all(descendants(os.getpid()))
            if not self._reap(0):
                return

    def _reap(self, flags: int) -> bool:
        """Take one ended child, and say so if it was the main one; False where there was none."""
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            return False
        if pid == self.child:
            self.code = os.waitstatus_to_exitcode(status)
            self._say({"ended": self.code})
        return pid != 0

    def _hear(self) -> list[_Order | None]:
        """The lines that have come, waiting for more bytes; None as the last one: there will be no more."""
        data = os.read(self.control, 65536)
        *lines, self.unread = (self.unread + data).split(b"\n")
        heard: list[_Order | None] = [json.loads(line) for line in lines]
        return heard if data else [*heard, None]

    def _obey(self, orders: list[_Order | None]) -> None:
        for order in orders:
            if order is None:
                self._end_all()
                return
            if "stop" in order:
                if self.deadline is not None:
                    continue  # a second SIGTERM would tell it to hurry
                self.deadline = time.monotonic() + order["stop"]
            if self.code is None:
                os.kill(self.child, order.get("signal", signal.SIGTERM))

    def _say(self, words: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # nobody is left to hear it
            os.write(self.report, json.dumps(words).encode() + b"\n")

    def _start(self, argv: list[str]) -> int:
        keeper = os.getpid()
        failed, fail = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(failed)
            self._become(argv, keeper, fail)
        os.close(fail)
        with open(failed, "rb") as file:  # ends empty when exec closed it
            why = file.read().decode()
        self._say({"failed": why} if why else {"started": pid})
        return pid

    def _become(self, argv: list[str], keeper: int, fail: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            # A session of its own: what the child sends to its process group must not reach the keeper.
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == keeper:
                os.execvp(argv[0], argv)  # noqa: S606
        except OSError as error:
            os.write(fail, f"{argv[0]}: {error.strerror}".encode())
        finally:
            os._exit(_CANNOT_START)


def main() -> None:
    """Keep one child."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    adopt_orphans()
    _Keeper().run()
    sys.exit(0)


if __name__ == "__main__":
    main()
