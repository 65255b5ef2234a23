"""One job's loop, the same for every backend: observe, plan, apply, write the status, tell what happened."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from swarm_api.job import SwarmTrainingJob
from swarm_operator.backends.base import Backend
from swarm_operator.plan import plan, worth_writing
from swarm_operator.plan.facts import Event

UNWRITTEN: Final = 1.0
"""Seconds after which a status that was not worth a write is looked at again."""


class Recorder(Protocol):
    """Where a controller's findings go."""

    async def write(self, job: SwarmTrainingJob) -> None:
        """Keep this status, for others and for the next controller."""
        ...

    async def tell(self, job: SwarmTrainingJob, event: Event) -> None:
        """Something happened."""
        ...

    def show(self, job: SwarmTrainingJob) -> None:
        """The job as it is now, after every step, also where nothing is written."""
        ...


class Controller:
    """Drives one job towards what its spec asks for."""

    def __init__(
        self, job: SwarmTrainingJob, backend: Backend, recorder: Recorder, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.job = job
        """With the status of the last step."""
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._written = job.status
        self._written_at = 0.0

    async def run(self, changed: asyncio.Event) -> SwarmTrainingJob:
        """Step whenever `changed` is set or time alone changes the plan, until the job has ended and all have left."""
        while True:
            changed.clear()
            requeue_after = await self.step()
            if self.job.status.state.ended and requeue_after is None:
                return self.job
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), requeue_after)

    async def step(self) -> float | None:
        """Look once and do what is to be done; seconds until that is due again, None: only when something changes."""
        now = self._clock()
        observed = await self._backend.observe(self.job)
        made = plan(self.job, observed, now)
        self.job = self.job.model_copy(update={"status": made.status})
        await self._backend.apply(self.job, made.actions)
        last = made.status.state.ended and made.status != self._written
        if last or worth_writing(self._written, made.status, now - self._written_at):
            await self._recorder.write(self.job)
            self._written, self._written_at = made.status, now
        for event in made.events:
            await self._recorder.tell(self.job, event)
        self._recorder.show(self.job)
        if made.status != self._written:
            return min(UNWRITTEN, made.requeue_after or UNWRITTEN)
        return made.requeue_after
