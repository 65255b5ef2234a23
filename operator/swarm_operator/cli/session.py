"""A run while it runs: the controller, what it records, and those who interfere: Ctrl-C, `swarm kill`, game day."""

import asyncio
import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swarm_api.job import SwarmTrainingJob
from swarm_api.status import JobState
from swarm_operator.backends.local.backend import LocalBackend, UnknownMemberError
from swarm_operator.backends.local.control import Answer, Request, serve
from swarm_operator.backends.local.folder import RunFolder
from swarm_operator.cli.manifest import Manifest
from swarm_operator.controller import Controller
from swarm_operator.page import Page
from swarm_operator.plan.facts import Event, Member
from swarm_operator.plan.times import stamp


@dataclass(frozen=True, kw_only=True, slots=True)
class GameDay:
    """A kill that was asked for in advance."""

    index: int | None
    """Of the particle; None: the synchronizer."""
    percent: int
    """Of progress."""

    @property
    def target(self) -> str:
        """As `swarm kill` names it."""
        return "synchronizer" if self.index is None else f"particle-{self.index}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended."""

    job: SwarmTrainingJob
    ended: tuple[Member, ...]
    """All processes that ended before the run did, oldest first."""
    seconds: float
    signal: int | None = None
    """What interrupted it before its end."""
    spared: tuple[GameDay, ...] = ()
    """Kills that never happened."""

    @property
    def complete(self) -> bool:
        """Whether the model is trained."""
        return self.job.status.state is JobState.COMPLETE


class Session:
    """One run of one job; also the recorder of its controller."""

    def __init__(
        self, manifest: Manifest, folder: RunFolder, page: Page, kills: Sequence[GameDay], *, grace: float
    ) -> None:
        self._job = manifest.job
        self._folder = folder
        self._page = page
        self._kills = list(kills)
        self._recipes = manifest.recipes
        self._grace = grace
        self._backend: LocalBackend

    async def run(self) -> Outcome:
        """Until the job ended or somebody interrupted it; then nothing of it runs any more."""
        began = time.monotonic()
        self._backend = LocalBackend(self._job, self._folder, self._recipes, grace=self._grace)
        with _interrupts() as interrupts:
            async with self._backend.running(), serve(self._folder.socket, self._answer):
                controller = Controller(self._job, self._backend, self)
                training = asyncio.create_task(controller.run(self._backend.changed))
                interrupted = await _first(training, interrupts)
                if interrupted is None:
                    training.result()  # raises what it raised
                else:
                    training.cancel()
                    await asyncio.wait([training])
                    self._happened(
                        "Stopping",
                        "stopping: particles push what they have, model and checkpoint are written; Ctrl-C again: now",
                    )
                ended = tuple(self._backend.ended)
                stopping = asyncio.create_task(self._backend.stop())
                if await _first(stopping, interrupts) is not None:
                    self._backend.kill_all()
                    await stopping
        return Outcome(
            job=controller.job,
            ended=ended,
            seconds=time.monotonic() - began,
            signal=interrupted,
            spared=tuple(self._kills),
        )

    async def write(self, job: SwarmTrainingJob) -> None:
        """Keep status.json."""
        self._folder.write_status(job)

    async def tell(self, job: SwarmTrainingJob, event: Event) -> None:
        """Keep events.jsonl, and show it."""
        self._tell(event)

    def show(self, job: SwarmTrainingJob) -> None:
        """Show the job; a kill that is due happens now."""
        self._page.update(job)
        for kill in tuple(self._kills):
            if job.status.training.progress_percent >= kill.percent and not job.status.state.ended:
                with contextlib.suppress(UnknownMemberError):  # it is down already: when it is back
                    member = self._backend.kill(kill.target)
                    self._kills.remove(kill)
                    why = f"killed {kill.target}, incarnation {member.incarnation}, at {kill.percent} % as asked"
                    self._happened("GameDay", why)

    def _answer(self, request: Request) -> Answer:
        if "kill" not in request:
            return {}
        try:
            member = self._backend.kill(str(request["kill"]), int(request["signal"]))
        except UnknownMemberError as error:
            return {"error": str(error)}
        name = signal.Signals(request["signal"]).name
        killed = "synchronizer" if member.role == "synchronizer" else f"particle {member.index}"
        self._happened("Killed", f"swarm kill sent {name} to {killed}, incarnation {member.incarnation}")
        return {"killed": f"{killed}, incarnation {member.incarnation}"}

    def _happened(self, reason: str, message: str) -> None:
        self._tell(Event(reason=reason, message=message))

    def _tell(self, event: Event) -> None:
        self._folder.append_event({"time": stamp(time.time()), **dataclasses.asdict(event)})
        self._page.event(event)


@contextlib.contextmanager
def _interrupts() -> Iterator[asyncio.Queue[int]]:
    """Signals that ask for the end, in the order in which they come; what our caller ignores stays ignored."""
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[int] = asyncio.Queue()
    heeded = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in heeded:
        loop.add_signal_handler(number, came.put_nowait, int(number))
    try:
        yield came
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


async def _first(work: asyncio.Task[Any], interrupts: asyncio.Queue[int]) -> int | None:
    """Wait for either: the interrupt, or None when the work was done first."""
    interrupt = asyncio.create_task(interrupts.get())
    await asyncio.wait([work, interrupt], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        interrupt.cancel()
        return None
    return interrupt.result()
