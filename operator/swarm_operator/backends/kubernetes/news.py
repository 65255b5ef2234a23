"""What in a new report the plan should see at once; all else is numbers, which can wait."""

from collections.abc import Sequence

from swarm_api.report import ParticleReport, Report


def is_news(before: Report | None, after: Report | None, silences: Sequence[float]) -> bool:
    """Whether something happened between two reports.

    silences: seconds of silence of a particle at which somebody acts.
    """
    if before is None or after is None:
        return before is not after
    return _gist(before, silences) != _gist(after, silences)


def _gist(report: Report, silences: Sequence[float]) -> tuple[object, ...]:
    return (
        report.uid,
        report.incarnation,
        report.state,
        report.message,
        report.settings_generation,
        report.last_sync_time is None,
        tuple(_gist_of(particle, silences) for particle in report.particles),
    )


def _gist_of(particle: ParticleReport, silences: Sequence[float]) -> tuple[object, ...]:
    return (
        particle.index,
        particle.incarnation,
        particle.instance_uid,
        particle.presence,
        particle.contributions > 0,
        particle.first_contribution_time is None,
        sum(particle.silent_seconds >= silence for silence in silences),
    )
