"""Models that between them have everything a state_dict may hold."""

import torch
from torch import nn


class Tied(nn.Module):
    """An embedding that is its own output layer, and a layer that is used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 8)
        self.again = self.hidden
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.again(torch.relu(self.hidden(self.embed(x.long().abs() % 11).mean(1)))))


class Mixed(nn.Module):
    """Weights in bfloat16 and float32, a scalar, and one weight whose memory has gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Linear(6, 5).bfloat16()
        self.norm = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.gaps = nn.Parameter(torch.randn(5, 8)[:, ::2])

    def forward(self, x):
        return (self.norm(self.low(x.bfloat16()).float()) * self.scale) @ self.gaps


class Shared(nn.Module):
    """Two parameters over one memory: not tied by name, tied all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.two.weight = nn.Parameter(self.one.weight.data)

    def forward(self, x):
        return self.two(self.one(x))


class Frozen(nn.Module):
    """Frozen weights of several dtypes, complex and boolean buffers, one buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5).requires_grad_(False)
        self.codes = nn.Parameter(torch.randint(-9, 9, (3, 3), dtype=torch.int8), requires_grad=False)
        self.short = nn.Parameter(torch.randn(3).half(), requires_grad=False)
        self.head = nn.Linear(5, 4)
        self.empty = nn.Parameter(torch.empty(0, 3))
        self.register_buffer("angles", torch.polar(torch.ones(4), torch.arange(4.0)))
        self.register_buffer("mask", torch.ones(2, 2).tril().bool())
        self.register_buffer("steps", torch.tensor(3, dtype=torch.int32))
        self.register_buffer("mean", torch.rand(3, dtype=torch.float64))
        self.register_buffer("cache", torch.zeros(100), persistent=False)

    def forward(self, x):
        return self.head(self.base(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 4, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x[:, None, :].expand(-1, 3, -1))[0][:, -1])


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(13, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.bag(x.long().abs() % 13))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def convolutional() -> nn.Module:
    model = nn.Sequential(
        nn.Unflatten(1, (3, 2, 1)), nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    return model.to(memory_format=torch.channels_last)


def half() -> nn.Module:
    return mlp().bfloat16()


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.BatchNorm1d(4))


MODELS = {
    build.__name__.lower(): build
    for build in (mlp, Tied, Mixed, Shared, Frozen, Recurrent, Bag, convolutional, half, normalised, nn.Identity)
}


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.bfloat16 if {p.dtype for p in model.parameters()} == {torch.bfloat16} else torch.float32
    for _ in range(steps):
        x = torch.randn(9, 6, generator=generator).to(dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
