"""Pods of a cluster as a backend: the same plan that drives processes on one machine drives them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from swarm_api.job import SwarmTrainingJob
from swarm_api.secrets import report_token
from swarm_api.status import Attempt
from swarm_operator.backends.kubernetes import children, floors, labels, paths
from swarm_operator.backends.kubernetes.births import INVALID, Births
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.fates import Fates
from swarm_operator.backends.kubernetes.loss import SILENT_SECONDS, SUSPECT_SECONDS, Hearsay
from swarm_operator.backends.kubernetes.many import each
from swarm_operator.backends.kubernetes.news import is_news
from swarm_operator.backends.kubernetes.nodes import Nodes
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.backends.kubernetes.pods import particle_pod, settings, synchronizer_pod
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.backends.kubernetes.reports import Reports
from swarm_operator.backends.report import ReportReader
from swarm_operator.plan.actions import Action, Create, Delete
from swarm_operator.plan.facts import Member, Observed, Phase, Role

WAVE: Final = 256
"""Pods that one step makes; then it is looked again whether something more urgent happened."""
REJECTED_SECONDS: Final = 300.0
"""A node that turned a pod away gets no other of this job for so long."""
KILL_SECONDS: Final = 1
"""Grace of a pod that is not to take its time; with 0 nobody would wait until it is dead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What all jobs share."""

    client: Client
    nodes: Nodes
    reports: Reports
    key: bytes
    """Of the operator: the secrets of jobs derive from it."""
    report_interval: Callable[[], float]
    """Seconds between two readings of a job's report."""


class KubernetesBackend:
    """The children of one job as pods."""

    def __init__(
        self, job: SwarmTrainingJob, pods: PodSet, around: Surroundings, changed: Callable[[bool], None]
    ) -> None:
        """`changed` hears that there is a new report; True: the plan should see it at once."""
        self.kept = job.status
        """The status that the API server holds: nothing newer than that is deleted."""
        self.unfinished = False
        """Whether the last `apply` left something that should be done at once."""
        self.withheld = False
        """Whether the last `apply` kept back deletions until the status is kept."""
        self._job = job
        self._pods = pods
        self._around = around
        self._client = around.client
        self._changed = changed
        self._births = Births(around.client, pods, paths.pods(job.metadata.namespace))
        self._fates = Fates(around.nodes)
        self._prepared = False
        self._pinned: int | None = None
        self._address: str | None = None
        self._ended = 0
        token = report_token(around.key, job.metadata.uid)
        self._reader = ReportReader(
            lambda address: around.reports.fetch(address, token, job.metadata.uid),
            lambda: self._address,
            self._heard,
            around.report_interval,
        )
        self._told = (self._reader.report, self._reader.error)

    async def run(self) -> None:
        """Read reports until cancelled."""
        await self._reader.run()

    async def observe(self, job: SwarmTrainingJob) -> Observed:
        """All members, dead ones included, and the newest report."""
        self._job = job
        self._fates.look_again = None
        hearsay = Hearsay(report=self._reader.report, at=self._reader.heard, since=self._fates.since)
        members = [self._fates.of(pod, hearsay) for pod in self._own]
        self._attend(members)
        members += (refused.member() for refused in self._births)
        return Observed(members=tuple(members), report=self._reader.report, report_error=self._reader.error)

    async def apply(self, job: SwarmTrainingJob, actions: Sequence[Action]) -> None:
        """Make what is missing, then delete, then tell the synchronizer.

        Raises:
            ApiError: something is not done and should be tried again.
        """
        self._job = job
        errors: list[ApiError] = []
        creates = [*self._births.due(), *(action for action in actions if isinstance(action, Create))]
        self.unfinished = len(creates) > WAVE
        if creates:
            if not self._prepared:
                errors += await self._prepare(creates)
            avoid = self._avoided()
            errors += await each(creates[:WAVE], lambda wish: self._create(wish, avoid))
        remains = filter(None, map(self._fates.remains, self._own))
        deletes = [*(action for action in actions if isinstance(action, Delete)), *remains]
        allowed = [action for action in deletes if self._is_kept(action)]
        self.withheld = len(allowed) < len(deletes)
        errors += await each(allowed, self._delete)
        if (synchronizer := self._synchronizer) is not None:
            errors += await each((self._point_at, self._tell), lambda step: step(synchronizer))
        if errors:
            raise errors[0]

    @property
    def dues(self) -> Iterator[float]:
        """When this backend wants to be looked at by itself, Unix seconds."""
        yield from (refused.due for refused in self._births)
        if self._fates.look_again is not None:
            yield self._fates.look_again

    @property
    def invalid(self) -> str:
        """What the API server says of pods that it would never take; empty: there are none."""
        return next((refused.message for refused in self._births if refused.reason == INVALID), "")

    def uid_of(self, name: str) -> str:
        """Of a child's pod; empty where none is known."""
        pod = self._pods.get(name)
        return pod.member.uid if pod else ""

    @property
    def _own(self) -> Iterator[Pod]:
        return (pod for pod in list(self._pods) if pod.job_uid == self._job.metadata.uid)

    @property
    def _synchronizer(self) -> Pod | None:
        """The newest, if it is not known to have ended."""
        found = [pod for pod in self._own if pod.member.role is Role.SYNCHRONIZER]
        newest = max(found, key=lambda pod: pod.member.incarnation, default=None)
        ended = newest is None or newest.member.ended_phase or self._fates.is_lost(newest.member.uid)
        return None if ended else newest

    def _attend(self, members: Sequence[Member]) -> None:
        """Read the report where the synchronizer is now, and at once when somebody ended."""
        synchronizer = self._synchronizer
        address = None
        if synchronizer is not None and synchronizer.member.phase is Phase.RUNNING:
            address = self._around.reports.address(self._job.metadata.namespace, synchronizer) or None
        ended = sum(member.ended_phase for member in members)
        if address != self._address or ended > self._ended:
            self._reader.read_soon()
        self._address, self._ended = address, ended

    def _heard(self) -> None:
        before, now = self._told, (self._reader.report, self._reader.error)
        self._told = now
        silences = (SUSPECT_SECONDS, SILENT_SECONDS, self._job.spec.sync.unresponsive_seconds)
        self._changed(before[1] != now[1] or is_news(before[0], now[0], silences))

    def _is_kept(self, action: Delete) -> bool:
        attempt = self.kept.attempts.get(floors.key(action.role, action.index), Attempt())
        return attempt.incarnation >= action.incarnation

    async def _prepare(self, creates: Sequence[Create]) -> list[ApiError]:
        """Make what pods need to start, once."""
        job, namespace = self._job, self._job.metadata.namespace
        wanted = [(paths.secrets(namespace), children.secret(job, self._around.key))]
        wanted += (
            (paths.services(namespace), children.service(job, action.incarnation))
            for action in creates
            if action.role is Role.SYNCHRONIZER
        )
        wanted += ((paths.claims(namespace), claim) for claim in children.claims(job))
        errors = await each(wanted, lambda pair: self._client.create_once(*pair))
        self._prepared = not errors
        return errors

    async def _create(self, wish: Create, avoid: Sequence[str]) -> None:
        if wish.role is Role.PARTICLE:
            body = particle_pod(self._job, wish.index, wish.incarnation, avoid=avoid)
        else:
            body = synchronizer_pod(self._job, wish.incarnation, avoid=avoid)
        await self._births.make(wish, body)

    def _avoided(self) -> list[str]:
        """Nodes that nothing new should come to: those in trouble, and those that turned a pod of this job away."""
        since = time.time() - REJECTED_SECONDS
        hostile = {pod.member.node for pod in self._own if pod.rejected and pod.member.created > since}
        return sorted({*self._around.nodes.in_trouble(), *hostile} - {""})

    async def _delete(self, action: Delete) -> None:
        if self._births.withdraw(action.uid):
            return
        pod = next((pod for pod in self._own if pod.member.uid == action.uid), None)
        if pod is None:
            return
        lost = self._fates.is_lost(action.uid)
        grace = 0 if lost else None if action.graceful else KILL_SECONDS
        left = await self._client.delete(paths.pods(self._job.metadata.namespace, pod.name), action.uid, grace)
        if left is None or lost:
            self._pods.drop(pod.name, action.uid)
            self._fates.forget(action.uid)
        elif left.get("kind") == "Pod":
            self._pods.update(left)

    async def _point_at(self, synchronizer: Pod) -> None:
        """Let the Service name this synchronizer, and no older one."""
        incarnation = synchronizer.member.incarnation
        if incarnation == self._pinned:
            return
        namespace, wanted = self._job.metadata.namespace, children.service(self._job, incarnation)
        path = paths.services(namespace, wanted["metadata"]["name"])
        try:  # a patch that changes nothing is no write, and so nobody needs the right to read Services
            await self._client.patch(path, {"spec": {"selector": wanted["spec"]["selector"]}})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._client.create_once(paths.services(namespace), wanted)
        self._pinned = incarnation

    async def _tell(self, synchronizer: Pod) -> None:
        """Let the synchronizer have the settings of now."""
        wanted = settings(self._job)
        if synchronizer.settings == wanted or synchronizer.member.deleting:
            return
        path = paths.pods(self._job.metadata.namespace, synchronizer.name)
        self._pods.update(await self._client.patch(path, {"metadata": {"annotations": {labels.SETTINGS: wanted}}}))
