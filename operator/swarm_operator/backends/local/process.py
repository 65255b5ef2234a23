"""One member of a job on this machine, from the wish for it to its end."""

import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

from swarm_operator.backends.local.child import Child, Launch
from swarm_operator.backends.local.folder import RunFolder, tail
from swarm_operator.plan.facts import Member, Phase, Role

_DEADLY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV)


class Process:
    """What is known of one incarnation. It waits until `start`."""

    def __init__(self, name: str, role: Role, index: int, incarnation: int, folder: RunFolder) -> None:
        self.name = name
        self.role = role
        self.index = index
        self.incarnation = incarnation
        self.uid = str(uuid.uuid4())
        self.child: Child | None = None
        self.gpus: tuple[str, ...] = ()
        self.reason = ""
        self.message = ""
        self.deleting = False
        """Its end was asked for, by the plan or by a person."""
        self.disrupted = False
        self.unwanted = False
        """The plan is done with it: it is forgotten when it is gone."""
        self._shot = False
        self._log = folder.log(name)
        self._created = time.time()
        self._started: float | None = None
        self._ended: float | None = None
        self._exit_code: int | None = None

    @property
    def waiting(self) -> bool:
        """Whether it has yet to be started."""
        return self.child is None and not self.ended

    @property
    def alive(self) -> bool:
        """Whether its main process runs, or is about to."""
        return self.child is not None and not self.ended

    @property
    def ended(self) -> bool:
        """Whether its main process ended; what that left behind may take a moment more."""
        return self._ended is not None

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.child is None or self.child.gone

    def postpone(self, reason: str, message: str) -> None:
        """It cannot start yet, and why."""
        self.reason, self.message = reason, message

    def start(self, launch: Launch, changed: Callable[[], None]) -> None:
        """Start it; a command or folder that does not exist is a member that failed."""
        self.reason = self.message = ""
        try:
            self.child = Child(launch, self._log, changed)
        except OSError as error:
            self._finish("CannotStart", f"{error.filename}: {error.strerror}", 127)

    def kill(self, number: int) -> None:
        """Signal a living one for a person: if that is a signal that ends somebody, its end is no fault of its own."""
        assert self.child
        if number == signal.SIGKILL:
            self._shot = True
        elif number in _DEADLY:
            # It may take its time, and end with 0: that is no success either.
            self.disrupted = self.deleting = True
        self.child.signal(number)

    def hear(self) -> None:
        """Take over what the child's keeper said, or that it ended without a word."""
        assert self.child
        if self._started is None and self.child.pid is not None:
            self._started = time.time()
        if self.ended:
            return
        code = self.child.exit_code
        if self.child.failure and code is not None:
            self._finish("CannotStart", self.child.failure, code)
        elif code is not None:
            # One that ended by itself just before the shot was not hit.
            self.disrupted |= self._shot and code == -signal.SIGKILL
            reason = "Completed" if code == 0 else "Killed" if code < 0 else "Error"
            self._finish(reason, tail(self._log) if code and not self.disrupted else "", code)
        elif self.child.gone:
            self.disrupted = True
            self._finish("KeeperKilled", "its keeper was killed from outside", -signal.SIGKILL)

    def member(self) -> Member:
        """What the plan is told."""
        return Member(
            role=self.role,
            index=self.index,
            incarnation=self.incarnation,
            uid=self.uid,
            phase=self._phase,
            created=self._created,
            started=self._started,
            ended=self._ended,
            exit_code=self._exit_code,
            reason=self.reason,
            message=self.message,
            deleting=self.deleting,
            disrupted=self.disrupted,
        )

    def record(self) -> dict[str, Any]:
        """What run.json tells."""
        return {
            "name": self.name,
            "role": self.role,
            "index": self.index,
            "incarnation": self.incarnation,
            "phase": self._phase,
            "pid": self.child.pid if self.child else None,
            "keeper": self.child.keeper if self.child else None,
            "exitCode": self._exit_code,
            "reason": self.reason,
        }

    @property
    def _phase(self) -> Phase:
        if self.ended:
            return Phase.SUCCEEDED if self._exit_code == 0 else Phase.FAILED
        return Phase.PENDING if self._started is None else Phase.RUNNING

    def _finish(self, reason: str, message: str, code: int) -> None:
        self._ended = time.time()
        self.reason, self.message, self._exit_code = reason, message, code
