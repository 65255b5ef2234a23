"""The description of a model's weights: enough to rebuild its state_dict where there is no model.

Everything about the flat vectors (offsets, sizes, dtypes) follows from the ordered entries alone, so two processes
whose schemas have the same hash lay the same numbers at the same places, whatever devices they use.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, reduce
from typing import Self

import torch
from pydantic import NonNegativeInt, field_validator, model_validator

from swarm_api.base import Model

ALIGNMENT = 256
"""Bytes, of every weight's start in the exchange vector."""


class Kind(StrEnum):
    """What the swarm does with a tensor; all of one kind form one flat vector."""

    WEIGHT = "weight"
    """Trained: the exchange vector x."""
    BUFFER = "buffer"
    """Floating buffer (BatchNorm's running statistics): averaged."""
    INTEGER = "integer"
    """Integer or boolean buffer (num_batches_tracked), as int64: the maximum is taken."""
    FROZEN = "frozen"
    """Parameter without gradient or complex buffer, as raw bytes: equal everywhere, sent once."""


class Entry(Model):
    """One tensor of a state_dict."""

    name: str
    kind: Kind
    shape: tuple[NonNegativeInt, ...]
    strides: tuple[NonNegativeInt, ...]
    """In elements, as it lies in its flat vector: dense, so without gaps or overlaps."""
    dtype: str
    """Name of a torch dtype: float32, bfloat16, int64 ..."""
    aliases: tuple[str, ...] = ()
    """Its other names, where tensors are tied."""

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if not isinstance(getattr(torch, value, None), torch.dtype):
            raise ValueError(f"torch has no dtype {value!r}: both sides need the same version of torch")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.shape) != len(self.strides) or not is_dense(self.shape, self.strides):
            raise ValueError(f"{self.name}: strides {self.strides} are not dense for shape {self.shape}")
        dtype = self.torch_dtype
        fits = {
            Kind.WEIGHT: dtype.is_floating_point,
            Kind.BUFFER: dtype.is_floating_point,
            Kind.INTEGER: not (dtype.is_floating_point or dtype.is_complex),
            Kind.FROZEN: True,
        }
        if not fits[self.kind]:
            raise ValueError(f"{self.name}: {self.dtype} cannot be of kind {self.kind}")
        return self

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the model's own tensor."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where the tensors of one kind lie in their flat vector."""

    kind: Kind
    entries: tuple[Entry, ...]
    dtype: torch.dtype
    """The narrowest that holds all of them exactly; int64 for integers, uint8 for the bytes of frozen tensors."""
    offsets: tuple[int, ...]
    """In elements of the vector."""
    size: int
    """Elements of the vector, padding included. Padding starts as zero and is never read."""

    @classmethod
    def of(cls, kind: Kind, entries: Iterable[Entry]) -> Self:
        """Lay entries one after the other: weights at multiples of 256 bytes, frozen tensors at 16."""
        entries = tuple(entries)
        dtype = _dtype(kind, entries)
        align = {Kind.WEIGHT: ALIGNMENT // dtype.itemsize, Kind.FROZEN: 16}.get(kind, 1)
        lengths = (entry.numel * (entry.torch_dtype.itemsize if kind is Kind.FROZEN else 1) for entry in entries)
        *offsets, size = itertools.accumulate((-(-length // align) * align for length in lengths), initial=0)
        return cls(kind, entries, dtype, tuple(offsets), size)

    def new(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """A vector of zeros of shape (size,)."""
        return torch.zeros(self.size, dtype=self.dtype, device=device)

    def views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """One view of the vector per entry, with the entry's shape and strides.

        Args:
            vector: Shape (size,), contiguous; of any dtype, which the views keep. A frozen one is uint8, and its
                views have the entries' dtypes.

        Raises:
            ValueError: It has another shape, or is a frozen one and not uint8.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"the {self.kind} vector has shape ({self.size},), not {tuple(vector.shape)}")
        raw = self.kind is Kind.FROZEN
        if raw and vector.dtype != torch.uint8:
            raise ValueError(f"the {self.kind} vector is raw bytes (torch.uint8), not {vector.dtype}")
        views = []
        for entry, offset in zip(self.entries, self.offsets, strict=True):
            length = entry.numel * (entry.torch_dtype.itemsize if raw else 1)
            piece = vector[offset : offset + length]
            views.append((piece.view(entry.torch_dtype) if raw else piece).as_strided(entry.shape, entry.strides))
        return views


class Schema(Model):
    """All parameters and persistent buffers of a model, in the order of its state_dict.

    It travels as JSON: `model_dump(mode="json")` and `model_validate()`.
    """

    entries: tuple[Entry, ...]

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [name for entry in self.entries for name in (entry.name, *entry.aliases)]
        if len(set(names)) < len(names):
            raise ValueError("two tensors of the model have the same name")
        return self

    @cached_property
    def layouts(self) -> dict[Kind, Layout]:
        """The flat vector of each kind; `layouts[Kind.WEIGHT].size` is D."""
        return {kind: Layout.of(kind, (e for e in self.entries if e.kind is kind)) for kind in Kind}

    @cached_property
    def hash(self) -> str:
        """SHA-256 in hex of names, kinds, shapes, strides, dtypes and ties; the same in every process."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def mismatch(self, other: "Schema") -> str:
        """What the first difference of another model is, as the end of a sentence; "" if there is none."""
        for mine, theirs in itertools.zip_longest(self.entries, other.entries):
            if mine is None:
                return f"it has {theirs.name!r}, which should not be there"
            if theirs is None:
                return f"it has no {mine.name!r}"
            if mine.name != theirs.name:
                return f"it has {theirs.name!r} instead of {mine.name!r}"
            for field in ("kind", "dtype", "shape", "strides", "aliases"):
                here, there = getattr(mine, field), getattr(theirs, field)
                if here != there:
                    return f"its {mine.name!r} has {field} {there} instead of {here}"
        return ""

    def state_dict(
        self, x: torch.Tensor, buffers: torch.Tensor, integers: torch.Tensor, frozen: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """A snapshot under the model's own names, fit for `load_state_dict` and for safetensors.

        Every tensor is contiguous and owns its memory: the vectors may change while it is being written, and tied
        tensors are there once per name, since safetensors stores no shared memory.

        Args:
            x: Shape (D,) = (layouts[Kind.WEIGHT].size,). As of the others but `frozen`, its dtype is free: values
                are converted to the model's dtypes.
            buffers: Shape (layouts[Kind.BUFFER].size,).
            integers: Shape (layouts[Kind.INTEGER].size,).
            frozen: Shape (layouts[Kind.FROZEN].size,), uint8.

        Raises:
            ValueError: A vector has another shape.
        """
        vectors = {Kind.WEIGHT: x, Kind.BUFFER: buffers, Kind.INTEGER: integers, Kind.FROZEN: frozen}
        pieces: dict[str, torch.Tensor] = {}
        for kind, layout in self.layouts.items():
            pieces |= zip((entry.name for entry in layout.entries), layout.views(vectors[kind].detach()), strict=True)
        return {
            name: pieces[entry.name].to(entry.torch_dtype, copy=True, memory_format=torch.contiguous_format)
            for entry in self.entries
            for name in (entry.name, *entry.aliases)
        }


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether a tensor fills a block of memory without gaps or overlaps, in any order of its dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != expected:
            return 0 in shape
        expected *= size
    return True


def _dtype(kind: Kind, entries: tuple[Entry, ...]) -> torch.dtype:
    if kind is Kind.FROZEN:
        return torch.uint8
    if kind is Kind.INTEGER:
        return torch.int64
    # 8-bit floats have no arithmetic and no type promotion; bfloat16 holds all values of them.
    dtypes = [torch.bfloat16 if e.torch_dtype.itemsize == 1 else e.torch_dtype for e in entries]
    return reduce(torch.promote_types, dtypes) if dtypes else torch.float32
