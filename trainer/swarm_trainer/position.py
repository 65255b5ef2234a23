"""How far a particle has come."""

from dataclasses import dataclass

from swarm_trainer.wire.messages import Progress


@dataclass(slots=True)
class Position:
    """Where the particle is; see `Progress`. Counted by the training thread, read by both."""

    step: int = 0
    samples: int = 0
    epoch: int = 0
    fraction: float = 0.0

    def resume(self, progress: Progress) -> None:
        """Go on from there; the object stays the same, since heartbeats read it."""
        self.step, self.samples = progress.step, progress.samples
        self.epoch, self.fraction = progress.epoch, progress.fraction

    def progress(self) -> Progress:
        """As it goes over the wire."""
        return Progress(step=self.step, samples=self.samples, epoch=self.epoch, fraction=self.fraction)
