"""Makes pods, so that doing it twice makes one; and remembers those that the cluster will not take."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.observe import read
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.plan.actions import Create
from swarm_operator.plan.backoff import LONGEST
from swarm_operator.plan.facts import Member, Phase

FIRST_PAUSE: Final = 2.0
"""Seconds until a refused pod is tried again; twice as long each time."""
INVALID: Final = "InvalidTemplate"
"""Reason of a pod that the API server would never take as it is."""
NAME_TAKEN: Final = "NameTaken"
"""Reason of a pod whose name somebody else's has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A pod that should be and is not: quota, admission, an impossible template."""

    wish: Create
    name: str
    reason: str
    message: str
    since: float
    tries: int
    due: float
    """When it is tried again, Unix seconds."""

    @property
    def uid(self) -> str:
        """By which the plan may ask for its end, as if it existed."""
        return f"refused-{self.name}"

    def member(self) -> Member:
        """How the plan sees it: it waits, and here is why."""
        return Member(
            role=self.wish.role,
            index=self.wish.index,
            incarnation=self.wish.incarnation,
            uid=self.uid,
            phase=Phase.PENDING,
            created=self.since,
            reason=self.reason,
            message=self.message,
        )


class Births:
    """Of one job."""

    def __init__(self, client: Client, pods: PodSet, path: str, *, clock: Callable[[], float] = time.time) -> None:
        """`path` of the job's pods; what was made is put into `pods`."""
        self._client = client
        self._pods = pods
        self._path = path
        self._clock = clock
        self._refused: dict[str, Refused] = {}

    def __iter__(self) -> Iterator[Refused]:
        return iter(self._refused.values())

    def due(self) -> list[Create]:
        """What should be tried again now. One goes first: what is true of it is true of all, but for taken names."""
        due = [each for each in self if each.due <= self._clock()]
        alike = [each.wish for each in due if each.reason != NAME_TAKEN]
        return [*(each.wish for each in due if each.reason == NAME_TAKEN), *alike[:1]]

    def withdraw(self, uid: str) -> bool:
        """Nobody wants this refused pod any more; whether it was one."""
        known = next((each for each in self if each.uid == uid), None)
        if known is not None:
            del self._refused[known.name]
        return known is not None

    async def make(self, wish: Create, body: Mapping[str, Any]) -> None:
        """Make the pod, or take note that the cluster will not have it.

        A pod that has the name already is taken note of like one that was made, if it is the child that is wished for.
        It may belong to an older job, or to none any more: then the next incarnation is made instead.

        Raises:
            ApiError: nobody knows whether it was made.
        """
        name = body["metadata"]["name"]
        try:
            self._pods.put(await self._client.create(self._path, body))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                holder = await self._client.get(f"{self._path}/{name}")
                if not _is_child(holder, wish):
                    self._refuse(wish, name, NAME_TAKEN, _remedy(holder["metadata"]))
                    return
                self._pods.put(holder)
            elif error.final:
                self._refuse(wish, name, _reason(error), error.message)
                return
            else:
                raise
        if self._refused.pop(name, None) is not None:
            self._all_due(self._clock())

    def _refuse(self, wish: Create, name: str, reason: str, message: str) -> None:
        now, before = self._clock(), self._refused.get(name)
        tries = before.tries + 1 if before else 1
        due = now + min(LONGEST, FIRST_PAUSE * 2.0 ** min(tries - 1, 10))
        since = before.since if before else now
        self._refused[name] = Refused(
            wish=wish, name=name, reason=reason, message=message, since=since, tries=tries, due=due
        )
        if before is not None and reason != NAME_TAKEN:
            self._all_due(due)

    def _all_due(self, when: float) -> None:
        self._refused = {
            name: each if each.reason == NAME_TAKEN else replace(each, due=when) for name, each in self._refused.items()
        }


def _is_child(raw: Mapping[str, Any], wish: Create) -> bool:
    pod = read(raw)
    wished = (wish.role, wish.index, wish.incarnation)
    return pod is not None and (pod.member.role, pod.member.index, pod.member.incarnation) == wished


def _remedy(metadata: Mapping[str, Any]) -> str:
    name, namespace = metadata["name"], metadata["namespace"]
    return f"another pod is called {name}; delete it: kubectl delete pod {name} --namespace {namespace}"


def _reason(error: ApiError) -> str:
    if error.status in (400, 422):
        return INVALID
    if error.status == 403:
        return "QuotaExceeded" if "exceeded quota" in error.message else "CreationForbidden"
    return error.reason or "CreationRefused"
