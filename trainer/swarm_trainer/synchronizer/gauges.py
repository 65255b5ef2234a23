"""Prometheus metrics of a synchronizer."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Gauges:
    """One registry for each synchronizer, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.rounds = Counter("swarm_synchronizer_rounds", "Rounds committed.", registry=registry)
        self.contributions = Counter("swarm_synchronizer_contributions", "Pushes merged.", registry=registry)
        self.held = Counter(
            "swarm_synchronizer_held",
            "Pushes not merged because fewer than minReplicas were present.",
            registry=registry,
        )
        self.refused = Counter(
            "swarm_synchronizer_refused", "Pushes refused because they were not finite.", registry=registry
        )
        self.members = Gauge("swarm_synchronizer_members", "Particles attached or finished.", registry=registry)
        self.merge_seconds = Histogram(
            "swarm_synchronizer_merge_seconds", "Time to merge a round.", buckets=_SECONDS, registry=registry
        )
        self.loss = Gauge(
            "swarm_synchronizer_particle_loss",
            "Mean loss of a particle's last period.",
            ["particle"],
            registry=registry,
        )
        self.checkpoint_round = Gauge(
            "swarm_synchronizer_checkpoint_round", "Round of the newest checkpoint.", registry=registry
        )
        self.checkpoint_failures = Counter(
            "swarm_synchronizer_checkpoint_failures", "Checkpoints that could not be written.", registry=registry
        )
        self.checkpoint_seconds = Histogram(
            "swarm_synchronizer_checkpoint_seconds", "Time to write a checkpoint.", buckets=_SECONDS, registry=registry
        )

    def committed(self, members: int, contributions: int, losses: dict[int, float]) -> None:
        """A round was merged."""
        self.rounds.inc()
        self.contributions.inc(contributions)
        self.members.set(members)
        for index, loss in losses.items():
            self.loss.labels(particle=str(index)).set(loss)
