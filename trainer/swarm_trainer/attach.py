"""The one call that makes a training script a particle."""

import os
from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from swarm_trainer.errors import UnsupportedModelError
from swarm_trainer.member import Member
from swarm_trainer.particle import Particle
from swarm_trainer.surroundings import Surroundings, in_swarm
from swarm_trainer.training_state import Stateful, require_stateful

_attached = False


def attach(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    state: Mapping[str, Stateful] | None = None,
) -> Particle:
    """Join the swarm that this process was started for; outside a swarm do nothing.

    In a swarm this waits until the swarm is founded, for as long as that takes; the log says what is missing. From
    then on the model's weights are exchanged every `syncPeriod` steps, inside `optimizer.step()`. Call it once, when
    the model is on its device.

    Args:
        model: Its parameters become views of one flat buffer; the objects stay the same.
        optimizer: Whoever steps the model; with several, a step is over when each of them has stepped.
        state: What else a newcomer takes over from a live particle, by name, such as `{"scheduler": scheduler}`:
            anything whose `state_dict()` is plain data and tensors; `Particle.register` takes what is made later. The
            optimizers are taken over anyway, with the hyper-parameters of their groups, unless
            `spec.particles.join.optimizerState` is Fresh.

    Raises:
        TypeError: These are no model and no optimizers, or something in `state` has no state_dict and load_state_dict.
        UnsupportedModelError: The model cannot be exchanged, or one is attached already; says what to change.
        NotInSwarmError: The process has some of the operator's environment, but not all.
    """
    global _attached
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}: a torch.nn.Module is needed")
    optimizers = list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
    strangers = [type(each).__name__ for each in optimizers if not isinstance(each, Optimizer)]
    if strangers or not optimizers:
        found = strangers[0] if strangers else "nothing"
        raise TypeError(f"optimizer is {found}: a torch.optim.Optimizer, or a list of them, is needed")
    state = state or {}
    require_stateful(state)
    if not in_swarm():
        return Particle()
    if (ranks := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UnsupportedModelError(
            f"WORLD_SIZE is {ranks}, and a particle is one process: start the script with python instead of torchrun, "
            "and ask for more particles (spec.particles.replicas)"
        )
    if _attached:
        raise UnsupportedModelError(
            "attach was called twice, and a process is one particle: attach nn.ModuleList([model, ...]) and the list "
            "of all optimizers, once"
        )
    member = Member(Surroundings.read(), model, optimizers, state)
    _attached = True
    return member
