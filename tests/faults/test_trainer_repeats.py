"""Undisturbed, a barrier algorithm is reproducible bit for bit, and what one end of a spring loses the other gains."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from support.processes import swarm_of
from support.scripts import training
from swarm_api.algorithm import EASGD, Algorithm, AlgorithmName, ExchangeMode

pytestmark = pytest.mark.faults

LOOK_AT_THE_CENTER = """
if particle.leader:
    with particle.center():
        say(center=digest())
"""


@pytest.mark.parametrize("name", [AlgorithmName.PSOPS, AlgorithmName.EASGD])
def test_the_same_job_gives_the_same_centers_bit_for_bit_and_the_last_is_the_model(
    tmp_path: Path, name: AlgorithmName
) -> None:
    script = training(epochs=3, one_pass=True, pause=0, after_step=LOOK_AT_THE_CENTER, end=LOOK_AT_THE_CENTER)
    algorithm = Algorithm(name=name, sync_period=2)
    told: list[list[dict[str, Any]]] = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        with swarm_of(folder, script, replicas=2, algorithm=algorithm) as swarm:
            synchronizer = swarm.synchronizer()
            particles = [swarm.particle(index) for index in range(2)]
            assert swarm.ended(synchronizer) == 0
            assert [particle.wait() for particle in particles] == [0, 0]
            said = swarm.said("particle-0-1")
            centers = [line["center"] for line in said if "center" in line]
            model = b"".join(tensor.numpy().tobytes() for _, tensor in sorted(swarm.model().items()))
            assert hashlib.sha256(model).hexdigest() == centers[-1]
            assert len(set(centers)) >= len(swarm.history("round")) >= 8
            assert all(round_["contributors"] == [0, 1] for round_ in swarm.history("round"))
            told.append(said)
    assert told[0] == told[1]


SHIFT = """
with torch.no_grad():
    start = model.weight.double().sum().item()
    model.weight.add_((index + 1) / 3)
"""
NO_GRADIENT = """
for parameter in model.parameters():
    parameter.grad.zero_()
"""
LEFT = "say(start=start, left=model.weight.double().sum().item())"


@pytest.mark.parametrize("mode", ExchangeMode)
def test_without_gradients_elastic_averaging_keeps_the_sum_of_all_particles_and_the_center(
    tmp_path: Path, mode: ExchangeMode
) -> None:
    script = training(
        epochs=3,
        one_pass=True,
        pause=0,
        setup="model.double()\ndata = data.double()\n"
        "loader = DataLoader(TensorDataset(data, data.sum(1, keepdim=True)), batch_size=8)",
        attached=SHIFT,
        before_step=NO_GRADIENT,
        end=LEFT,
    )
    algorithm = Algorithm(name=AlgorithmName.EASGD, sync_period=2, easgd=EASGD(mode=mode))
    with swarm_of(tmp_path, script, replicas=3, algorithm=algorithm) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        ends = [line for index in range(3) for line in swarm.said(f"particle-{index}-1") if "left" in line]
        (start,) = {line["start"] for line in ends}
        center = swarm.model()["weight"].sum().item()
        shifts = sum(8 * (index + 1) / 3 for index in range(3))
        assert sum(line["left"] for line in ends) + center == pytest.approx(4 * start + shifts, abs=1e-9)
        assert center != pytest.approx(start, abs=1.0), "the center was pulled along"
