"""What a model holds: its parameters and persistent buffers, once each, with all their names."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from swarm_trainer.errors import UnsupportedModelError
from swarm_trainer.weights.schema import Entry, Kind, is_dense

Home = tuple[dict[str, torch.Tensor | None], str]
"""A module's own dictionary of parameters or buffers, and the key in it: where the live tensor is found."""


@dataclass
class Slot:
    """One tensor of a model and the places that hold it."""

    entry: Entry
    homes: tuple[Home, ...]

    def held(self) -> torch.Tensor:
        """The tensor as the model holds it now.

        Raises:
            UnsupportedModelError: The model has it no more, or it is no longer tied as it was.
        """
        name, (first, *others) = self.entry.name, self.homes
        tensor = first[0].get(first[1])
        if tensor is None:
            raise UnsupportedModelError(
                f"{name!r} is no longer in the model: change the model (parametrize, shard, replace layers) before "
                "it is attached, not after"
            )
        for alias, (home, key) in zip(self.entry.aliases, others, strict=True):
            if home.get(key) is not tensor:
                raise UnsupportedModelError(
                    f"{name!r} and {alias!r} were tied when the model was attached and are not any more: tie them "
                    "again, or load without assign=True"
                )
        return tensor

    def live(self) -> torch.Tensor:
        """Its values now, as a tensor that autograd does not watch.

        Raises:
            UnsupportedModelError: It is gone, or has another shape or dtype than when the model was attached.
        """
        tensor = local(self.held())
        entry = self.entry
        if tensor.shape != entry.shape or tensor.dtype != entry.torch_dtype:
            raise UnsupportedModelError(
                f"{entry.name!r} is {tensor.dtype} of shape {tuple(tensor.shape)} now, and was {entry.torch_dtype} of "
                f"shape {entry.shape} when the model was attached: convert or resize the model before that"
            )
        return tensor

    def hold(self, model: nn.Module, tensor: torch.Tensor) -> None:
        """Put another tensor into all its places in the model."""
        for name in (self.entry.name, *self.entry.aliases):
            prefix, _, key = name.rpartition(".")
            # Not into the dictionary: recurrent layers keep a list of their weights as well.
            setattr(model.get_submodule(prefix), key, tensor)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and (Distributed)DataParallel, whose names a plain script can load."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def survey(model: nn.Module) -> list[Slot]:
    """Everything in the model's state_dict that is a parameter or a buffer, in that order.

    Raises:
        UnsupportedModelError: A tensor cannot be exchanged; says which and what to do.
    """
    homes: dict[int, list[tuple[str, Home]]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        kept = {k: None for k in module._buffers if k not in module._non_persistent_buffers_set}
        for home, keys in ((module._parameters, module._parameters), (module._buffers, kept)):
            for key in keys:
                tensor = home[key]
                if tensor is not None:
                    tensors[id(tensor)] = tensor
                    homes.setdefault(id(tensor), []).append((f"{prefix}.{key}" if prefix else key, (home, key)))
    return [
        Slot(_entry(tensors[key], *(name for name, _ in found)), tuple(home for _, home in found))
        for key, found in homes.items()
    ]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The plain tensor that holds a parameter's values on this process: of a DTensor, its own shard."""
    shard = getattr(tensor, "to_local", None)
    with torch.no_grad():
        return shard().data if callable(shard) else tensor.data


def overlapping(model: nn.Module) -> set[int]:
    """Ids of the tensors whose memory another parameter or buffer of the model uses as well."""
    spans: list[tuple[str, int, int, int]] = []
    for tensor in {id(t): t for t in chain(model.parameters(), model.buffers())}.values():
        if is_plain(tensor) and tensor.numel():
            extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = tensor.data_ptr()
            spans.append((str(tensor.device), start, start + extent * tensor.itemsize, id(tensor)))
    found: set[int] = set()
    device, reach, owner = "", 0, 0
    for where, start, end, key in sorted(spans):
        if where == device and start < reach:
            found |= {key, owner}
        if where != device or end > reach:
            device, reach, owner = where, end, key
    return found


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is no subclass (DTensor, quantised ...) and has dense memory of its own to look at."""
    return type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta


def _entry(tensor: torch.Tensor, name: str, *aliases: str) -> Entry:
    for unfit, remedy in _obstacles(tensor):
        if unfit:
            raise UnsupportedModelError(f"{name!r} {remedy}")
    values = local(tensor)
    shape, strides = tuple(values.shape), values.stride()
    if isinstance(tensor, nn.Parameter):
        kind = Kind.WEIGHT if tensor.requires_grad else Kind.FROZEN
    elif tensor.is_complex():
        kind = Kind.FROZEN
    else:
        kind = Kind.BUFFER if tensor.is_floating_point() else Kind.INTEGER
    return Entry(
        name=name,
        kind=kind,
        shape=shape,
        strides=strides if is_dense(shape, strides) else contiguous_strides(shape),
        dtype=str(values.dtype).removeprefix("torch."),
        aliases=aliases,
    )


def _obstacles(tensor: torch.Tensor) -> Iterator[tuple[bool, str]]:
    yield (
        isinstance(tensor, UninitializedParameter | UninitializedBuffer),
        "has no shape yet: run one batch through the model before it is attached",
    )
    yield tensor.is_meta, "is on the meta device: give it memory (model.to_empty(...)) before it is attached"
    yield tensor.layout != torch.strided, f"has layout {tensor.layout}: only dense tensors are exchanged"
    yield tensor.is_quantized, "is quantised: attach the model before it is quantised"
    yield (
        tensor.is_complex() and tensor.requires_grad,
        "is complex: keep it as a real parameter and use torch.view_as_complex in forward()",
    )


def contiguous_strides(shape: Iterable[int]) -> tuple[int, ...]:
    """In elements."""
    sizes = list(shape)
    return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))
