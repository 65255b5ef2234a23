"""Settings that are replaced while real processes train: nobody restarts, and the model goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from swarm_api.algorithm import EASGD, PSOPS, Algorithm, AlgorithmName, ExchangeMode
from swarm_api.job import Sync

pytestmark = pytest.mark.faults

PARTICLES = 3
NAMES = [f"particle-{index}-1" for index in range(PARTICLES)]
SWARM = Algorithm(name=AlgorithmName.PSOPS, sync_period=2)


@contextmanager
def a_swarm(folder: Path, **changes: Any) -> Iterator[Processes]:
    """Trains until it has learned; at its end every process has lived through all, and the model is good."""
    script = training(pause=0.005, report="particle.report(loss=loss)")
    with swarm_of(folder, script, replicas=PARTICLES, **({"algorithm": SWARM, "sync": Sync()} | changes)) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(PARTICLES)]
        for name in NAMES:
            swarm.until_loss(name, below=0.01)
        yield swarm
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0] * PARTICLES
        for name in NAMES:
            said = [line for line in swarm.said(name) if "step" in line]
            assert [line["step"] for line in said] == list(range(1, len(said) + 1))
            learned = next(number for number, line in enumerate(said) if line["loss"] < 0.01)
            assert max(line["loss"] for line in said[learned:]) < 1.0, "nothing threw it back"
        rounds = [line["round"] for line in swarm.history("round")]
        assert rounds == list(range(1, len(rounds) + 1))
        generations = [line["generation"] for line in swarm.history("round")]
        assert generations == sorted(generations)
        assert torch.allclose(swarm.model()["weight"], torch.ones(1, 8), atol=0.2)


def change(swarm: Processes, **changes: Any) -> None:
    """Replace the file, and wait until everyone contributes under it."""
    swarm.settings = swarm.settings.model_copy(update={"generation": swarm.settings.generation + 1, **changes})
    swarm.write(swarm.settings)
    eventually(
        lambda: {0, 1, 2} <= {index for line in of_now(swarm) for index in line["contributors"]}, "they contribute"
    )


def of_now(swarm: Processes) -> list[dict[str, Any]]:
    """Rounds of the newest generation."""
    return [line for line in swarm.history("round") if line["generation"] == swarm.settings.generation]


def test_algorithm_and_period_change_under_a_swarm_that_trains(tmp_path: Path) -> None:
    with a_swarm(tmp_path) as swarm:
        change(swarm, algorithm=SWARM.model_copy(update={"sync_period": 5}))
        # After what was handed back and pushed again, every contribution is five steps of eight samples.
        eventually(lambda: len(of_now(swarm)) > 6, "rounds of the longer period")
        rounds = of_now(swarm)[2:]
        for before, after in pairwise(rounds):
            assert after["samples"] - before["samples"] == 40 * len(after["contributors"])
        change(swarm, algorithm=SWARM.model_copy(update={"psops": PSOPS(social=0.3)}))
        for algorithm in (
            Algorithm(name=AlgorithmName.EASGD, sync_period=3),
            Algorithm(name=AlgorithmName.EASGD, sync_period=3, easgd=EASGD(mode=ExchangeMode.ASYNCHRONOUS)),
            Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=2),
            SWARM,
        ):
            change(swarm, algorithm=algorithm)
        told = [line["algorithm"] for line in swarm.history("settings")]
        assert told == ["PSOPS", "PSOPS", "EASGD", "EASGD", "LocalSGD", "PSOPS"]
        for name in NAMES:
            assert "goes on with EASGD instead of PSOPS" in swarm.log(name)


def test_a_shorter_deadline_frees_those_who_wait_for_a_frozen_particle(tmp_path: Path) -> None:
    patient = Sync(quorum="100%", grace_milliseconds=600_000, deadline_seconds=3600)
    with a_swarm(tmp_path, sync=patient) as swarm:
        frozen = swarm.started[-1]
        frozen.signal(signal.SIGSTOP)
        eventually(lambda: (told := swarm.reported(2)) and told.silent_seconds > 2, "it is silent")
        stuck = swarm.round()
        swarm.settings = swarm.settings.model_copy(
            update={"generation": 2, "sync": patient.model_copy(update={"deadline_seconds": 1})}
        )
        swarm.write(swarm.settings)
        eventually(lambda: of_now(swarm)[2:], "rounds without the frozen one")
        assert of_now(swarm)[0]["round"] == stuck + 1
        assert all(line["contributors"] == [0, 1] for line in of_now(swarm))
        frozen.signal(signal.SIGCONT)
        eventually(lambda: 2 in swarm.contributors(), "it is back, under the new settings")
