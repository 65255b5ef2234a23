"""The one call that makes a training script a particle."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from swarm_trainer.member import Member
from swarm_trainer.particle import Particle
from swarm_trainer.surroundings import Surroundings, in_swarm
from swarm_trainer.training_state import Stateful, require_stateful


def attach(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    state: Mapping[str, Stateful] | None = None,
) -> Particle:
    """Join the swarm that this process was started for; outside a swarm do nothing.

    In a swarm this waits until the swarm is founded. From then on the model's weights are exchanged every
    `syncPeriod` steps, inside `optimizer.step()`. Call it once, when the model is on its device.

    Args:
        model: Its parameters become views of one flat buffer; the objects stay the same.
        optimizer: Whoever steps the model; with several, a step is over when the last of them has stepped.
        state: What else a newcomer takes over from a live particle, by name, such as `{"scheduler": scheduler}`:
            anything whose `state_dict()` is plain data and tensors. The optimizers are taken over anyway, with the
            hyper-parameters of their groups, unless `spec.particles.join.optimizerState` is Fresh.

    Raises:
        TypeError: Something in `state` has no state_dict and load_state_dict.
        UnsupportedModelError: The model cannot be exchanged; the message says what to change.
        NotInSwarmError: The process has some of the operator's environment, but not all.
    """
    state = state or {}
    require_stateful(state)
    if not in_swarm():
        return Particle()
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    return Member(Surroundings.read(), model, optimizers, state)
