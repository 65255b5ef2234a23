"""What the synchronizer knows of every particle that ever was, by index: progress, contributions, the last answer."""

import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from swarm_api.report import ParticleReport, Presence
from swarm_trainer.algorithms.base import Fitness
from swarm_trainer.vectors import Tensors
from swarm_trainer.wire.auth import Identity
from swarm_trainer.wire.messages import Progress, Reply, ReplyStatus

_RATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """To a push, as it was sent; nobody writes to the tensors."""

    reply: Reply
    tensors: Tensors


@dataclass(slots=True)
class Entry:
    """One index. Counters of contributions and pushes start again with each incarnation, progress does not."""

    identity: Identity
    presence: Presence = Presence.ATTACHED
    progress: Progress = field(default_factory=Progress)
    """At its last committed push; a replacement goes on from there."""
    heard: Progress = field(default_factory=Progress)
    """Newest that it said."""
    sequence: int = 0
    """Of its newest push that was answered."""
    merged: int = 0
    """Of its newest push that was merged."""
    answer: Answer | None = None
    """To push `sequence`; None once the next push began to arrive, or nobody will ask for it: see `Ledger.release`."""
    contributions: int = 0
    last_round: int = 0
    fitness: Fitness | None = None
    refused: int = 0
    attached_time: float = 0.0
    first_contribution_time: float | None = None
    detached_at: float = 0.0
    """Monotonic; of one that is detached."""

    def answered(self, answer: Answer) -> None:
        """Its newest push was answered."""
        self.sequence, self.answer = answer.reply.sequence, answer
        if answer.reply.status is ReplyStatus.MERGED:
            self.merged = self.sequence

    @property
    def absence(self) -> float:
        """Seconds since it was detached; 0 for all others."""
        return time.monotonic() - self.detached_at if self.presence is Presence.DETACHED else 0.0


@dataclass(slots=True)
class Ledger:
    """All entries, and the sums over them."""

    _entries: dict[int, Entry] = field(default_factory=dict)
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def attach(self, identity: Identity, progress: Progress | None) -> Entry:
        """A particle came; progress: of one that returns with its own weights.

        A ledger that does not know the index, as after a synchronizer's restart, believes what a returning one says.
        """
        entry = self._entries.get(identity.index)
        if entry is None or entry.identity != identity:
            start = entry.progress if entry is not None else progress or Progress()
            entry = self._entries[identity.index] = Entry(identity, progress=start, heard=start)
        if progress is not None:
            entry.heard = progress
        entry.presence = Presence.ATTACHED
        entry.attached_time = time.time()
        return entry

    def detach(self, index: int) -> None:
        """Its connection ended, and it had not finished."""
        self._entries[index].presence = Presence.DETACHED
        self._entries[index].detached_at = time.monotonic()

    def commit(self, index: int, round_number: int, progress: Progress, fitness: Fitness) -> None:
        """A push of this index was merged."""
        entry = self._entries[index]
        entry.progress = progress
        if progress.step >= entry.heard.step:
            entry.heard = progress
        entry.contributions += 1
        entry.last_round = round_number
        entry.fitness = fitness
        if entry.first_contribution_time is None:
            entry.first_contribution_time = time.time()

    def release(self, wanted: Collection[int]) -> None:
        """Drop the answers that nobody asks for again, for each holds a whole center.

        They are of those that have finished, or are gone and not wanted back.
        """
        for index, entry in self._entries.items():
            gone = entry.presence is Presence.DETACHED and index not in wanted
            if gone or entry.presence is Presence.FINISHED:
                entry.answer = None

    @property
    def samples(self) -> int:
        """Trained and merged, by the whole swarm."""
        return sum(entry.progress.samples for entry in self._entries.values())

    def finished(self) -> frozenset[int]:
        """Indices that trained to their end."""
        return frozenset(index for index, entry in self._entries.items() if entry.presence is Presence.FINISHED)

    def swarm_progress(self) -> Progress:
        """Where the swarm is: the epoch and fraction that its furthest attached particle is in."""
        present = [entry.heard for entry in self._entries.values() if entry.presence is not Presence.DETACHED]
        if not present:
            present = [entry.heard for entry in self._entries.values()]
        if not present:
            return Progress()
        furthest = max(present, key=lambda progress: (progress.epoch, progress.fraction))
        return Progress(epoch=furthest.epoch, fraction=furthest.fraction)

    def fraction(self, replicas: int, finished: Iterable[int] = ()) -> float:
        """0..1 of the announced epochs, in the mean of all replicas; finished: before this ledger began."""
        reached = {index: entry.heard.fraction for index, entry in self._entries.items()}
        reached |= dict.fromkeys((*finished, *self.finished()), 1.0)
        return min(1.0, sum(part for index, part in reached.items() if index < replicas) / replicas)

    def dump(self) -> list[dict[str, Any]]:
        """All entries as JSON, for a checkpoint of the same commit. Answers are not in it."""
        return [
            {
                "identity": entry.identity.model_dump(),
                "progress": entry.progress.model_dump(),
                "merged": entry.merged,
                "contributions": entry.contributions,
                "last_round": entry.last_round,
                "finished": entry.presence is Presence.FINISHED,
            }
            for _, entry in sorted(self._entries.items())
        ]

    def load(self, dumped: Iterable[dict[str, Any]]) -> None:
        """Know again what `dump` told; whoever has not finished is detached until it attaches."""
        for each in dumped:
            identity, progress = Identity.model_validate(each["identity"]), Progress.model_validate(each["progress"])
            self._entries[identity.index] = Entry(
                identity,
                presence=Presence.FINISHED if each["finished"] else Presence.DETACHED,
                progress=progress,
                heard=progress,
                sequence=each["merged"],
                merged=each["merged"],
                contributions=each["contributions"],
                last_round=each["last_round"],
                detached_at=time.monotonic(),
            )

    @staticmethod
    def identities(dumped: Iterable[dict[str, Any]]) -> list[Identity]:
        """Of the newest incarnation of each index that `dump` told of."""
        return [Identity.model_validate(each["identity"]) for each in dumped]

    def forget(self, indices: Iterable[int]) -> None:
        """The center is made from the weights of these anew, so what they say of themselves is all that holds."""
        for index in indices:
            self._entries.pop(index, None)

    def samples_per_second(self) -> float:
        """Over the last seconds, from calls of this method."""
        now = time.monotonic()
        self._samples.append((now, self.samples))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return max(0.0, (after - before) / (end - start)) if end > start else 0.0

    def reports(self, silent: dict[int, float]) -> tuple[ParticleReport, ...]:
        """All entries for the report; silent: seconds since the attached ones were heard."""
        return tuple(
            ParticleReport(
                index=index,
                incarnation=entry.identity.incarnation,
                instance_uid=entry.identity.instance_uid,
                presence=entry.presence,
                step=entry.heard.step,
                samples=entry.heard.samples,
                contributions=entry.contributions,
                last_round=entry.last_round,
                loss=_finite(entry.fitness.mean) if entry.fitness else None,
                loss_standard_error=_finite(entry.fitness.standard_error) if entry.fitness else None,
                silent_seconds=round(silent.get(index, entry.absence), 3),
                refused=entry.refused,
                attached_time=entry.attached_time,
                first_contribution_time=entry.first_contribution_time,
            )
            for index, entry in sorted(self._entries.items())
        )


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
