"""Whose weights become the first center: pure, over who attached and a clock.

A new swarm starts from the particle with the lowest index, once all replicas are there or the start grace is over
and minReplicas are. A restarted synchronizer meets particles that already train: it rebuilds the center from all
that come back, and waits a moment for them.
"""

from swarm_api.settings import Settings

_RETURN_SECONDS = 3.0
"""Particles look for their synchronizer at least every few seconds, so those that live are back by then."""


class Founding:
    """Times are of a monotonic clock, in seconds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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

    @property
    def rebuilding(self) -> bool:
        """Whether the center comes from particles that trained before."""
        return bool(self._returning)

    @property
    def last_round(self) -> int:
        """The highest round that any returning particle knows of."""
        return max(self._returning.values(), default=0)

    def decide(self, waiting: frozenset[int], now: float) -> tuple[tuple[int, ...], float | None]:
        """Indices whose weights are wanted now, else nobody and the time to ask again."""
        waiting = waiting & frozenset(self._arrived)
        if not waiting:
            return (), None
        all_there = len(waiting) >= self.settings.replicas - len({*self.settings.given_up, *self.settings.finished})
        first = min(self._arrived[index] for index in waiting)
        if self._returning:
            founders = tuple(sorted(waiting & frozenset(self._returning)))
            due = first + _RETURN_SECONDS
            return (founders, None) if all_there or now >= due else ((), due)
        due = first + self.settings.sync.start_grace_seconds
        if all_there or (now >= due and len(waiting) >= self.settings.min_replicas):
            return (min(waiting),), None
        return (), (due if now < due else None)
