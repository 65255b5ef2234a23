"""The description of a model's weights, and the state_dict rebuilt from it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from swarm_trainer.weights import Entry, FlatWeights, Kind, Schema
from unit.weights.models import MODELS, build, train

TESTS = Path(__file__).parents[2]


def entry(name: str = "w", kind: Kind = Kind.WEIGHT, shape=(2, 3), strides=(3, 1), dtype="float32", **more) -> Entry:
    return Entry(name=name, kind=kind, shape=shape, strides=strides, dtype=dtype, **more)


def vectors(weights: FlatWeights) -> list[torch.Tensor]:
    return [weights.read(kind).cpu() for kind in (Kind.WEIGHT, Kind.BUFFER, Kind.INTEGER, Kind.FROZEN)]


@pytest.mark.parametrize("name", MODELS)
def test_the_state_dict_is_rebuilt_without_the_model(name, tmp_path):
    model = build(name)
    weights = FlatWeights(model)
    if weights.parameters:
        train(model, torch.optim.SGD(weights.parameters, lr=0.1), steps=2)
    travelled = Schema.model_validate_json(weights.schema.model_dump_json())
    rebuilt = travelled.state_dict(*vectors(weights))
    expected = model.state_dict()
    assert set(rebuilt) == set(expected)
    for key, value in expected.items():
        assert rebuilt[key].dtype == value.dtype, key
        assert torch.equal(rebuilt[key], value), key
    save_file(rebuilt, tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    other = build(name, seed=5)
    other.load_state_dict(loaded)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), expected.values(), strict=True))


def test_the_rebuilt_state_dict_is_a_snapshot():
    weights = FlatWeights(build("convolutional"))
    given = vectors(weights)
    rebuilt = weights.schema.state_dict(*given)
    before = {key: value.clone() for key, value in rebuilt.items()}
    for vector in given:
        vector.zero_()
    assert all(torch.equal(rebuilt[key], before[key]) for key in before)


def test_weights_start_at_256_bytes_and_padding_is_zero():
    for name in ("mlp", "half", "mixed"):
        weights = FlatWeights(build(name))
        layout = weights.schema.layouts[Kind.WEIGHT]
        x = weights.gather()
        assert x.data_ptr() % 64 == 0
        assert all(offset * x.itemsize % 256 == 0 for offset in layout.offsets)
        x = x.clone()
        for view in layout.views(x):
            view.zero_()
        assert not x.any()


@pytest.mark.parametrize("name", MODELS)
def test_json_and_hash_survive_travelling(name):
    schema = FlatWeights(build(name)).schema
    for copy in (
        Schema.model_validate_json(schema.model_dump_json()),
        Schema.model_validate(schema.model_dump(mode="json")),
    ):
        assert copy == schema
        assert copy.hash == schema.hash
        assert schema.mismatch(copy) == ""
        assert copy.layouts == schema.layouts


def test_the_hash_is_the_same_in_another_process():
    here = [FlatWeights(build(name)).schema.hash for name in MODELS]
    script = """
from unit.weights.models import MODELS, build
from swarm_trainer.weights import FlatWeights
print(*(FlatWeights(build(name, seed=3)).schema.hash for name in MODELS))
"""
    there = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert there == here
    assert len(set(here)) == len(MODELS)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ([entry("v")], "'v' instead of 'w'"),
        ([entry(shape=(3, 2), strides=(2, 1))], "shape (3, 2) instead of (2, 3)"),
        ([entry(strides=(1, 2))], "strides (1, 2) instead of (3, 1)"),
        ([entry(dtype="bfloat16")], "dtype bfloat16 instead of float32"),
        ([entry(kind=Kind.FROZEN)], "kind frozen instead of weight"),
        ([entry(aliases=("v",))], "aliases ('v',) instead of ()"),
        ([entry(), entry("extra")], "'extra', which should not be there"),
        ([], "has no 'w'"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_every_difference_changes_the_hash_and_is_named(other, says):
    schema, changed = Schema(entries=(entry(),)), Schema(entries=tuple(other))
    assert schema.hash != changed.hash
    assert says in schema.mismatch(changed)


@pytest.mark.parametrize(
    "broken",
    [
        {"shape": [2, 3], "strides": [4, 1]},
        {"shape": [2, 3], "strides": [0, 1]},
        {"shape": [2, 3], "strides": [1]},
        {"shape": [-2, 3]},
        {"dtype": "float33"},
        {"dtype": "Tensor"},
        {"dtype": "int64"},
        {"kind": "integer"},
        {"kind": "other"},
        {"aliases": ["w"]},
        {"extra": 1},
    ],
    ids=str,
)
def test_nonsense_from_the_wire_is_refused(broken):
    good = entry().model_dump(mode="json")
    Schema.model_validate({"entries": [good]})
    with pytest.raises(ValidationError):
        Schema.model_validate({"entries": [good | broken]})


def test_vectors_of_the_wrong_size_are_refused():
    weights = FlatWeights(build("frozen"))
    given = vectors(weights)
    for i in range(len(given)):
        wrong = [torch.cat([v, v[:1]]) if i == j else v for j, v in enumerate(given)]
        with pytest.raises(ValueError, match="shape"):
            weights.schema.state_dict(*wrong)
    with pytest.raises(ValueError, match="uint8"):
        weights.schema.state_dict(*given[:3], given[3].to(torch.int16))


def test_a_center_in_another_dtype_is_rounded_to_the_models():
    weights = FlatWeights(build("half"))
    x, *others = vectors(weights)
    rebuilt = weights.schema.state_dict(x.double(), *others)
    assert {tensor.dtype for tensor in rebuilt.values()} == {torch.bfloat16}


def test_the_device_or_a_wrapper_does_not_change_the_schema():
    plain = FlatWeights(build("mlp")).schema
    assert FlatWeights(nn.DataParallel(build("mlp"))).schema == plain
    assert FlatWeights(torch.compile(build("mlp"), backend="eager")).schema == plain
