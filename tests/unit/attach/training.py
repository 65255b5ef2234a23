"""Who moves the weights, and when."""

import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unit.attach.case import Section, a_model, batches, gradients, train
from unit.attach.twice import PERIOD, Swarm, Tensors
from unit.weights.models import build, mlp

training = Section("Training")


@training(
    "several parameter groups",
    "they may be added later, too, with weights that the model had when it was attached",
)
def groups(swarm: Swarm) -> Tensors:
    model = mlp()
    optimizer = SGD([{"params": model[0].weight, "lr": 0.1}, {"params": model[0].bias, "momentum": 0.9}], lr=0.01)
    swarm.attach(model, optimizer)
    train(swarm, model, optimizer, steps=PERIOD)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.5})
    train(swarm, model, optimizer, steps=PERIOD)
    return dict(model.state_dict())


@training("several optimizers", "attach all of them: a step is over when each has stepped, in whatever order")
def two_optimizers(swarm: Swarm) -> Tensors:
    model = mlp()
    first, second = SGD(model[0].parameters(), lr=0.1), Adam(model[2].parameters())
    swarm.attach(model, [first, second])
    train(swarm, model, second, first)
    return dict(model.state_dict())


@training("several models, such as a GAN's", "attach `nn.ModuleList([generator, critic])`")
def adversaries(swarm: Swarm) -> Tensors:
    generator, critic = nn.Linear(6, 6), nn.Linear(6, 1)
    makes, judges = Adam(generator.parameters()), Adam(critic.parameters())
    both = nn.ModuleList([generator, critic])
    swarm.attach(both, [makes, judges])
    for x in batches():
        for _ in range(3):
            judges.zero_grad()
            (critic(generator(x).detach()) - critic(x)).mean().backward()
            judges.step()
        makes.zero_grad()
        critic(generator(x)).mean().neg().backward()
        makes.step()
        swarm.counts()
    return dict(both.state_dict())


@training(
    "LBFGS and others that take a closure",
    "one call of `step` is one step; call `report` in the closure; the first estimate of the curvature after an "
    "exchange is off, as the exchange moved the weights as well",
)
def closures(swarm: Swarm) -> Tensors:
    model = mlp().double()
    optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=3, line_search_fn="strong_wolfe")
    particle = swarm.attach(model, optimizer)
    for x in batches(dtype=torch.float64):

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            loss = gradients(model, x)
            particle.report(loss=loss)
            return loss

        optimizer.step(closure)
        swarm.counts()
    return dict(model.state_dict())


def scaled(swarm: Swarm, *, fused: bool, device: str = "cpu") -> Tensors:
    model = mlp().to(device)
    optimizer = SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler(device, init_scale=4.0)
    swarm.attach(model, optimizer)
    for i, x in enumerate(batches(2 * PERIOD + 3, device=device)):
        overflow = i in (1, 2, 5)
        model.zero_grad()
        scaler.scale(model(x).square().mean() * (torch.inf if overflow else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        if not overflow:
            swarm.counts()
    return dict(model.state_dict())


@training("GradScaler", "a step that it skips does not count")
def skipped(swarm: Swarm) -> Tensors:
    return scaled(swarm, fused=False)


@training("GradScaler with a fused optimizer", "a step that it skips does not count either")
def skipped_inside(swarm: Swarm) -> Tensors:
    return scaled(swarm, fused=True)


@training("schedules of the learning rate", "made before or after `attach`")
def schedules(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    before = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    swarm.attach(model, optimizer)
    after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(2 * PERIOD):
        train(swarm, model, optimizer, steps=1)
        before.step()
        after.step()
    return dict(model.state_dict()) | {"lr": torch.tensor(before.get_last_lr() + after.get_last_lr())}


@training(
    "averages of the weights (EMA, SWA)",
    "made before or after `attach`; they average what this particle has",
)
def averages(swarm: Swarm) -> Tensors:
    model = build("convolutional")
    optimizer = SGD(model.parameters(), lr=0.1)
    copies = [AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))]
    swarm.attach(model, optimizer)
    copies.append(AveragedModel(model, use_buffers=True))
    for _ in range(2 * PERIOD):
        train(swarm, model, optimizer, steps=1)
        for copy in copies:
            copy.update_parameters(model)
    torch.optim.swa_utils.update_bn(batches(), copies[0])
    return {f"{i} {name}": value for i, copy in enumerate(copies) for name, value in copy.state_dict().items()}


@training("gradient accumulation", "steps of the optimizer count, whatever batches go into one")
def accumulation(swarm: Swarm) -> Tensors:
    model, optimizer = a_model()
    particle = swarm.attach(model, optimizer)
    for i, x in enumerate(batches(6 * PERIOD), 1):
        loss = model(x).square().mean() / 3
        loss.backward()
        particle.report(loss=3 * loss)
        if i % 3 == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            swarm.counts()
    return dict(model.state_dict())


@training(
    "optimizers stepped inside `backward()`",
    "the exchange would change weights that the backward pass still reads: step after it",
    refused=r"optimizer\.step\(\) was called inside backward\(\)",
)
def in_backward(swarm: Swarm) -> None:
    model = mlp()
    optimizers = {parameter: SGD([parameter], lr=0.1) for parameter in model.parameters()}
    swarm.attach(model, list(optimizers.values()))
    for parameter, optimizer in optimizers.items():
        parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())
    for x in batches():
        model(x).sum().backward()


@training(
    "an optimizer that holds none of the model's weights",
    "attach the one that steps this model",
    refused="SGD holds none of the model's weights",
)
def other_optimizer(swarm: Swarm) -> None:
    swarm.attach(mlp(), SGD(mlp().parameters(), lr=0.1))


@training(
    "`attach` called twice",
    "a process is one particle: attach all models and optimizers at once",
    refused="attach was called twice",
)
def attached_twice(swarm: Swarm) -> None:
    model, optimizer = a_model()
    swarm.attach(model, optimizer)
    swarm.attach(model, optimizer)
