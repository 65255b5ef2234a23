"""When a round commits, and with whom: a pure state machine over events and a clock.

A round commits when everyone who is expected has delivered; or with a quorum of the members once the grace is over;
or at the deadline; the last two with at least minReplicas, else its pushes are held. Nobody is waited for who has not
kept the pace: a newcomer is expected only after its first delivery, a member that missed the end of a round only after
its next one, and only while it needs no longer for a period than the usual one and the grace. Whoever delivers is
merged in the round that its push reaches, so a slow particle loses nothing and slows nobody.

Grace and deadline count from the first delivery of one that is expected: a push of anyone else comes at any moment of
the others' period, and until they are due nobody is late. Without such a delivery the deadline counts from when the
first of them was due. The grace of each one begins when its last period says that it is due, and anew whenever bytes of
its push or reply move: that is the network's time, and many large models take a lot of it.

While fewer than minReplicas are alive every push is held at once: those particles train on by themselves. Alive is
who finished or is attached, unless a round ended without its push and it has been silent since.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_low


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The rules of `spec.sync`; times in seconds."""

    min_replicas: int
    quorum_of: Callable[[int], int]
    """Deliveries needed, of so many members at the opening."""
    deadline: float
    grace: float | None = None
    """None: twice the usual spread of arrivals, 0.2 s at least."""
    barrier: bool = True
    """False: every delivery commits by itself."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Merge these now, in this order."""

    contributors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Fewer than minReplicas are there: tell these to train on, their pushes are not merged."""

    contributors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until an event, or until this time."""

    until: float | None = None


Decision = Commit | Hold | Wait

_LEAST_GRACE = 0.2
_SPREAD_MEMORY = 0.8
_TOLERANCE = 1.25
"""A period so many times the usual one is still the same pace."""


@dataclass(slots=True)
class _Member:
    expected: bool = False
    overdue: bool = False
    """A round ended without its push, and it has not delivered since: it may be frozen."""
    missed: float | None = None
    """When that round had opened."""
    finished: bool = False
    moved: float = -math.inf
    """When bytes of its push or reply were last seen to move."""
    answered: float | None = None
    """When its last reply had left: its period starts there."""
    took: float | None = None
    """Seconds from there to the delivery after it."""
    period: float | None = None
    """The shorter of the last two such times: one that stumbles once keeps its pace, unless a round went without it."""


@dataclass(slots=True)
class Rounds:
    """The open round. Every method takes the time from the caller."""

    pace: Pace
    _members: dict[int, _Member] = field(default_factory=dict)
    _delivered: dict[int, float] = field(default_factory=dict)
    _size_at_opening: int = 0
    _usual_spread: float = 0.0

    def join(self, index: int, *, expected: bool = False) -> None:
        """A particle attached; expected: with the first, so that the round waits for it from the start."""
        self._members[index] = _Member(expected=expected)
        self._delivered.pop(index, None)

    def leave(self, index: int) -> None:
        """A particle is gone; what it delivered to the open round goes with it."""
        self._members.pop(index, None)
        self._delivered.pop(index, None)

    def finish(self, index: int) -> None:
        """A particle trained to its end: it counts as present and is not waited for."""
        self._delivered.pop(index, None)
        self._members[index] = _Member(finished=True)

    def moved(self, index: int, when: float) -> None:
        """Bytes of a member's push or reply moved, last at this time."""
        if index in self._members:
            self._members[index].moved = when

    def deliver(self, index: int, now: float) -> None:
        """A member's push has arrived whole."""
        member = self._members[index]
        if not self._delivered:
            self._size_at_opening = self._training
        if member.answered is not None:
            took, before = now - member.answered, member.took
            member.took = took
            member.period = took if before is None or member.missed is not None else min(before, took)
        if member.missed is not None and now - member.missed <= (_TOLERANCE - 1) * self._usual_period:
            # It keeps the pace of the others, and so will its kind: the grace was too short.
            self._usual_spread = max(self._usual_spread, now - member.missed)
        member.overdue, member.missed = False, None
        self._delivered[index] = now

    def excuse(self, index: int, now: float) -> None:
        """A member's push was refused: it starts a new period, and the open round does not wait for that."""
        member = self._members[index]
        member.expected, member.overdue, member.answered = False, False, now

    def renew(self) -> None:
        """The settings changed: all that was delivered goes back to its particles, and paces are measured anew."""
        self._delivered.clear()
        for member in self._members.values():
            member.answered = member.took = member.period = member.missed = None

    def sent(self, index: int, now: float) -> None:
        """The reply to a member's push has left whole."""
        if index in self._members:
            self._members[index].answered = now

    @property
    def present(self) -> int:
        """Particles attached or finished."""
        return len(self._members)

    @property
    def alive(self) -> int:
        """Those of them that are not overdue."""
        return sum(not member.overdue for member in self._members.values())

    @property
    def paced(self) -> frozenset[int]:
        """Those that the next round waits for: they keep the pace."""
        return frozenset(self._expected())

    @property
    def open(self) -> bool:
        """Whether anyone waits for an answer."""
        return bool(self._delivered)

    def decide(self, now: float) -> Decision:
        """What to do at this time; call `answered` when it is done."""
        if not self._delivered:
            return Wait()
        everyone = tuple(sorted(self._delivered))
        if self.alive < self.pace.min_replicas:
            return Hold(everyone)
        if not self.pace.barrier:
            return Commit((min(self._delivered, key=lambda index: self._delivered[index]),))
        expected = self._expected()
        if all(index in self._delivered for index in expected):
            return Commit(everyone)
        opened = self._opened(expected)
        enough = len(everyone) + self.present - self._training >= self.pace.min_replicas
        quorum = len(everyone) >= self.pace.quorum_of(self._size_at_opening)
        graced = self._graced(opened, expected)
        due = opened + self.pace.deadline
        if enough and ((quorum and now >= graced) or now >= due):
            return Commit(everyone)
        if now >= due:
            return Hold(everyone)
        return Wait(min(graced, due) if enough and quorum else due)

    def answered(self, decision: Commit | Hold, now: float) -> None:
        """The decision was carried out: its contributors train again, and the next round may open."""
        contributors = [index for index in decision.contributors if index in self._delivered]
        if self.pace.barrier and contributors:
            expected = self._expected()
            opened = self._opened(expected)
            arrivals = [self._delivered[index] for index in contributors if index in expected]
            if len(arrivals) > 1 and isinstance(decision, Commit):
                spread = max(arrivals) - min(arrivals)
                self._usual_spread = _SPREAD_MEMORY * self._usual_spread + (1 - _SPREAD_MEMORY) * spread
            if self.alive >= self.pace.min_replicas:
                for index in set(expected) - self._delivered.keys():
                    member = self._members[index]
                    member.expected, member.overdue, member.missed = False, True, opened
            for index in contributors:
                self._members[index].expected = True
        for index in contributors:
            del self._delivered[index]
            self._members[index].answered = now
        self._size_at_opening = self._training

    @property
    def _training(self) -> int:
        return sum(not member.finished for member in self._members.values())

    def _opened(self, expected: list[int]) -> float:
        """When the round began to wait for those that are expected."""
        arrivals = [self._delivered[index] for index in expected if index in self._delivered]
        if arrivals:
            return min(arrivals)
        first = min(self._delivered.values())
        return max(first, min((self._due(index, first) for index in expected), default=first))

    def _graced(self, opened: float, expected: list[int]) -> float:
        """When the last of those that are missing is late."""
        if not any(index in self._delivered for index in expected):
            return math.inf
        missing = [index for index in expected if index not in self._delivered]
        return (
            max(max(opened, self._due(index, opened), self._members[index].moved) for index in missing) + self._grace()
        )

    def _due(self, index: int, unknown: float) -> float:
        """When its next delivery is, if this period is like its last one, or like the others'."""
        member = self._members[index]
        period = member.period or self._usual_period
        return member.answered + period if member.answered is not None and period else unknown

    def _expected(self) -> list[int]:
        usual = self._usual_period
        longest = max(_TOLERANCE * usual, usual + self._grace())
        return [
            index
            for index, member in self._members.items()
            if member.expected and not member.finished and (member.period is None or member.period <= longest)
        ]

    @property
    def _usual_period(self) -> float:
        members = self._members.values()
        periods = [member.period for member in members if member.period is not None and not member.finished]
        return median_low(periods) if periods else 0.0

    def _grace(self) -> float:
        return max(_LEAST_GRACE, 2 * self._usual_spread) if self.pace.grace is None else self.pace.grace
