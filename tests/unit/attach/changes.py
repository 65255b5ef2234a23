"""What is done to a model that is attached, or just before."""

import io

import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.optim import SGD, Adam

from unit.attach.case import Section, a_model, batches, gradients, train
from unit.attach.twice import PERIOD, Swarm, Tensors
from unit.weights.models import build, mlp

compilation = Section("torch.compile")
afterwards = Section("After `attach`")


def compiled(swarm: Swarm, *, compile_first: bool) -> Tensors:
    torch.compiler.reset()
    counters.clear()
    model, optimizer = a_model()
    if compile_first:
        model = torch.compile(model, backend="aot_eager")
        gradients(model, next(batches()))
    swarm.attach(model, optimizer)
    if not compile_first:
        model = torch.compile(model, backend="aot_eager")
    train(swarm, model, optimizer, steps=PERIOD)
    compilations = counters["stats"]["unique_graphs"]
    train(swarm, model, optimizer, steps=PERIOD)
    assert counters["stats"]["unique_graphs"] == compilations > 0
    return {name.removeprefix("_orig_mod."): value for name, value in model.state_dict().items()}


@compilation("`torch.compile(model)` before `attach`", "weights keep their plain names")
def compiled_before(swarm: Swarm) -> Tensors:
    return compiled(swarm, compile_first=True)


@compilation("`torch.compile(model)` after `attach`", "nothing is compiled again after an exchange")
def compiled_after(swarm: Swarm) -> Tensors:
    return compiled(swarm, compile_first=False)


@compilation(
    "`optimizer.step()` inside a compiled function",
    "the exchange is not traced: it breaks the graph there",
)
def compiled_step(swarm: Swarm) -> Tensors:
    torch.compiler.reset()
    model, optimizer = a_model()
    swarm.attach(model, optimizer)

    @torch.compile(backend="eager")
    def step(x: torch.Tensor) -> None:
        gradients(model, x)
        optimizer.step()

    for x in batches():
        step(x)
        swarm.counts()
    return dict(model.state_dict())


@afterwards(
    "`.to()` or `.double()`, and back",
    "weights are taken back at the next exchange, with the values they have then",
)
def to_and_back(swarm: Swarm) -> Tensors:
    model = build("convolutional")
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    swarm.attach(model, optimizer)
    train(swarm, model, optimizer, steps=PERIOD + 1)
    model.double().float().to(memory_format=torch.contiguous_format)
    train(swarm, model, optimizer, steps=PERIOD - 1)
    return dict(model.state_dict())


@afterwards(
    "another dtype or device, as by `.double()` or `.cuda()`",
    "the next exchange says so: convert the model before it is attached",
    refused=r"'0\.weight' is torch\.float64",
)
def doubled(swarm: Swarm) -> None:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    train(swarm, model.double(), optimizer)


@afterwards("`load_state_dict()`", "the loaded weights are exchanged like any others")
def loaded(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    model.load_state_dict(mlp().state_dict())
    train(swarm, model, optimizer)
    return dict(model.state_dict())


@afterwards(
    "`load_state_dict(assign=True)`",
    "at the next exchange the parameters that the optimizer steps take the loaded values; until then nothing trains, "
    "as without a swarm",
)
def assigned(swarm: Swarm) -> None:
    model, optimizer = a_model()
    held = list(model.parameters())
    swarm.attach(model, optimizer)
    new = mlp()
    model.load_state_dict(new.state_dict(), assign=True)
    train(swarm, model, optimizer, steps=PERIOD)
    assert all(a is b for a, b in zip(model.parameters(), held, strict=True))
    for parameter, value in zip(held, new.parameters(), strict=True):
        torch.testing.assert_close(parameter, (value + 1) / 2)
    before = [parameter.detach().clone() for parameter in held]
    train(swarm, model, optimizer, steps=1)
    assert not any(torch.equal(a, b) for a, b in zip(before, held, strict=True))


@afterwards("freezing weights", "they are exchanged all the same")
def frozen_later(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    model[0].requires_grad_(False)
    train(swarm, model, optimizer)
    return dict(model.state_dict())


@afterwards(
    "unfreezing weights",
    "attach them with a gradient, and freeze them then, until they are needed",
    refused=r"'0\.weight' was frozen",
)
def unfrozen_later(swarm: Swarm) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    swarm.attach(model, optimizer)
    model[0].requires_grad_(True)
    train(swarm, model, optimizer)


@afterwards(
    "new, replaced or removed layers and weights",
    "the next exchange names them: change the model before it is attached",
    refused="the layer '2' was replaced",
)
def rebuilt(swarm: Swarm) -> None:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    model[2] = nn.Linear(7, 3)
    train(swarm, model, optimizer)


@afterwards(
    "`torch.save` of the model, a layer, a state_dict, an optimizer",
    "writes what it always did, and not a byte of other layers",
)
def saved(swarm: Swarm) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 300), nn.Linear(300, 3))
    optimizer = Adam(model.parameters())

    def files() -> dict[str, bytes]:
        things = {
            "model": model, "layer": model[0], "state": model.state_dict(), "layer's": model[0].state_dict(),
            "weight": model[0].weight, "optimizer": optimizer, "optimizer's": optimizer.state_dict(),
        }  # fmt: skip
        result = {}
        for name, thing in things.items():
            torch.save(thing, file := io.BytesIO())
            result[name] = file.getvalue()
        return result

    before = files()
    swarm.attach(model, optimizer)
    assert files() == before
    train(swarm, model, optimizer)
    after = files()
    assert max(map(len, (after["layer"], after["layer's"], after["weight"]))) < 4_000
    for name, value in torch.load(io.BytesIO(after["layer's"])).items():
        assert torch.equal(value, model[0].state_dict()[name])
    torch.load(io.BytesIO(after["optimizer"]), weights_only=False).step()  # A copy: it belongs to no swarm.
