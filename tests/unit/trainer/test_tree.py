"""Plain data and tensors, packed without pickle."""

import json
import math
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm_trainer.wire.tree import Packed, unpack

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Of any dtype, shape and order of dimensions, also expanded and sliced."""
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    if shape and draw(st.booleans()):
        tensor = tensor[::2]
    return tensor.expand(2, *tensor.shape) if draw(st.booleans()) else tensor


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(st.integers(), st.integers(0, 9), max_size=3).map(Counter)
    )


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes."""
    return torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1)).view(torch.uint8)


def same(one: Any, other: Any) -> bool:
    """Equal in type, order, and to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(raw(one), raw(other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return repr(one) == repr(other)


@given(st.recursive(SCALARS | tensors(), containers, max_leaves=12))
def test_whatever_is_packed_comes_out_as_it_was(tree: Any) -> None:
    packed = Packed(tree)
    data = packed.data()
    assert data.dtype == torch.uint8
    assert data.numel() == packed.nbytes
    assert same(unpack(packed.json, data), tree)


def test_a_copy_is_its_own_and_keeps_the_order_of_dimensions() -> None:
    image = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    packed = Packed({"image": image, "count": np.int64(3), "ratio": np.float32(0.5), "more": defaultdict(list, a=[1])})
    data = packed.data()
    image.zero_()
    tree = unpack(packed.json, data)
    data.zero_()
    assert tree["image"].min() == 1
    assert tree["image"].stride() == image.stride()
    assert tree["image"].untyped_storage().nbytes() == image.nbytes
    assert (tree["count"], tree["ratio"], tree["more"]) == (3, 0.5, {"a": [1]})


def in_itself() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"a": [0, {"b": {1}}]}, r"\['a'\]\[1\]\['b'\] is a set"),
        ((None, lambda: 0), r"\[1\] is a function"),
        ({"a": b"bytes"}, r"\['a'\] is a bytes"),
        ({frozenset(): 1}, "it has a frozenset as a key"),
        (torch.eye(2).to_sparse(), "sparse, nested, quantized or meta tensor"),
        ([torch.empty(2, device="meta")], r"\[0\] is a sparse, nested, quantized or meta tensor"),
        (in_itself(), "in itself"),
    ],
)
def test_what_is_not_plain_is_refused_saying_where(tree: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Packed(tree)


@pytest.mark.parametrize(
    "node",
    [
        {"tensor": ["float32", [3], [1]]},
        {"tensor": ["float32", [1], [1]], "tuple": []},
        {"tensor": ["float32", [2], [2]]},
        {"tensor": ["float32", [-1], [1]]},
        {"tensor": ["float32", [2], []]},
        {"tensor": ["Tensor", [2], [1]]},
        {"tensor": [2, [2], [1]]},
        {"tensor": "float32"},
        {"tensor": ["float32", [2**62, 4], [4, 1]]},
        {"dict": [[["a list"], 1]]},
        {"dict": [1]},
        {"Counter": [["a", 1, 2]]},
        {"set": []},
        {},
        [],
    ],
)
def test_what_is_no_packed_tree_is_refused(node: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(json.dumps(node), torch.zeros(8, dtype=torch.uint8))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(text, torch.zeros(0, dtype=torch.uint8))
