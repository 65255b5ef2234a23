"""Local processes as a backend: the same plan that drives pods on a cluster drives them on one machine."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from swarm_api import env
from swarm_api.job import SwarmTrainingJob
from swarm_api.names import particle_name, synchronizer_name
from swarm_api.secrets import link_secret, report_token
from swarm_api.settings import Settings
from swarm_operator.backends.local.folder import RunFolder, replace
from swarm_operator.backends.local.keeper import adopt_orphans, descendants, kill_all
from swarm_operator.backends.local.machine import VISIBLE, Gpus, cores, detect_gpus
from swarm_operator.backends.local.process import Process
from swarm_operator.backends.local.report import fetch
from swarm_operator.backends.local.template import Recipes
from swarm_operator.backends.report import ReportReader
from swarm_operator.plan.actions import Action, Create, Delete
from swarm_operator.plan.facts import Member, Observed, Role

GRACE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""
_KEEPER_PATIENCE: Final = 5.0
"""Seconds beyond the grace after which a keeper that did not end is itself ended."""


class UnknownMemberError(Exception):
    """No such member runs; the message names those that do."""


class LocalBackend:
    """The children of one job as processes of this machine. One event loop, in the main thread."""

    def __init__(self, job: SwarmTrainingJob, folder: RunFolder, recipes: Recipes, *, grace: float = GRACE) -> None:
        self.changed = asyncio.Event()
        """Set whenever `observe` would tell something new; whoever waits for it clears it."""
        self.ended: list[Member] = []
        """All that ended in this run, oldest first, also those that were removed since."""
        key = secrets.token_bytes(32)
        token = report_token(key, job.metadata.uid)
        replace(folder.link_secret, link_secret(key, job.metadata.uid), mode=0o600)
        replace(folder.report_token, token, mode=0o600)
        self._job = job
        self._folder = folder
        self._recipes = recipes
        self._grace = grace
        self._gpus = Gpus(detect_gpus() if recipes.gpus_matter else ())
        self._threads = max(1, cores() // job.spec.particles.replicas)
        self._processes: dict[str, Process] = {}
        self._reader = ReportReader(
            lambda address: asyncio.to_thread(fetch, address, token, job.metadata.uid), self._report_address, self._tell
        )
        self._settings = ""
        self._recorded = ""
        self._closing = False
        self._foreign = frozenset(descendants(os.getpid()))
        self._sweeps: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For the duration, children can be started; none is left at its end, however it ends."""
        adopt_orphans()
        reading = asyncio.create_task(self._reader.run())
        try:
            yield
        finally:
            self.kill_all()
            await self.stop()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def observe(self, job: SwarmTrainingJob) -> Observed:
        """All members, the dead of this run included, and the newest report."""
        self._job = job
        self._write_settings()
        self._record()
        return Observed(
            members=tuple(process.member() for process in self._processes.values()),
            report=self._reader.report,
            report_error=self._reader.error,
            keeps_all=True,
        )

    async def apply(self, job: SwarmTrainingJob, actions: Sequence[Action]) -> None:
        """Start and end processes. What cannot be started is a member that failed, not an error."""
        self._job = job
        self._write_settings()
        for action in actions:
            match action:
                case Create():
                    self._create(action)
                case Delete():
                    self._delete(action)

    def kill(self, target: str, number: int = signal.SIGKILL) -> Member:
        """Signal `particle-2`, `synchronizer` or a member by its name; if that ends it, it ended through no own fault.

        Raises:
            UnknownMemberError: nothing of this name runs.
        """
        alive = {process.name: process for process in self._processes.values() if process.alive}
        short = {name.removeprefix(f"{self._job.metadata.name}-").rpartition("-")[0]: name for name in alive}
        process = alive.get(short.get(target, target))
        if process is None:
            running = ", ".join(sorted(short)) or "nothing"
            raise UnknownMemberError(f"{target} does not run; running: {running}")
        process.kill(number)
        self._tell()
        return process.member()

    async def stop(self) -> None:
        """End everything: particles first, so that the synchronizer has what they pushed. Nothing starts any more."""
        self._closing = True
        for role in (Role.PARTICLE, Role.SYNCHRONIZER):
            await self._end([process for process in self._processes.values() if process.role is role])
        await asyncio.gather(*self._sweeps)
        self._record()

    def kill_all(self) -> None:
        """Begin to end everything at once; `stop` waits for it."""
        self._closing = True
        for process in self._processes.values():
            if process.child is not None:
                process.deleting = True
                process.child.kill()

    def _create(self, action: Create) -> None:
        job, index, incarnation = self._job.metadata.name, action.index, action.incarnation
        particle = action.role is Role.PARTICLE
        name = particle_name(job, index, incarnation) if particle else synchronizer_name(job, incarnation)
        if name not in self._processes and not self._closing:
            self._processes[name] = Process(name, action.role, index, incarnation, self._folder)
            self._start(self._processes[name])
            self._tell()

    def _start(self, process: Process) -> None:
        recipe = self._recipes.of(process.role)
        gpus = self._gpus.take(recipe.gpus)
        if gpus is None:
            process.postpone("Unschedulable", self._gpus.lacking(recipe.gpus))
            return
        process.gpus = gpus
        own = self._environment(process)
        defaults = {"OMP_NUM_THREADS": str(self._threads), "PYTHONUNBUFFERED": "1"}
        if process.role is Role.SYNCHRONIZER:
            self._folder.addresses.unlink(missing_ok=True)  # of its predecessor
            self._reader.read_soon()
        forced = {VISIBLE: ",".join(gpus)} if self._recipes.gpus_matter else {}
        process.start(recipe.launch(process.name, own, defaults, forced), lambda: self._changed(process))
        if process.ended:
            self._gpus.give_back(gpus)
            self._ended(process)

    def _environment(self, process: Process) -> dict[str, str]:
        own = {
            env.JOB_NAME: self._job.metadata.name,
            env.JOB_UID: self._job.metadata.uid,
            env.NAMESPACE: self._job.metadata.namespace,
            env.INCARNATION: str(process.incarnation),
            env.INSTANCE_UID: process.uid,
            env.SYNCHRONIZER_ADDRESS_FILE: str(self._folder.addresses),
            env.SECRET_FILE: str(self._folder.link_secret),
            env.OUTPUT_DIR: str(self._folder.path),
        }
        if process.role is Role.PARTICLE:
            return {**own, env.PARTICLE_INDEX: str(process.index)}
        return {
            **own,
            env.SYNCHRONIZER_ADDRESS: "127.0.0.1:0",
            env.REPORT_ADDRESS: "127.0.0.1:0",
            env.REPORT_TOKEN_FILE: str(self._folder.report_token),
            env.SETTINGS_FILE: str(self._folder.settings),
            env.CHECKPOINT_DIR: str(self._folder.checkpoints),
        }

    def _delete(self, action: Delete) -> None:
        process = next((found for found in self._processes.values() if found.uid == action.uid), None)
        if process is None:
            return
        process.unwanted = True
        if process.gone or process.child is None:
            del self._processes[process.name]
        else:
            process.deleting = True
            if action.graceful:
                process.child.stop(self._grace)
            else:
                process.child.kill()
        self._tell()

    def _changed(self, process: Process) -> None:
        """What a child's keeper had to say changed something."""
        ended_before = process.ended
        process.hear()
        if process.ended and not ended_before:
            self._ended(process)
        if process.child is not None and process.child.gone:
            if process.child.abandoned:
                self._sweep()
            self._gpus.give_back(process.gpus)
            if process.unwanted:
                self._processes.pop(process.name, None)
            if not self._closing:
                for waiting in [other for other in self._processes.values() if other.waiting]:
                    self._start(waiting)
        self._tell()

    def _ended(self, process: Process) -> None:
        self.ended.append(process.member())
        self._reader.read_soon()

    def _tell(self) -> None:
        self.changed.set()

    async def _end(self, processes: Sequence[Process]) -> None:
        children = [process.child for process in processes if process.child is not None and not process.child.gone]
        for process in processes:
            process.deleting = True
        for child in children:
            child.stop(self._grace)
        if children:
            everyone = asyncio.gather(*(child.wait() for child in children))
            try:
                await asyncio.wait_for(asyncio.shield(everyone), self._grace + _KEEPER_PATIENCE)
            except TimeoutError:
                for child in children:
                    child.kill_keeper()
                await everyone

    def _sweep(self) -> None:
        """A keeper was killed, and what it kept came to us: end that, and nothing else below us."""
        kill_all(self._strays())
        task = asyncio.create_task(self._finish_sweep())
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    async def _finish_sweep(self) -> None:
        while strays := self._strays():
            kill_all(strays)
            await asyncio.to_thread(_reap, strays)

    def _strays(self) -> list[int]:
        keepers = {process.child.keeper for process in self._processes.values() if process.child and not process.gone}
        return descendants(os.getpid(), exempt=self._foreign | keepers)

    def _report_address(self) -> str | None:
        if any(process.alive for process in self._processes.values() if process.role is Role.SYNCHRONIZER):
            return self._folder.read_addresses().get("report", "")
        return None

    def _write_settings(self) -> None:
        text = Settings.of(self._job).model_dump_json(by_alias=True)
        if text != self._settings:
            replace(self._folder.settings, text)
            self._settings = text

    def _record(self) -> None:
        """Keep run.json true."""
        record: dict[str, Any] = {
            "job": self._job.metadata.name,
            "uid": self._job.metadata.uid,
            "pid": os.getpid(),
            "socket": str(self._folder.socket),
            "addresses": self._folder.read_addresses(),
            "members": [process.record() for process in self._processes.values()],
        }
        text = json.dumps(record, indent=2) + "\n"
        if text != self._recorded:
            replace(self._folder.run, text)
            self._recorded = text


def _reap(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # below another stray, whose end hands it to us
            os.waitpid(pid, 0)
