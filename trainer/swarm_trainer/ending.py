"""How this process ends: by itself, by an error, or because it is told to."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from swarm_trainer import exit_code

Handler = Callable[[int, FrameType | None], Any] | int | None


class Ending:
    """Watches for the end of the process from the moment it is made.

    Errors are noted in `sys.excepthook`, exit codes by `exit_code`. Processes that the script forks inherit all of
    this, and it means nothing there.
    """

    def __init__(self, at_exit: Callable[[], None]) -> None:
        self.failed = False
        """An error ended the main thread, or an exit with another code than 0."""
        self.asked = False
        """SIGTERM arrived: finish the step, push, say goodbye, then call `obey`."""
        self._deferring = True
        self._process = os.getpid()
        self._at_exit = at_exit
        self._excepthook = sys.excepthook
        self._previous: Handler = signal.SIG_DFL
        sys.excepthook = self._note_error
        exit_code.watch(self._note_exit)
        # Before executors are shut down, which an exchange needs and which `atexit` comes after.
        threading._register_atexit(self._leave)  # type: ignore[attr-defined]
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note_signal)

    def wait_no_more(self) -> None:
        """No step is left to be finished: SIGTERM is obeyed at once, now if it arrived before."""
        self._deferring = False
        if self.asked:
            self.obey()

    def obey(self) -> None:
        """Let SIGTERM do what it would have done without us."""
        self.asked = False
        previous = self._previous if self._previous is not None else signal.SIG_DFL
        # With a handler of its own a script that was done may still end well.
        self.failed = self.failed or self._deferring or previous is signal.SIG_DFL
        if previous is signal.SIG_DFL:
            self._leave()  # Now, since a process that is ended by a signal comes to no exit.
        signal.signal(signal.SIGTERM, previous)
        os.kill(os.getpid(), signal.SIGTERM)
        if previous is signal.SIG_DFL:
            # The first process of a container gets no signal that it does not handle.
            raise SystemExit(128 + signal.SIGTERM)

    def _note_error(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self.failed = True
        self._excepthook(kind, error, trace)

    def _note_exit(self, code: int) -> None:
        self.failed = code != 0

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if os.getpid() == self._process and self._deferring:
            self.asked = True
        else:
            self.obey()

    def _leave(self) -> None:
        if os.getpid() == self._process:
            self._at_exit()
