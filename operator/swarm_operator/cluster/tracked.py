"""One job from its first sight to its end: look, plan, do; and let the scribe write what came of it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from swarm_api.job import Metadata, SwarmTrainingJob
from swarm_api.status import JobStatus
from swarm_operator.backends.kubernetes import floors
from swarm_operator.backends.kubernetes.backend import KubernetesBackend, Surroundings
from swarm_operator.backends.kubernetes.births import INVALID
from swarm_operator.backends.kubernetes.client import ApiError
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.cluster import status
from swarm_operator.cluster.metrics import Metrics
from swarm_operator.cluster.scribe import Scribe
from swarm_operator.plan import plan
from swarm_operator.plan.actions import Create, Plan
from swarm_operator.plan.facts import Event

ROUNDS: Final = 2
"""Plans in one step at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Office:
    """What jobs have in common beside their surroundings."""

    around: Surroundings
    metrics: Metrics
    progress_seconds: Callable[[], float]
    """Between two writes of which the second only moves numbers."""
    wrote: Callable[[Mapping[str, Any]], bool]
    """Hears of a job as the operator itself wrote it; whether somebody else changed it too."""


@dataclass(kw_only=True, slots=True)
class _Done:
    """What one step came to."""

    events: list[Event] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """Seconds after which something is due."""
    error: ApiError | None = None
    refusal: tuple[str, str] | None = None
    """Why the job is not accepted: reason and message."""


class TrackedJob:
    """A job of one uid. Its memory is the status of the last plan, written or not."""

    def __init__(self, raw: Mapping[str, Any], pods: PodSet, office: Office, wake: Callable[[float], None]) -> None:
        """`raw` is the job as the API server has it; `wake` asks for a step after so many seconds at the latest."""
        self.metadata = Metadata.model_validate(raw["metadata"])
        self.read_at = 0.0
        """When job and pods were read from the server last, on the monotonic clock; 0: that is to be done anew."""
        self.status = status.loaded(raw.get("status"))
        """Of the last plan."""
        self._office = office
        self._pods = pods
        self._wake = wake
        self._version = ""
        self._job: SwarmTrainingJob | None = None
        self._problem = ""
        self._backend: KubernetesBackend | None = None
        self._scribe = Scribe(
            office.around.client,
            self.metadata,
            raw.get("status") or {},
            self.status,
            progress_seconds=office.progress_seconds,
            wrote=self._wrote,
            failed=self._doubt,
        )
        self._writing = asyncio.create_task(self._scribe.run())
        self._reading: asyncio.Task[None] | None = None

    async def step(self, raw: Mapping[str, Any]) -> float | None:
        """Look once, and do what is to be done; seconds until that is due again, None: only when something changes.

        Raises:
            ApiError: something could not be done; all else was.
        """
        self._understand(raw)
        now, before = time.time(), self.status
        done = _Done(refusal=("InvalidSpec", self._problem)) if self._job is None else await self._act(self._job, now)
        if done.refusal is not None:
            reason, message = done.refusal
            self.status = status.refused(self.status, before, self.metadata.generation, reason, message, now)
            if not status.is_refused(before):
                done.events.append(Event(reason="NotAccepted", message=message, warning=True))
        self._scribe.note(self.status, done.events, self._backend.uid_of if self._backend else lambda _: "")
        if done.error is not None:
            self.read_at = 0.0
            # What is due by now is what failed, or comes with it: that is the queue's to time, and the server's.
            later = min((wait for wait in done.waits if wait > 0), default=None)
            if later is not None:
                self._wake(later)
            raise done.error
        return min(done.waits, default=None)

    async def close(self, patience: float = 0.0) -> None:
        """The job is gone, or the operator goes; it may take so many seconds to write what is left."""
        if self._reading is not None:
            self._reading.cancel()
        if patience > 0:
            self._scribe.finish()
            await asyncio.wait((self._writing,), timeout=patience)
        self._writing.cancel()
        await asyncio.gather(*filter(None, (self._reading, self._writing)), return_exceptions=True)

    def _understand(self, raw: Mapping[str, Any]) -> None:
        """Read the job where it changed; what it says of its status is our own."""
        version = raw["metadata"]["resourceVersion"]
        if version == self._version:
            return
        self._version = version
        self.metadata = Metadata.model_validate(raw["metadata"])
        try:
            self._job = SwarmTrainingJob.model_validate({key: value for key, value in raw.items() if key != "status"})
            self._problem = ""
        except ValidationError as error:
            self._job = None
            said = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
            self._problem = "; ".join(f"{place}: {message}" for place, message in said)

    async def _act(self, job: SwarmTrainingJob, now: float) -> _Done:
        """Plan and carry out; then plan again, so that the status that is written knows of what was made."""
        backend, done = self._backend_of(job), _Done()
        for _ in range(ROUNDS):
            known = floors.raised(self.status, floors.floors(self._pods, self.metadata.uid), now)
            job = job.model_copy(update={"status": known})
            made = plan(job, await backend.observe(job), now)
            self.status = made.status
            done.events += made.events
            try:
                await backend.apply(job.model_copy(update={"status": made.status}), made.actions)
            except ApiError as error:
                done.error = error
            self._measure(known, made)
            if done.error or not made.actions:
                break
        if backend.invalid:
            done.refusal = (INVALID, backend.invalid)
        done.waits += (max(0.0, due - now) for due in backend.dues)
        if backend.unfinished:
            done.waits.append(0.0)
        if made.requeue_after is not None:
            done.waits.append(made.requeue_after)
        return done

    def _backend_of(self, job: SwarmTrainingJob) -> KubernetesBackend:
        if self._backend is None:
            self._backend = KubernetesBackend(job, self._pods, self._office.around, self._report_changed)
            self._backend.kept = self._scribe.written
            self._reading = asyncio.create_task(self._backend.run())
        return self._backend

    def _report_changed(self, urgent: bool) -> None:
        self._wake(0.0 if urgent else self._office.progress_seconds())

    def _wrote(self, raw: Mapping[str, Any]) -> None:
        """The status is kept; now what it speaks of may be deleted."""
        changed_by_others = self._office.wrote(raw)
        if self._backend is not None:
            self._backend.kept = self._scribe.written
        if changed_by_others or (self._backend is not None and self._backend.withheld):
            self._wake(0.0)

    def _doubt(self) -> None:
        """Maybe there is no such job any more."""
        self.read_at = 0.0
        self._wake(0.0)

    def _measure(self, before: JobStatus, made: Plan) -> None:
        for action in made.actions:
            if isinstance(action, Create) and action.incarnation > 1:
                attempt = made.status.attempts.get(floors.key(action.role, action.index))
                self._office.metrics.replaced(attempt.last_reason if attempt else "")
        recovery = made.status.recovery
        if recovery.model_copy(update={"count": before.recovery.count}) != before.recovery:
            self._office.metrics.recovered(recovery)
