"""Flat vectors over a live model."""

import copy
import io
import pickle
import timeit
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from swarm_trainer.errors import UnsupportedModelError
from swarm_trainer.weights import FlatWeights, Kind
from unit.weights.models import MODELS, build, train

ALIASED = {"mlp", "tied", "recurrent", "bag", "convolutional", "half", "normalised", "frozen"}
"""Models that live in x as a whole."""

EXCHANGED = (Kind.WEIGHT, Kind.BUFFER, Kind.INTEGER)


def bits(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone().contiguous().reshape(-1).view(torch.uint8) for value in model.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def saved_bytes(thing: object) -> int:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.tell()


@pytest.mark.parametrize("name", MODELS)
def test_nothing_about_the_model_changes(name):
    plain, flat = build(name), build(name)
    objects = list(flat.parameters())
    FlatWeights(flat)
    assert same(bits(plain), bits(flat))
    for before, after, parameter in zip(objects, flat.parameters(), plain.parameters(), strict=True):
        assert after is before
        assert after.stride() == parameter.stride()
        assert after.requires_grad == parameter.requires_grad
        assert after.is_leaf


@pytest.mark.parametrize(
    ("name", "optimizer", "settings"),
    [(name, torch.optim.SGD, {"momentum": 0.9}) for name in MODELS if name != "identity"]
    + [(name, torch.optim.Adam, {}) for name in ("mlp", "tied", "mixed", "convolutional")],
)
def test_training_on_views_is_the_same_bit_for_bit(name, optimizer, settings):
    results = []
    for attached in (False, True):
        model = build(name)
        inner = optimizer(trainable(model), lr=0.05, **settings)
        train(model, inner, steps=2, seed=3)
        if attached:
            weights = FlatWeights(model)
        train(model, inner, steps=5)
        results.append(bits(model))
    assert same(*results)
    if name in ALIASED:
        x = weights.gather()
        for view, parameter in zip(weights.schema.layouts[Kind.WEIGHT].views(x), weights.parameters, strict=True):
            assert view.data_ptr() == parameter.data_ptr()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_to_x_reaches_every_weight(name):
    model = build(name)
    weights = FlatWeights(model)
    x = weights.gather()
    assert x is weights.gather()
    before = [parameter.detach().clone() for parameter in weights.parameters]
    x.mul_(2)
    weights.scatter()
    for old, parameter in zip(before, weights.parameters, strict=True):
        assert torch.equal(old * 2, parameter.detach())
    again = x.clone()
    assert torch.equal(weights.gather(), again)


@pytest.mark.parametrize("name", MODELS)
def test_every_vector_read_from_one_model_makes_another_the_same(name):
    source, target = build(name, seed=1), build(name, seed=2)
    weights = FlatWeights(source)
    if weights.parameters:
        train(source, torch.optim.SGD(weights.parameters, lr=0.1))
    other = FlatWeights(target)
    for kind in Kind:
        other.write(kind, weights.read(kind))
    assert same(bits(source), bits(target))
    assert all(other.read(kind).shape == (other.schema.layouts[kind].size,) for kind in Kind)


def test_kinds_and_dtypes_of_the_vectors():
    schema = FlatWeights(build("frozen")).schema
    assert {e.name: e.kind.value for e in schema.entries} == {
        "codes": "frozen", "short": "frozen", "empty": "weight", "angles": "frozen", "mask": "integer",
        "steps": "integer", "mean": "buffer", "base.weight": "frozen", "base.bias": "frozen", "head.weight": "weight",
        "head.bias": "weight",
    }  # fmt: skip
    dtypes = [schema.layouts[kind].dtype for kind in Kind]
    assert dtypes == [torch.float32, torch.float64, torch.int64, torch.uint8]
    assert FlatWeights(build("mixed")).gather().dtype == torch.float32
    assert FlatWeights(build("half")).gather().dtype == torch.bfloat16
    halves = nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2).bfloat16())
    assert FlatWeights(halves).gather().dtype == torch.float32
    tied = FlatWeights(build("tied")).schema
    assert {e.name: e.aliases for e in tied.entries if e.aliases} == {
        "embed.weight": ("out.weight",), "hidden.weight": ("again.weight",), "hidden.bias": ("again.bias",),
    }  # fmt: skip


def test_eight_bit_floats_travel_exactly_in_bfloat16():
    model = nn.Module()
    model.w = nn.Parameter(torch.randn(9).to(torch.float8_e4m3fn))
    weights = FlatWeights(model)
    assert weights.gather().dtype == torch.bfloat16
    before = model.w.detach().clone()
    weights.write(Kind.WEIGHT, weights.read(Kind.WEIGHT))
    assert torch.equal(model.w.detach().view(torch.uint8), before.view(torch.uint8))


def test_weights_tied_only_by_their_memory_stay_tied():
    model = build("shared")
    weights = FlatWeights(model)
    x = weights.gather()
    x.add_(1)
    weights.scatter()
    assert model.one.weight.data_ptr() == model.two.weight.data_ptr()
    assert torch.equal(model.two.weight.detach(), weights.schema.layouts[Kind.WEIGHT].views(x)[2])


def test_the_memory_outlives_the_flat_weights():
    model = build("mlp")
    weights = FlatWeights(model)
    expected = bits(model)
    x = weakref.ref(weights.gather())
    del weights
    assert x() is None
    torch.zeros(10_000).add_(1)
    assert same(bits(model), expected)


class TestMovedParameters:
    """Somebody gave parameters other memory behind our back."""

    @pytest.mark.parametrize(
        "move",
        [
            lambda model: model.double().float(),
            lambda model: model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True),
            lambda model: model.share_memory(),
            lambda model: [setattr(p, "data", p.data.clone()) for p in model.parameters()],
            lambda model: model.to(memory_format=torch.contiguous_format),
            lambda model: setattr(model[-1], "weight", nn.Parameter(model[-1].weight.detach().clone())),
        ],
        ids=["to and back", "assign", "share_memory", "data", "memory format", "new Parameter"],
    )
    @pytest.mark.parametrize("name", ["mlp", "convolutional"])
    def test_those_that_fit_are_taken_back_with_their_present_values(self, name, move):
        model = build(name)
        weights = FlatWeights(model)
        strides = [parameter.stride() for parameter in model.parameters()]
        move(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        expected = bits(model)
        x = weights.gather()
        assert same(bits(model), expected)
        for view, parameter in zip(weights.schema.layouts[Kind.WEIGHT].views(x), model.parameters(), strict=True):
            assert parameter.data_ptr() == view.data_ptr()
        assert [parameter.stride() for parameter in model.parameters()] == strides
        assert all(a is b for a, b in zip(weights.parameters, model.parameters(), strict=True))

    @pytest.mark.parametrize("name", ["tied", "recurrent", "mixed"])
    def test_what_the_optimizer_steps_is_put_back_with_the_new_values(self, name):
        model, loaded = build(name), build(name, seed=5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        weights = FlatWeights(model, [optimizer])
        held = list(model.parameters())
        for module, other in zip(model.modules(), loaded.modules(), strict=True):
            for key, parameter in other.named_parameters(recurse=False):
                setattr(module, key, parameter)  # As load_state_dict(assign=True) does, but for ties.
        expected = bits(loaded)
        weights.check()
        assert all(a is b for a, b in zip(model.parameters(), held, strict=True))
        assert same(bits(model), expected)
        train(model, optimizer, 1)
        train(loaded, torch.optim.SGD(loaded.parameters(), lr=0.1), 1)
        assert same(bits(model), bits(loaded))
        weights.gather().add_(1)
        assert name == "mixed" or not same(bits(model), bits(loaded))

    def test_a_new_parameter_that_the_optimizer_has_stays(self):
        model = build("mlp")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        weights = FlatWeights(model, [optimizer])
        new = nn.Parameter(torch.ones(7, 6))
        model[0].weight = new
        optimizer.add_param_group({"params": [new]})
        weights.check()
        assert model[0].weight is new
        assert weights.parameters[0] is new

    def test_the_optimizer_goes_on_with_parameters_that_came_back(self):
        results = []
        for moved in (False, True):
            model = build("mlp")
            optimizer = torch.optim.Adam(model.parameters())
            weights = FlatWeights(model)
            train(model, optimizer, 2)
            if moved:
                model.double().float()
            weights.check()
            train(model, optimizer, 2)
            results.append(weights.gather().clone())
        assert torch.equal(*results)

    def test_a_replaced_parameter_object_cannot_move_x_any_more(self):
        model = build("mlp")
        weights = FlatWeights(model)
        old = model[0].weight
        old_values = old.detach().clone()
        model[0].weight = nn.Parameter(torch.ones(7, 6))
        weights.check()
        assert torch.equal(old, old_values)
        with torch.no_grad():
            old.fill_(9)
        assert torch.equal(model[0].weight, torch.ones(7, 6))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda m: m.double(), "'0.weight' is torch.float64"),
            (lambda m: m.to("meta"), "'0.weight' is on meta"),
            (lambda m: setattr(m[2], "weight", nn.Parameter(torch.ones(1, 7))), r"'2.weight' is .* of shape \(1, 7\)"),
            (lambda m: setattr(m[2], "bias", None), "'2.bias' is no longer in the model"),
            (lambda m: nn.utils.parametrizations.weight_norm(m[2]), "layer '2'|'2.weight'|parametrizations"),
            (lambda m: m.__setitem__(1, nn.ReLU()), "layer '1' was replaced"),
            (lambda m: m.append(nn.Linear(3, 3)), "'3.weight' was added"),
            (lambda m: m[0].register_parameter("gain", nn.Parameter(torch.ones(1))), "'0.gain' was added"),
        ],
        ids=["dtype", "device", "shape", "removed", "parametrized", "layer replaced", "layer added", "weight added"],
    )
    def test_those_that_do_not_fit_are_named(self, change, says):
        model = build("mlp")
        weights = FlatWeights(model)
        change(model)
        for use in (weights.check, weights.gather, lambda: weights.read(Kind.WEIGHT)):
            with pytest.raises(UnsupportedModelError, match=says):
                use()

    def test_weights_that_are_copied_are_watched_too(self):
        model = build("mixed")
        weights = FlatWeights(model)
        model.low.float()
        with pytest.raises(UnsupportedModelError, match=r"'low\.weight' is torch\.float32"):
            weights.gather()

    def test_untying_is_named(self):
        model = build("tied")
        weights = FlatWeights(model)
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
        with pytest.raises(UnsupportedModelError, match=r"'embed\.weight' and 'out\.weight' were tied"):
            weights.gather()

    def test_freezing_is_allowed_and_unfreezing_is_not(self):
        model = build("mlp")
        model[0].requires_grad_(False)
        weights = FlatWeights(model)
        model[2].requires_grad_(False)
        size = weights.gather().numel()
        assert size == weights.schema.layouts[Kind.WEIGHT].size > 0
        model[0].requires_grad_(True)
        with pytest.raises(UnsupportedModelError, match=r"'0\.weight' was frozen"):
            weights.gather()

    def test_buffers_may_be_new_tensors_but_not_of_another_shape(self):
        model = build("convolutional")
        weights = FlatWeights(model)
        model[2].running_mean = torch.full((4,), 5.0)
        assert weights.read(Kind.BUFFER)[:4].tolist() == [5.0] * 4
        model[2].running_mean = torch.zeros(1)
        with pytest.raises(UnsupportedModelError, match=r"2\.running_mean"):
            weights.read(Kind.BUFFER)

    def test_looking_is_cheap(self):
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))
        weights = FlatWeights(model)
        best = min(timeit.repeat(weights.check, number=20, repeat=20)) / 20
        assert best < 200e-6  # about 10 on an idle core: only a blunder is as slow as this


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.LazyLinear(3), "run one batch"),
        (lambda: nn.Linear(2, 2, device="meta"), "meta"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "view_as_complex"),
    ],
    ids=["lazy", "meta", "complex"],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_models_that_cannot_be_exchanged_are_refused_by_name(make, says):
    with pytest.raises(UnsupportedModelError, match=f"'weight' .*{says}"):
        FlatWeights(make())


class TestSaving:
    """What a user writes is the size it always was."""

    @pytest.mark.parametrize("name", sorted(ALIASED))
    def test_nothing_grows(self, name):
        plain, flat = build(name), build(name)
        FlatWeights(flat)
        assert saved_bytes(flat.state_dict()) == saved_bytes(plain.state_dict())

    def test_one_layers_state_is_one_layers_bytes(self):
        model = nn.Sequential(nn.Linear(300, 300), nn.Linear(3, 3))
        FlatWeights(model)
        assert saved_bytes(model[1].state_dict()) < 4_000
        assert saved_bytes(model[1].weight) < 4_000
        assert len(pickle.dumps(model[1])) < 4_000

    def test_safetensors_and_load_work(self, tmp_path):
        model = build("mlp")
        weights = FlatWeights(model)
        save_file(model.state_dict(), tmp_path / "m.safetensors")
        torch.save(model.state_dict(), tmp_path / "m.pt")
        expected = bits(model)
        weights.gather().zero_()
        model.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
        assert same(bits(model), expected)
        pointers = [p.data_ptr() for p in model.parameters()]
        weights.check()
        assert [p.data_ptr() for p in model.parameters()] == pointers

    def test_state_dict_still_reaches_the_model(self):
        model = build("mlp")
        weights = FlatWeights(model)
        for value in model.state_dict().values():
            value.fill_(0.25)
        x = weights.gather()
        assert all((view == 0.25).all() for view in weights.schema.layouts[Kind.WEIGHT].views(x))


class TestCopies:
    """Copies of the model share nothing with it."""

    @pytest.mark.parametrize(
        ("name", "duplicate"),
        [(name, copy.deepcopy) for name in MODELS]
        + [(name, lambda model: pickle.loads(pickle.dumps(model))) for name in ("tied", "mixed", "shared")],
    )
    def test_a_copy_is_equal_and_independent(self, name, duplicate):
        model = build(name)
        weights = FlatWeights(model)
        twin = duplicate(model)
        expected = bits(twin)
        assert same(bits(model), expected)
        weights.gather().zero_()
        weights.scatter()
        assert same(bits(twin), expected)

    def test_a_model_sent_to_a_worker_process_arrives_and_comes_back(self):
        model = build("mlp")
        weights = FlatWeights(model)
        expected = bits(model)
        twin = ForkingPickler.loads(bytes(ForkingPickler.dumps(model)))
        assert same(bits(twin), expected)
        x = weights.gather()
        assert same(bits(model), expected)
        assert model[0].weight.data_ptr() == x.data_ptr()


class TestSwapped:
    """Another vector's values for a while."""

    @pytest.mark.parametrize("name", MODELS)
    def test_the_models_own_values_come_back_bit_for_bit(self, name):
        model, center = build(name, seed=1), build(name, seed=2)
        weights, other = FlatWeights(model), FlatWeights(center)
        with torch.no_grad():
            for parameter in weights.parameters[:1]:
                parameter.fill_(float("nan"))
        before = bits(model)
        other.write(Kind.FROZEN, weights.read(Kind.FROZEN))

        def evaluate() -> None:
            with weights.swapped(*(other.read(kind) for kind in EXCHANGED)):
                assert same(bits(model), bits(center))
                if weights.parameters:
                    train(model, torch.optim.SGD(trainable(model), lr=0.1), 1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            evaluate()
        assert same(bits(model), before)

    def test_buffers_the_block_moves_come_back_even_if_none_are_given(self):
        model = build("convolutional")
        weights = FlatWeights(model)
        before = bits(model)
        with weights.swapped(torch.zeros_like(weights.gather())):
            model(torch.randn(4, 6))
            assert not same(bits(model), before)
        assert same(bits(model), before)

    def test_parameters_that_move_inside_the_block_come_back(self):
        model = build("mlp")
        weights = FlatWeights(model)
        before = bits(model)
        with weights.swapped(torch.zeros_like(weights.gather())):
            model.double().float()
        x = weights.gather()
        assert same(bits(model), before)
        assert model[0].weight.data_ptr() == x.data_ptr()

    def test_a_vector_of_the_wrong_size_changes_nothing(self):
        model = build("convolutional")
        weights = FlatWeights(model)
        before = bits(model)
        x = torch.zeros_like(weights.gather())
        with pytest.raises(ValueError, match="shape"), weights.swapped(x, torch.zeros(3)):
            pass
        assert same(bits(model), before)

    def test_a_pending_backward_pass_is_not_disturbed(self):
        model = build("mlp")
        weights = FlatWeights(model)
        inputs = torch.randn(4, 6)
        model(inputs).sum().backward()
        expected = weights.gather_gradient()
        model.zero_grad()
        loss = model(inputs).sum()
        with weights.swapped(torch.zeros_like(weights.gather())), torch.no_grad():
            model(inputs)
        loss.backward()
        assert torch.equal(weights.gather_gradient(), expected)


def test_gradients_travel_in_the_same_places():
    model = nn.Sequential(nn.EmbeddingBag(5, 4, sparse=True), nn.Linear(4, 3), nn.Linear(3, 3).requires_grad_(False))
    unused = nn.Parameter(torch.ones(3))
    model.register_parameter("unused", unused)
    weights = FlatWeights(model)
    model(torch.tensor([[1, 2], [4, 4]])).sum().backward()
    expected = [torch.zeros(3) if p.grad is None else p.grad.to_dense().clone() for p in weights.parameters]
    gradient = weights.gather_gradient()
    views = weights.schema.layouts[Kind.WEIGHT].views(gradient)
    assert all(torch.equal(a, b) for a, b in zip(views, expected, strict=True))
    weights.scatter_gradient(gradient.mul_(2))
    for parameter, value in zip(weights.parameters, expected, strict=True):
        assert torch.equal(parameter.grad, 2 * value)
    model.zero_grad()
    assert not weights.gather_gradient(out=gradient).any()
