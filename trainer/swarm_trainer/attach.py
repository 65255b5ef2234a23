"""The one call that makes a training script a particle."""

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from swarm_trainer.member import Member
from swarm_trainer.particle import Particle
from swarm_trainer.surroundings import Surroundings, in_swarm


def attach(model: nn.Module, optimizer: Optimizer | Sequence[Optimizer]) -> Particle:
    """Join the swarm that this process was started for; outside a swarm do nothing.

    In a swarm this waits until the swarm is founded. From then on the model's weights are exchanged every
    `syncPeriod` steps, inside `optimizer.step()`. Call it once, when the model is on its device.

    Args:
        model: Its parameters become views of one flat buffer; the objects stay the same.
        optimizer: Whoever steps the model; with several, a step is over when the last of them has stepped.

    Raises:
        UnsupportedModelError: The model cannot be exchanged; the message says what to change.
        NotInSwarmError: The process has some of the operator's environment, but not all.
    """
    if not in_swarm():
        return Particle()
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    return Member(Surroundings.read(), model, optimizers)
