"""The whole swarm at one moment: every lineage, and what the current synchronizer says of them."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Self

from swarm_api.report import Presence, Report, SwarmState
from swarm_operator.plan import lineage
from swarm_operator.plan.ends import Reason
from swarm_operator.plan.facts import Phase
from swarm_operator.plan.lineage import STOP_PATIENCE, Lineage
from swarm_operator.plan.times import unix
from swarm_operator.plan.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class Swarm:
    """All lineages of one job, by index."""

    synchronizer: Lineage
    particles: tuple[Lineage, ...]
    """Also those beyond `replicas`."""
    replicas: int

    @classmethod
    def of(cls, view: View) -> Self:
        """Follow every lineage up to now."""
        return cls(
            synchronizer=lineage.synchronizer(view),
            particles=tuple(lineage.particle(view, index) for index in view.indices),
            replicas=view.job.spec.particles.replicas,
        )

    @property
    def all(self) -> tuple[Lineage, ...]:
        """The synchronizer first: everyone waits for it."""
        return (self.synchronizer, *self.particles)

    @property
    def desired(self) -> tuple[Lineage, ...]:
        """The particles that should exist."""
        return tuple(particle for particle in self.particles if particle.index < self.replicas)

    @property
    def done(self) -> bool:
        """Whether every particle finished that was not given up."""
        left = [particle.attempt.finished for particle in self.desired if not particle.attempt.quarantined]
        return bool(left) and all(left)

    def report(self, view: View) -> Report | None:
        """The report of the newest synchronizer, while that lives."""
        lives = self.synchronizer.live is not None
        current = view.report is not None and view.report.incarnation == self.synchronizer.attempt.incarnation
        return view.report if lives and current else None

    def trains(self, view: View) -> bool:
        """Whether the current synchronizer commits rounds, or has committed the last one."""
        report = self.report(view)
        return report is not None and report.state in (SwarmState.TRAINING, SwarmState.FINISHED)

    def attached(self, view: View) -> tuple[Lineage, ...]:
        """Desired particles that run and that the current synchronizer holds."""
        if self.report(view) is None:
            return ()
        return tuple(
            particle
            for particle in self.desired
            if particle.live
            and particle.live.phase is Phase.RUNNING
            and particle.reported
            and particle.reported.presence is Presence.ATTACHED
        )

    def cleared(self, indices: Collection[int]) -> Self:
        """The same, with these particles recovered from their last loss."""
        particles = tuple(
            replace(each, attempt=each.attempt.model_copy(update={"detect_seconds": None}))
            if each.index in indices
            else each
            for each in self.particles
        )
        return replace(self, particles=particles)

    def stopping(self, view: View) -> Self:
        """The same, after those that the user no longer wants were told to stop.

        A particle beyond `replicas` stops; when suspended all do, and the synchronizer after the last of them, so
        that each can push what it has. One that only has to write the model stays. The highest indices go first,
        because the data is split over 0..replicas-1.
        """
        suspended = view.job.spec.suspend
        particles = tuple(
            _stop(particle, Reason.SUSPENDED if suspended else Reason.SCALED_DOWN, view.now)
            if suspended or particle.index >= self.replicas
            else particle
            for particle in self.particles
        )
        last = suspended and not self.done and not any(_awaited(particles, view.now))
        synchronizer = _stop(self.synchronizer, Reason.SUSPENDED, view.now) if last else self.synchronizer
        return replace(self, particles=particles, synchronizer=synchronizer)


def _stop(found: Lineage, reason: Reason, now: float) -> Lineage:
    return found.stopped(reason, now) if found.live else found


def _awaited(particles: Iterable[Lineage], now: float) -> Iterable[bool]:
    """For each particle whether it may still push something."""
    for particle in particles:
        ended_at = particle.attempt.ended_at
        lost = ended_at is not None and unix(ended_at) + STOP_PATIENCE <= now
        yield not lost and any(True for _ in particle.lingering)
