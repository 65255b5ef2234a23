"""A model's weights as one flat vector that is, where possible, the very memory the model trains on."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.optim import Optimizer

from swarm_trainer.errors import UnsupportedModelError
from swarm_trainer.weights.schema import Entry, Kind, Schema
from swarm_trainer.weights.survey import Slot, is_plain, local, overlapping, survey, unwrapped

log = logging.getLogger("swarm.particle")


class FlatWeights:
    """Flat vectors over a live model: the exchange vector x, and three smaller ones for everything else.

    * **Weights** (parameters that require a gradient when this is made) form x, a vector of shape (D,) and of the
      narrowest dtype that holds them all. A weight that has x's dtype and device gets its memory inside x, so
      reading and writing it costs nothing; every other (another dtype or device, FSDP2's DTensor and other
      subclasses, gaps or overlaps in memory, cuDNN's RNN weights) keeps its own memory and is copied by `gather` and
      `scatter`. Of a DTensor the local shard counts. A weight that is frozen later stays a weight.
    * **Buffers**, **integers** and **frozen** tensors stay where they are and are copied by `read` and `write`.
      Non-persistent buffers and the extra state of modules are left out.

    Parameter objects stay the same, so optimizers, their state, hooks and compiled models go on working. The
    storage that a parameter shows is a window on x, exactly as long as the parameter: `torch.save` of a state_dict,
    even of one layer's, writes its own bytes and no more, safetensors sees no shared memory, and state_dict still
    returns the live tensors. A hook that makes state_dict return copies would do for saving, but helpers that write
    *through* state_dict, as moving averages do, would then change nothing and not notice.

    Modules wrapped by torch.compile or (Distributed)DataParallel are looked through: names are those of the module
    inside. Deep copies of the model are independent of x.

    Args:
        model: Which modules it has, and what kinds of tensors, is settled from now on.
        optimizers: Who steps its weights.

    Raises:
        UnsupportedModelError: A tensor cannot be exchanged; says which and what to do.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer] = ()) -> None:
        self._model = unwrapped(model)
        self._optimizers = optimizers
        slots = survey(self._model)
        self.schema = Schema(entries=tuple(slot.entry for slot in slots))
        self._slots: dict[Kind, list[Slot]] = {kind: [s for s in slots if s.entry.kind is kind] for kind in Kind}
        self.parameters = [_parameter(slot) for slot in self._slots[Kind.WEIGHT]]
        """The weights in the order of x; the same objects that the optimizer holds."""
        self._devices = [parameter.device for parameter in self.parameters]
        layout = self.schema.layouts[Kind.WEIGHT]
        self._x = layout.new(_commonest(self.parameters))
        self._views = layout.views(self._x)
        kept = overlapping(self._model) | _cudnn_weights(self._model)
        self._inside = [
            id(parameter) not in kept and _fits(parameter, entry, self._x)
            for parameter, entry in zip(self.parameters, layout.entries, strict=True)
        ]
        for i, (parameter, view) in enumerate(zip(self.parameters, self._views, strict=True)):
            view.copy_(local(parameter))
            if self._inside[i]:
                parameter.data = self._window(i)
        self._modules = list(self._model.modules())
        self._children = [
            (module._modules, key, child) for module in self._modules for key, child in module._modules.items()
        ]
        self._remember()

    def gather(self) -> torch.Tensor:
        """The exchange vector x, shape (D,), up to date after `check`. It is always the same tensor.

        What is changed in x changes the weights; those that do not live in it follow at `scatter`.

        Raises:
            UnsupportedModelError: As for `check`.
        """
        self.check()
        for view, source in self._copied():
            view.copy_(source)
        return self._x

    def scatter(self) -> None:
        """Write x back to the weights that do not live in it."""
        for view, target in self._copied():
            target.copy_(view)

    def read(self, kind: Kind) -> torch.Tensor:
        """A fresh copy of the vector of one kind: on x's device, but frozen tensors, which may be large, on the CPU.

        Returns:
            Shape (size,) and the dtype of `schema.layouts[kind]`.

        Raises:
            UnsupportedModelError: As for `check`.
        """
        self.check()
        layout = self.schema.layouts[kind]
        values = layout.new("cpu" if kind is Kind.FROZEN else self._x.device)
        for view, source in zip(layout.views(values), self._live(kind), strict=True):
            view.copy_(source)
        return values

    def write(self, kind: Kind, values: torch.Tensor) -> None:
        """Set all tensors of one kind from such a copy, which may be on another device.

        Raises:
            UnsupportedModelError: As for `check`.
            ValueError: The values have another shape.
        """
        self.check()
        views = self.schema.layouts[kind].views(values.detach())
        for view, target in zip(views, self._live(kind), strict=True):
            target.copy_(view)

    @contextmanager
    def swapped(
        self, x: torch.Tensor, buffers: torch.Tensor | None = None, integers: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Within the block the model has other weights (and buffers); afterwards its own again, bit for bit.

        Whatever the block does to weights, buffers and integers is undone, even if no buffers are given.

        Raises:
            UnsupportedModelError: As for `check`.
            ValueError: A vector has another shape.
        """
        self.check()
        given = {Kind.WEIGHT: x, Kind.BUFFER: buffers, Kind.INTEGER: integers}
        own = {kind: [tensor.clone() for tensor in self._live(kind)] for kind in given}
        try:
            for kind, values in given.items():
                if values is not None:
                    self.write(kind, values)
            yield
        finally:
            for kind, tensors in own.items():
                for target, tensor in zip(self._live(kind), tensors, strict=True):
                    target.copy_(tensor)

    def gather_gradient(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """The gradient at x, shape (D,), on x's device in x's dtype; zero where a weight has none. Reuses `out`."""
        vector = torch.zeros_like(self._x) if out is None else out.zero_()
        for view, parameter in zip(self.schema.layouts[Kind.WEIGHT].views(vector), self.parameters, strict=True):
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                view.copy_(gradient.to_dense() if gradient.is_sparse else gradient)
        return vector

    def scatter_gradient(self, vector: torch.Tensor) -> None:
        """Set every weight's gradient from a vector of shape (D,); a missing or sparse one becomes a dense one.

        Raises:
            ValueError: The vector has another shape.
        """
        for view, parameter in zip(self.schema.layouts[Kind.WEIGHT].views(vector), self.parameters, strict=True):
            if parameter.grad is None or parameter.grad.is_sparse:
                parameter.grad = torch.zeros_like(parameter)
            local(parameter.grad).copy_(view)

    def check(self) -> None:
        """Make sure that x still is the model; `gather`, `read`, `write` and `swapped` call it.

        `.to()`, `load_state_dict(assign=True)` and the like give a parameter other memory and tell nobody. One that
        still has its shape, dtype and device is taken back, with the values it has now and the strides it had at
        first. A new parameter whose optimizer still holds the old one gives its values to that, which is put back.
        Costs about 10 microseconds for 60 parameters as long as nothing changed.

        Raises:
            UnsupportedModelError: A weight has another shape, dtype or device, or is gone, new, untied or unfrozen,
                or a layer was replaced; says which and what to do.
        """
        if self._snapshot() != self._seen:
            self._inspect()
            self._adopt()

    def _inspect(self) -> None:
        for children, key, child in self._children:
            if children.get(key) is not child:
                raise UnsupportedModelError(
                    f"the layer {key!r} was replaced after the model was attached: change the model before that"
                )
        known = {name for entry in self.schema.entries for name in (entry.name, *entry.aliases)}
        for name, _ in self._model.named_parameters(remove_duplicate=False):
            if name not in known:
                raise UnsupportedModelError(
                    f"{name!r} was added after the model was attached: change the model before that"
                )
        for slot in self._slots[Kind.FROZEN]:
            if slot.held().requires_grad:
                raise UnsupportedModelError(
                    f"{slot.entry.name!r} was frozen when the model was attached and requires a gradient now: attach "
                    "it with requires_grad=True, then freeze it until it is needed"
                )

    def _adopt(self) -> None:
        returned: list[str] = []
        for i, slot in enumerate(self._slots[Kind.WEIGHT]):
            values, parameter = slot.live(), _parameter(slot)
            if parameter.device != self._devices[i]:
                raise UnsupportedModelError(
                    f"{slot.entry.name!r} is on {parameter.device} now, and was on {self._devices[i]} when the model "
                    "was attached: move the model before that"
                )
            view, replaced = self._views[i], self.parameters[i]
            if parameter is not replaced and self._is_stepped(replaced) and not self._is_stepped(parameter):
                local(replaced).copy_(values)
                slot.hold(self._model, replaced)
                values, parameter = slot.live(), replaced
                returned.append(slot.entry.name)
            moved = (values.data_ptr(), values.stride()) != (view.data_ptr(), view.stride())
            if self._inside[i] and moved:
                if parameter is not replaced and replaced.data_ptr() == view.data_ptr():
                    replaced.data = view.clone()  # an optimizer may hold it still, and must not move x
                view.copy_(values)
                parameter.data = self._window(i)
            self.parameters[i] = parameter
        self._remember()
        if returned:
            log.warning(
                "%r and %d more were replaced, but not in the optimizer: what it steps took their values",
                returned[0],
                len(returned) - 1,
            )

    def _is_stepped(self, parameter: nn.Parameter) -> bool:
        groups = chain.from_iterable(optimizer.param_groups for optimizer in self._optimizers)
        return any(held is parameter for group in groups for held in group["params"])

    def _remember(self) -> None:
        self._homes = [home for slot in self._slots[Kind.WEIGHT] for home in slot.homes]
        self._frozen = [slot.homes[0] for slot in self._slots[Kind.FROZEN]]
        placed = list(zip(self.parameters, self._inside, strict=True))
        self._aliased = [parameter for parameter, inside in placed if inside]
        self._foreign = [parameter for parameter, inside in placed if not inside]
        self._seen = self._snapshot()

    def _snapshot(self) -> tuple[list[object], ...]:
        """All that must not change between two exchanges, as cheap to collect as Python allows."""
        return (
            [parameter.data_ptr() for parameter in self._aliased],
            [(parameter.dtype, parameter.device, parameter.shape) for parameter in self._foreign],
            [id(home.get(key)) for home, key in self._homes],
            [getattr(home.get(key), "requires_grad", None) for home, key in self._frozen],
            [id(children.get(key)) for children, key, _ in self._children],
            [len(module._parameters) + len(module._modules) for module in self._modules],
        )

    def _live(self, kind: Kind) -> list[torch.Tensor]:
        return [slot.live() for slot in self._slots[kind]]

    def _copied(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(place in x, the weight's own memory) of the weights that do not live in x."""
        triples = zip(self._views, self.parameters, self._inside, strict=True)
        return [(view, local(parameter)) for view, parameter, inside in triples if not inside]

    def _window(self, i: int) -> torch.Tensor:
        """A tensor on the memory of the i-th weight in x, whose storage is exactly as long as the weight.

        A slice of a storage is another storage over the same memory, which it keeps alive.
        """
        x, view = self._x, self._views[i]
        start = view.storage_offset() * x.itemsize
        storage = x.untyped_storage()[start : start + view.nbytes]
        return torch.empty(0, dtype=x.dtype, device=x.device).set_(storage, 0, view.shape, view.stride())


def _parameter(slot: Slot) -> nn.Parameter:
    tensor = slot.held()
    assert isinstance(tensor, nn.Parameter)
    return tensor


def _commonest(parameters: Sequence[torch.Tensor]) -> torch.device:
    """The device that holds most of the weights."""
    sizes: Counter[torch.device] = Counter()
    for parameter in parameters:
        sizes[parameter.device] += parameter.numel()
    return max(sizes, key=sizes.__getitem__, default=torch.device("cpu"))


def _fits(parameter: torch.Tensor, entry: Entry, x: torch.Tensor) -> bool:
    """Whether its memory may become a part of x; an empty tensor has none."""
    return (
        is_plain(parameter)
        and parameter.numel() > 0
        and (parameter.dtype, parameter.device) == (x.dtype, x.device)
        and parameter.stride() == entry.strides
    )


def _cudnn_weights(model: nn.Module) -> set[int]:
    """Weights of recurrent layers: cuDNN wants a layer's in one piece, or copies them at every forward pass."""
    layers = (module for module in model.modules() if isinstance(module, nn.RNNBase))
    return {id(parameter) for layer in layers for parameter in layer.parameters() if parameter.is_cuda}
