"""Real particles whose connections are cut again and again, wherever they are: what their weights say of it."""

import random
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from support.cable import Cable, Way
from support.processes import eventually, swarm_of
from support.scripts import training
from swarm_api import env
from swarm_api.algorithm import EASGD, Algorithm, AlgorithmName, ExchangeMode
from swarm_api.job import Sync

pytestmark = pytest.mark.faults

SETUP = """
model.big = torch.nn.Parameter(torch.zeros(100_000))
model.double()
data = data.double()
loader = DataLoader(TensorDataset(data, data.sum(1, keepdim=True)), batch_size=8)


def total():
    return sum(parameter.sum().item() for parameter in model.parameters())
"""
SHIFT = """
with torch.no_grad():
    start = total()
    model.weight.add_((index + 1) / 3)
    model.big.add_((index + 1) / 3e4)
"""
NO_GRADIENT = """
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
"""
CUTS = 12


@pytest.mark.parametrize("mode", ExchangeMode)
def test_elastic_averaging_keeps_the_sum_of_all_particles_and_the_center_through_any_cuts(
    tmp_path: Path, mode: ExchangeMode
) -> None:
    script = training(
        setup=SETUP, attached=SHIFT, before_step=NO_GRADIENT, end="say(start=start, left=total())", pause=0.002
    )
    algorithm = Algorithm(name=AlgorithmName.EASGD, sync_period=2, easgd=EASGD(mode=mode))
    chance = random.Random(1)
    with swarm_of(tmp_path, script, replicas=3, algorithm=algorithm, sync=Sync()) as swarm, ExitStack() as closed:
        cables = [
            closed.enter_context(closing(Cable(tmp_path / "where.json", tmp_path / f"cable-{index}.json")))
            for index in range(2)
        ]
        synchronizer = swarm.synchronizer()
        files = [str(cable.file) for cable in cables] + [str(tmp_path / "where.json")]
        particles = [swarm.particle(i, **{env.SYNCHRONIZER_ADDRESS_FILE: file}) for i, file in enumerate(files)]
        swarm.trains_on("particle-0-1", "particle-1-1", "particle-2-1")
        for _ in range(CUTS):
            for cable in cables:
                before = cable.cuts
                if chance.random() < 0.2:
                    time.sleep(chance.uniform(0, 0.02))
                    cable.cut()
                else:
                    cable.cut_after(chance.choice(list(Way)), chance.randrange(1, 1_600_000))
                eventually(lambda cable=cable, before=before: cable.cuts > before, "cut")
        swarm.rounds_go_on(3)
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]

        ends = [line for index in range(3) for line in swarm.said(f"particle-{index}-1") if "left" in line]
        (start,) = {line["start"] for line in ends}
        center = sum(tensor.sum().item() for tensor in swarm.model().values())
        shifts = sum((8 / 3 + 10 / 3) * (index + 1) for index in range(3))
        assert sum(line["left"] for line in ends) + center == pytest.approx(4 * start + shifts, abs=1e-6)
        assert center != pytest.approx(start, abs=1.0), "the center was pulled along"
        late = [swarm.log(f"particle-{index}-1").count("applying it now") for index in range(2)]
        assert min(late) > 0, "some pushes were merged and answered later"
        for index in range(3):
            steps = [line["step"] for line in swarm.said(f"particle-{index}-1") if "step" in line]
            assert steps == list(range(1, len(steps) + 1))
