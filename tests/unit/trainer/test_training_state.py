"""What a newcomer takes over from a donor, part by part."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from swarm_trainer import attach
from swarm_trainer.training_state import Stateful, TrainingState

LARGE = 1 << 20


class Script:
    """A model of its own, with optimizer and scheduler."""

    def __init__(
        self,
        optimizer: Callable[[Any], Optimizer] = AdamW,
        scheduler: Callable[[Optimizer], Any] = lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 20),
        width: int = 2,
        registered: bool = True,
        **more: Stateful,
    ) -> None:
        self.model = nn.Linear(3, width)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(1.0)
        self.optimizer = optimizer(self.model.parameters())
        self.scheduler: LRScheduler = scheduler(self.optimizer)
        registers = {"scheduler": self.scheduler} if registered else {}
        self.state = TrainingState([self.optimizer], registers | more)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def train(self, steps: int) -> list[float]:
        """The learning rate of each step."""
        rates = []
        for _ in range(steps):
            self.optimizer.step(self._closure)
            rates.append(self.lr)
            self.scheduler.step(*[1.0] if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau) else [])
        return rates

    def _closure(self) -> float:
        self.optimizer.zero_grad()
        loss = self.model(torch.ones(1, 3)).square().sum()
        loss.backward()
        return float(loss.detach())


def hand_over(donor: TrainingState, newcomer: TrainingState, largest: int = LARGE) -> None:
    donation, tensors = donor.give(largest)
    newcomer.take(donation.model_copy(update={"donor": 0}), tensors)


OPTIMIZERS: Mapping[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda parameters: SGD(parameters, lr=0.1),
    "momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    "Adam with amsgrad": lambda parameters: Adam(parameters, amsgrad=True),
    "AdamW": AdamW,
    "Adagrad": Adagrad,
    "NAdam": NAdam,
    "LBFGS": LBFGS,
    "two groups": lambda parameters: AdamW(
        [{"params": [p], "lr": 0.1 ** (n + 1)} for n, p in enumerate(parameters)], weight_decay=0
    ),
    "a rate that is a tensor": lambda parameters: Adam(parameters, lr=torch.tensor(0.1)),
}
SCHEDULERS: Mapping[str, Callable[[Optimizer], Any]] = {
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 20),
    "restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    "steps": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5, 7, 9]),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=20, cycle_momentum=False),
    "a function": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=2),
    "warm-up, then decay": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [4]
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_newcomer_trains_on_as_the_donor_would(
    optimizer: str, scheduler: str, caplog: pytest.LogCaptureFixture
) -> None:
    donor, newcomer = (Script(OPTIMIZERS[optimizer], SCHEDULERS[scheduler]) for _ in range(2))
    donor.train(6)
    with caplog.at_level(logging.INFO):
        hand_over(donor.state, newcomer.state)
    assert caplog.messages == ["the optimizer, state['scheduler'] taken over from particle 0"]
    newcomer.model.load_state_dict(donor.model.state_dict())
    assert newcomer.train(6) == donor.train(6)
    assert torch.equal(newcomer.model.weight, donor.model.weight)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_that_is_made_and_registered_after_attach_goes_on_too(
    scheduler: str, caplog: pytest.LogCaptureFixture
) -> None:
    donor, newcomer = Script(scheduler=SCHEDULERS[scheduler]), Script(scheduler=lambda _: None, registered=False)
    donor.train(6)
    hand_over(donor.state, newcomer.state)
    newcomer.scheduler = SCHEDULERS[scheduler](newcomer.optimizer)
    newcomer.state.register({"scheduler": newcomer.scheduler})
    newcomer.state.begin()
    assert not caplog.messages
    newcomer.model.load_state_dict(donor.model.state_dict())
    assert newcomer.train(6) == donor.train(6)


def test_nothing_is_registered_once_training_has_begun() -> None:
    state = Script().state
    state.register({"scaler": torch.amp.GradScaler("cpu")})
    state.begin()
    with pytest.raises(RuntimeError, match="before the loops over epochs and batches"):
        state.register({"ema": nn.Linear(1, 1)})


def test_what_was_given_does_not_change_with_the_donor() -> None:
    donor, newcomer = Script(), Script()
    donor.train(5)
    donation, tensors = donor.state.give(LARGE)
    donor.train(5)
    newcomer.state.take(donation, tensors)
    assert newcomer.scheduler.last_epoch == 5
    assert {float(state["step"]) for state in newcomer.optimizer.state.values()} == {5.0}


def fresh(script: Script) -> bool:
    return script.lr == 1e-3 and not script.optimizer.state and script.scheduler.last_epoch == 0


@pytest.mark.parametrize(
    ("donor", "newcomer", "warning"),
    [
        (
            {},
            {"width": 4},
            "the optimizer begins anew: the donor's has shape (2, 3) for parameter 0 of group 0, "
            "this one shape (4, 3) for parameter 0 of group 0",
        ),
        (
            {"optimizer": SGD},
            {},
            "the optimizer begins anew: the donor's has the class SGD, this one the class AdamW",
        ),
        (
            {"optimizer": OPTIMIZERS["two groups"]},
            {},
            "the optimizer begins anew: the donor's has shape (2,) for parameter 0 of group 1, "
            "this one shape (2,) for parameter 1 of group 0",
        ),
        (
            {"scheduler": lambda optimizer: lr_scheduler.StepLR(optimizer, 5)},
            {},
            "state['scheduler'] begins anew: the donor's has the class StepLR, this one the class CosineAnnealingLR",
        ),
        ({"registered": False}, {}, "state['scheduler'] begins anew: the donor has no such thing"),
        ({"ema": nn.Linear(1, 1)}, {}, "particle 0 gave state['ema'], and this script has no such thing"),
    ],
)
def test_a_part_that_does_not_fit_begins_anew_with_a_warning_and_the_others_go_on(
    donor: dict[str, Any], newcomer: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    giving, taking = Script(**donor), Script(**newcomer)
    giving.train(6)
    hand_over(giving.state, taking.state)
    taking.state.begin()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(warning)
    assert bool(taking.optimizer.state) == ("the optimizer" not in warning)
    assert (taking.scheduler.last_epoch > 0) == ("state['scheduler']" not in warning)
    taking.train(2)


def test_a_scheduler_that_is_not_registered_begins_anew_together_with_its_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    donor, newcomer = Script(registered=False), Script(registered=False)
    donor.train(12)
    hand_over(donor.state, newcomer.state)
    assert 'attach(model, optimizer, state={"scheduler": scheduler})' in caplog.messages[0]
    assert (newcomer.lr, newcomer.scheduler.last_epoch) == (1e-3, 0)
    assert {float(state["step"]) for state in newcomer.optimizer.state.values()} == {12.0}


def test_several_optimizers_are_taken_over_each_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    def states(second: int) -> tuple[TrainingState, list[Optimizer]]:
        models = [nn.Linear(3, 2), nn.Linear(second, 1)]
        optimizers = [AdamW(models[0].parameters()), SGD(models[1].parameters(), lr=0.1, momentum=0.9)]
        sum(model(torch.ones(1, model.in_features)).sum() for model in models).backward()  # type: ignore[union-attr]
        return TrainingState(optimizers, {}), optimizers

    donor, giving = states(2)
    for optimizer in giving:
        optimizer.step()
    newcomer, taking = states(2)
    hand_over(donor, newcomer)
    assert not caplog.messages
    for mine, theirs in zip(taking, giving, strict=True):
        assert str(mine.state_dict()) == str(theirs.state_dict())
    other, taking = states(3)
    hand_over(donor, other)
    assert [message.split(":")[0] for message in caplog.messages] == ["optimizer 1 begins anew"]
    assert [bool(optimizer.state) for optimizer in taking] == [True, False]


class Odd:
    """State that makes trouble."""

    def __init__(self, state: Any, accepts: bool = True) -> None:
        self.state = state
        self._accepts = accepts

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.state, Exception):
            raise self.state
        return {"state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict["state"]
        if not self._accepts and self.state != "own":
            raise ValueError("this is not mine")


@pytest.mark.parametrize(
    ("theirs", "accepts", "reason"),
    [
        ({1, 2}, True, "['state'] is a set, and only plain data and tensors can travel"),
        (RuntimeError("not now"), True, "not now"),
        (torch.zeros(LARGE), True, "4194304 bytes are more than the"),
        ("x" * (16 << 20), True, "characters are more than"),
        ("other", False, "this is not mine"),
    ],
)
def test_state_that_cannot_travel_or_be_loaded_stays_as_it_was_and_costs_no_other_part(
    theirs: Any, accepts: bool, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = Odd("own", accepts)
    donor, newcomer = Script(odd=Odd(theirs)), Script(odd=odd)
    donor.train(3)
    hand_over(donor.state, newcomer.state)
    assert caplog.messages[-1].startswith("state['odd'] begins anew")
    assert reason in caplog.messages[-1]
    assert odd.state == "own"
    assert newcomer.lr == donor.lr != 1e-3
    assert newcomer.scheduler.last_epoch == 3


def test_without_a_donor_everything_begins_anew_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    donation, _ = Script().state.give(LARGE)
    newcomer = Script()
    newcomer.state.take(donation.model_copy(update={"parts": (), "problem": "nobody is there"}), {})
    assert caplog.messages == ["optimizer and registered state begin anew: nobody is there"]
    assert fresh(newcomer)


def test_what_has_no_state_cannot_be_registered() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"state\['rate'\] is a float without state_dict and load_state_dict"):
        attach(model, SGD(model.parameters()), state={"rate": 0.1})  # type: ignore[dict-item]
