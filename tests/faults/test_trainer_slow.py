"""A particle that is much slower than the others, with default settings."""

import statistics
import time
from itertools import pairwise
from pathlib import Path

import pytest

from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync

pytestmark = pytest.mark.faults

LOCAL_SGD = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=5)
SLOW = """
if index == 2 and os.path.exists("slow"):
    time.sleep(0.1)
"""


ROUNDS = 10


def round_seconds(swarm: Processes) -> list[float]:
    """Of the next rounds, from each commit that both fast ones were in to the next one."""
    since = time.time()

    def seconds() -> list[float]:
        both = [line["time"] for line in swarm.history("round") if {0, 1} <= set(line["contributors"])]
        return [after - before for before, after in pairwise(both) if before >= since]

    eventually(lambda: len(seconds()) >= ROUNDS + 2, "rounds go on")
    return seconds()[2:]  # The first ones find out who is slow.


def test_a_particle_ten_times_slower_slows_nobody_and_all_its_samples_reach_the_center(tmp_path: Path) -> None:
    script = training(pause=0.01, before_step=SLOW)
    with swarm_of(tmp_path, script, replicas=3, algorithm=LOCAL_SGD, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        eventually(lambda: swarm.contributors() == [0, 1, 2], "all contribute")
        even, uneven = [], []
        for _ in range(3):  # By turns, since other people's load comes and goes.
            (tmp_path / "slow").unlink(missing_ok=True)
            even += round_seconds(swarm)
            swarm.touch("slow")
            uneven += round_seconds(swarm)
        # What it is on a machine that does nothing else is shown by benchmarks/faults.py.
        assert statistics.median(uneven) < statistics.median(even) / 0.8
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        trained = sum(8 * swarm.steps(f"particle-{index}-1") for index in range(3))
        assert swarm.history("round")[-1]["samples"] == trained
