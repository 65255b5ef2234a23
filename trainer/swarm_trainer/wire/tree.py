"""Plain data as JSON and bytes, without pickle: whoever reads it can get nothing but plain data out of it.

Plain is what state dicts are made of: dict, OrderedDict, Counter, list, tuple, str, int, float, bool, None and dense
tensors, nested. In the JSON scalars and lists stand for themselves; anything else is an object with one key:

    {"tuple": [...]}    {"dict": [[key, value], ...]}    {"tensor": [dtype, shape, strides]}

The tensors' values lie one after the other in one vector of bytes, in the order in which the JSON names them, each at
a multiple of 16.
"""

import itertools
import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import torch

from swarm_trainer.weights.schema import is_dense

_ALIGNMENT: Final = 16
_SCALARS: Final = (str, int, float, bool, type(None))
_MAPPINGS: Final[dict[str, Callable[[Iterable[Any]], Any]]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "Counter": lambda pairs: Counter(dict(pairs)),
}
_NAMES: Final[dict[type, str]] = {dict: "dict", defaultdict: "dict", OrderedDict: "OrderedDict", Counter: "Counter"}


class Packed:
    """A tree whose JSON is made and whose tensors are not copied yet."""

    def __init__(self, tree: Any) -> None:
        """Look through the whole tree.

        Raises:
            ValueError: Something in it is not plain; the message says what and where.
        """
        self._tensors: list[torch.Tensor] = []
        try:
            self.json = json.dumps(self._encode(tree, ""), separators=(",", ":"))
        except RecursionError:
            raise ValueError("it is nested too deeply, or in itself") from None
        sizes = (_padded(tensor.numel() * tensor.itemsize) for tensor in self._tensors)
        *self._offsets, self.nbytes = itertools.accumulate(sizes, initial=0)

    def data(self) -> torch.Tensor:
        """A copy of all tensors' values; shape (nbytes,), uint8, on the CPU."""
        data = torch.empty(self.nbytes, dtype=torch.uint8)
        for tensor, offset in zip(self._tensors, self._offsets, strict=True):
            _view(data, offset, tensor.dtype, tuple(tensor.shape), _strides(tensor)).copy_(tensor.detach())
        return data

    def _encode(self, value: Any, where: str) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is list:
            return [self._encode(item, f"{where}[{number}]") for number, item in enumerate(value)]
        if kind is tuple:
            return {"tuple": [self._encode(item, f"{where}[{number}]") for number, item in enumerate(value)]}
        if kind in _NAMES:
            pairs = [[_key(key, where), self._encode(item, f"{where}[{key!r}]")] for key, item in value.items()]
            return {_NAMES[kind]: pairs}
        if isinstance(value, torch.Tensor):
            return {"tensor": self._take(value, where)}
        raise ValueError(f"{where or 'it'} is a {kind.__qualname__}, and only plain data and tensors can travel")

    def _take(self, tensor: torch.Tensor, where: str) -> list[Any]:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
            raise ValueError(f"{where or 'it'} is a sparse, nested, quantized or meta tensor, which cannot travel")
        self._tensors.append(tensor)
        return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), list(_strides(tensor))]


def unpack(text: str, data: torch.Tensor) -> Any:
    """The tree; its tensors own their memory.

    Args:
        text: `Packed.json`.
        data: `Packed.data()`.

    Raises:
        ValueError: They are not what `Packed` makes, or do not belong together.
    """
    unpacking = _Unpacking(data)
    try:
        tree = unpacking.decode(json.loads(text))
    except (TypeError, KeyError, RecursionError, RuntimeError) as error:
        msg = f"this is no packed tree: {error}"
        raise ValueError(msg) from error
    if unpacking.end != data.numel():
        raise ValueError(f"{data.numel()} bytes came with tensors of {unpacking.end}")
    return tree


class _Unpacking:
    def __init__(self, data: torch.Tensor) -> None:
        self._data = data
        self.end = 0
        """Where the next tensor lies."""

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((kind, body),) = node.items()
        if kind == "tensor":
            return self._tensor(*body)
        if kind == "tuple":
            return tuple(self.decode(item) for item in body)
        return _MAPPINGS[kind]((self.decode(key), self.decode(value)) for key, value in body)

    def _tensor(self, name: str, shape: list[int], strides: list[int]) -> torch.Tensor:
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"this version of torch has no dtype {name!r}")
        proper = len(shape) == len(strides) and all(type(size) is int and size >= 0 for size in (*shape, *strides))
        if not proper or not is_dense(tuple(shape), tuple(strides)):
            raise ValueError(f"shape {shape} with strides {strides} is no dense tensor's")
        start = self.end
        self.end = start + _padded(math.prod(shape) * dtype.itemsize)
        if self.end > self._data.numel():
            raise ValueError(f"{self._data.numel()} bytes came, and a tensor of shape {shape} ends behind them")
        view = _view(self._data, start, dtype, tuple(shape), tuple(strides))
        return view.clone(memory_format=torch.preserve_format)


def _view(
    data: torch.Tensor, offset: int, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...]
) -> torch.Tensor:
    piece = data[offset : offset + math.prod(shape) * dtype.itemsize]
    return piece.view(dtype).as_strided(shape, strides)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The tensor's own, or contiguous ones where those leave gaps or overlap."""
    shape = tuple(tensor.shape)
    return tensor.stride() if is_dense(shape, tensor.stride()) else torch.empty(shape, device="meta").stride()


def _key(key: Any, where: str) -> Any:
    if isinstance(key, np.generic):
        key = key.item()
    if type(key) in _SCALARS:
        return key
    if type(key) is tuple:
        return {"tuple": [_key(item, where) for item in key]}
    raise ValueError(f"{where or 'it'} has a {type(key).__qualname__} as a key, and only plain keys can travel")
