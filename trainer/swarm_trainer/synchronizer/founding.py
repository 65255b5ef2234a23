"""What the first center is made of: pure, over who attached, a clock, and what a checkpoint holds.

A new swarm starts from the particle with the lowest index, once all replicas are there or the start grace is over
and minReplicas are; with a checkpoint, from that. A restarted synchronizer meets particles that already train, and
waits a moment for them: if they know of a later round than the checkpoint, it rebuilds the center from all of them.
"""

from dataclasses import dataclass

from swarm_api.settings import Settings

_RETURN_SECONDS = 3.0
"""Particles look for their synchronizer at least every few seconds, so those that live are back by then."""


@dataclass(frozen=True, slots=True)
class Found:
    """On the weights of this particle."""

    founder: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """From the weights of these, which trained before."""

    founders: tuple[int, ...]
    last_round: int
    """The highest that any returning particle knows of."""


@dataclass(frozen=True, slots=True)
class Restore:
    """From the checkpoint."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Everyone has finished, and nobody has the center."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Until a particle comes or goes, or until this time."""

    until: float | None = None


class Founding:
    """Times are of a monotonic clock, in seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kept: int | None = None
        """Round of the checkpoint, if there is one."""
        self.finished: frozenset[int] = frozenset()
        """Indices that had finished when it was written."""
        self._arrived: dict[int, float] = {}
        self._returning: dict[int, int] = {}

    def arrived(self, index: int, now: float, *, returning: bool, round_: int) -> None:
        """A particle attached; round_: the last one it knows of, if it returns."""
        self._arrived[index] = now
        self._returning.pop(index, None)
        if returning:
            self._returning[index] = round_

    def left(self, index: int) -> None:
        """It is gone again."""
        self._arrived.pop(index, None)
        self._returning.pop(index, None)

    def decide(self, waiting: frozenset[int], now: float) -> Found | Rebuild | Restore | Lost | Wait:
        """What to do now; waiting: indices that are connected."""
        waiting = waiting & frozenset(self._arrived)
        done = {*self.settings.given_up, *self.settings.finished, *self.finished}
        awaited = set(range(self.settings.replicas)) - done
        if not waiting and not awaited:
            return Lost() if self.kept is None else Restore()
        if not waiting:
            return Wait()
        all_there = len(waiting) >= len(awaited)
        first = min(self._arrived[index] for index in waiting)
        if self._returning:
            due = first + _RETURN_SECONDS
            if not (all_there or now >= due):
                return Wait(due)
            last_round = max(self._returning.values())
            if self.kept is not None and self.kept >= last_round:
                return Restore()
            return Rebuild(tuple(sorted(waiting & frozenset(self._returning))), last_round)
        due = first + self.settings.sync.start_grace_seconds
        if all_there or (now >= due and len(waiting) >= self.settings.min_replicas):
            return Found(min(waiting)) if self.kept is None else Restore()
        return Wait(due if now < due else None)
