"""What is in a model."""

import torch
from torch import nn
from torch.optim import SGD

from unit.attach.case import Section, batches, gradients, plain
from unit.attach.twice import Swarm, Tensors
from unit.weights.models import build, mlp

models = Section("Models")


@models("tied weights, layers used twice", "they travel once, and stay tied")
def tied(swarm: Swarm) -> Tensors:
    return plain(build("tied"), swarm)


@models("two parameters over one memory", "they stay one memory")
def shared(swarm: Swarm) -> Tensors:
    return plain(build("shared"), swarm)


@models(
    "frozen parameters",
    "they stay as they are; a particle that attaches takes those that the swarm began with",
)
def frozen(swarm: Swarm) -> Tensors:
    return plain(build("frozen"), swarm)


@models(
    "BatchNorm and other buffers",
    "running statistics are averaged with the weights; of integer and boolean buffers the maximum is taken; buffers "
    "that are not saved are left alone",
)
def buffers(swarm: Swarm) -> Tensors:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    model.register_buffer("flag", torch.tensor(False))
    model.register_buffer("cache", torch.zeros(3), persistent=False)
    result = plain(model, swarm)
    assert not model.cache.any()
    return result


@models("buffers with -inf, such as masks of attention", "they stay as they are")
def masked(swarm: Swarm) -> Tensors:
    model = mlp()
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    return plain(model, swarm)


@models("several dtypes in one model", "weights travel in the narrowest dtype that holds them all")
def mixed(swarm: Swarm) -> Tensors:
    return plain(build("mixed"), swarm)


@models("whole models in bfloat16", "they travel as they are: half the bytes")
def half(swarm: Swarm) -> Tensors:
    return plain(build("half"), swarm)


@models("channels_last", "it stays so")
def channels_last(swarm: Swarm) -> Tensors:
    model = build("convolutional")
    result = plain(model, swarm)
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[1].weight.is_contiguous()
    return result


@models(
    "recurrent layers, parametrizations such as weight_norm",
    "what is exchanged are the parameters underneath",
)
def recurrent(swarm: Swarm) -> Tensors:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), build("recurrent"))
    return plain(model, swarm)


@models("sparse gradients", "weights are exchanged, and those are dense")
def sparse_gradients(swarm: Swarm) -> Tensors:
    model = nn.Sequential(nn.EmbeddingBag(13, 4, sparse=True), nn.Linear(4, 2))
    sparse, dense = torch.optim.SparseAdam(model[0].parameters()), SGD(model[1].parameters(), lr=0.1)
    swarm.attach(model, [sparse, dense])
    for x in batches():
        gradients(model, x.long().abs())
        sparse.step()
        dense.step()
        swarm.counts()
    return dict(model.state_dict())


@models(
    "lazy layers",
    "run one batch through the model first, which gives them a shape",
    refused="'weight' has no shape",
)
def lazy(swarm: Swarm) -> None:
    plain(nn.LazyLinear(3), swarm)


@models(
    "the meta device",
    "give the model memory first: `model.to_empty(device=...)`",
    refused="'weight' is on the meta",
)
def meta(swarm: Swarm) -> None:
    plain(nn.Linear(6, 2, device="meta"), swarm)


@models(
    "complex weights",
    "keep them real, with `torch.view_as_complex` in `forward()`",
    refused="'weight' is complex",
)
def complex_weights(swarm: Swarm) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    plain(model, swarm)


@models(
    "models without a trainable weight",
    "there is nothing to exchange",
    refused="no weight of the model requires a gradient",
)
def nothing_to_train(swarm: Swarm) -> None:
    model = mlp().requires_grad_(False)
    swarm.attach(model, SGD(model.parameters(), lr=0.1))
