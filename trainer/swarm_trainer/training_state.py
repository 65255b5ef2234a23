"""What makes a training go on besides the weights: the optimizers' state, and whatever the script registered.

A newcomer takes it over from a live particle, each part for itself: a part that does not fit, or that nobody gave,
stays as it is, and a warning says so. What was given is kept until training begins, for what is registered by then.
"""

import contextlib
import copy
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.optim import Optimizer

from swarm_trainer.vectors import Tensors
from swarm_trainer.wire.messages import Donation, Part
from swarm_trainer.wire.tree import Packed, unpack

log = logging.getLogger("swarm.particle")

_LONGEST_TEXT = 16 << 20
"""Characters of all parts' trees; a quarter of what a control message may have."""

_UNREGISTERED = (
    "a learning-rate scheduler drives %s, but it is not registered, so it and the learning rate begin anew: "
    'attach(model, optimizer, state={"scheduler": scheduler})'
)
_LATE = (
    "register() comes too late, since training has begun: call it before the loops over epochs and batches and before "
    "the first optimizer.step()"
)


@runtime_checkable
class Stateful(Protocol):
    """Schedulers, gradient scalers, averaged models, and anything else that saves and restores itself."""

    def state_dict(self) -> Mapping[str, Any]:
        """Plain data and tensors."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Go on from there."""
        ...


def require_stateful(parts: Mapping[str, object]) -> None:
    """Check what a script registers.

    Raises:
        TypeError: Something has no state_dict and load_state_dict.
    """
    for name, part in parts.items():
        if not isinstance(part, Stateful):
            msg = f"state[{name!r}] is a {type(part).__qualname__} without state_dict and load_state_dict: leave it out"
            raise TypeError(msg)


class TrainingState:
    """Used by the training thread: between two steps, or in one, after the optimizer and before the scheduler.

    Args:
        optimizers: As they were attached.
        registered: By name.
    """

    def __init__(self, optimizers: Sequence[Optimizer], registered: Mapping[str, Stateful]) -> None:
        several = len(optimizers) > 1
        self._optimizers: dict[str, Stateful] = {
            f"optimizer {number}" if several else "the optimizer": optimizer
            for number, optimizer in enumerate(optimizers)
        }
        self._registered = _named(registered)
        self._given: tuple[Donation, Tensors] | None = None
        self._begun = False

    def register(self, more: Mapping[str, Stateful]) -> None:
        """One more thing that goes with the training; a newcomer takes it over at once.

        The optimizers are taken over once more, since a scheduler that is made changes its optimizer's rates.

        Raises:
            TypeError: Something has no state_dict and load_state_dict.
            RuntimeError: Training has begun, and a newcomer would not get it.
        """
        require_stateful(more)
        if self._begun:
            raise RuntimeError(_LATE)
        new = _named(more)
        self._registered |= new
        if self._given is not None:
            self._take_parts({**self._optimizers, **new}, *self._given)

    def begin(self) -> None:
        """Training begins: everything is registered, and what was given is needed no more."""
        if self._given is not None:
            donation, self._given = self._given[0], None
            for part in donation.parts:
                if part.name not in self._parts:
                    log.warning("particle %s gave %s, and this script has no such thing", donation.donor, part.name)
        self._begun = True

    @property
    def _parts(self) -> dict[str, Stateful]:
        return {**self._optimizers, **self._registered}

    def give(self, largest: int) -> tuple[Donation, Tensors]:
        """All parts as they are, copied; one that cannot travel has the reason in its place.

        Args:
            largest: Bytes that all tensors together may have.
        """
        parts: list[Part] = []
        data: Tensors = {}
        longest = _LONGEST_TEXT
        for name, part in self._parts.items():
            try:
                packed = Packed(dict(part.state_dict()))
                if packed.nbytes > largest:
                    raise ValueError(f"{packed.nbytes} bytes are more than the {largest} that the model's size allows")
                if len(packed.json) > longest:
                    raise ValueError(f"{len(packed.json)} characters are more than {longest}: use tensors")
                data[name] = packed.data()
            except Exception as error:
                # Whatever the script's own objects do, one that only helps a newcomer must not end for it.
                log.warning("a newcomer gets nothing of %s: %s", name, error)
                parts.append(Part(name=name, problem=str(error)))
            else:
                largest, longest = largest - packed.nbytes, longest - len(packed.json)
                parts.append(Part(name=name, fits=_fits(part), tree=packed.json, nbytes=packed.nbytes))
        tensors = {part.name: data[part.name] for part in parts if part.nbytes}
        return Donation(parts=tuple(parts)), tensors

    def take(self, donation: Donation, tensors: Tensors) -> None:
        """Go on from a donor's state."""
        if not donation.parts:
            log.warning("optimizer and registered state begin anew: %s", donation.problem)
            return
        self._given = donation, tensors
        self._take_parts(self._parts, donation, tensors)

    def _take_parts(self, parts: Mapping[str, Stateful], donation: Donation, tensors: Tensors) -> None:
        given = {part.name: part for part in donation.parts}
        taken = []
        for name, part in parts.items():
            try:
                self._take(name, part, given.get(name), tensors)
            except Exception as error:
                log.warning("%s begins anew: %s", name, error)
            else:
                taken.append(name)
        if taken:
            log.info("%s taken over from particle %s", ", ".join(taken), donation.donor)

    def _take(self, name: str, part: Stateful, given: Part | None, tensors: Tensors) -> None:
        if given is None:
            raise ValueError("the donor has no such thing")
        if given.problem:
            raise ValueError(given.problem)
        for theirs, mine in itertools.zip_longest(given.fits, _fits(part), fillvalue="nothing more"):
            if theirs != mine:
                raise ValueError(f"the donor's has {theirs}, this one {mine}")
        state = unpack(given.tree, tensors.get(name, torch.empty(0, dtype=torch.uint8)))
        before = copy.deepcopy(dict(part.state_dict()))
        if isinstance(part, Optimizer) and not self._registered and _is_scheduled(part):
            log.warning(_UNREGISTERED, name)
            state["param_groups"] = before["param_groups"]
        try:
            part.load_state_dict(state)
        except Exception:
            with contextlib.suppress(Exception):
                part.load_state_dict(before)
            raise


def _named(registered: Mapping[str, Stateful]) -> dict[str, Stateful]:
    return {f"state[{name!r}]": part for name, part in registered.items()}


def _fits(part: Stateful) -> tuple[str, ...]:
    """What must be the same on both sides for a state to fit."""
    kind = f"the class {type(part).__qualname__}"
    if not isinstance(part, Optimizer):
        return (kind,)
    return kind, *(
        f"shape {tuple(parameter.shape)} for parameter {place} of group {number}"
        for number, group in enumerate(part.param_groups)
        for place, parameter in enumerate(group["params"])
    )


def _is_scheduled(optimizer: Optimizer) -> bool:
    # What every scheduler of torch leaves in the groups of its optimizer.
    return any("initial_lr" in group for group in optimizer.param_groups)
