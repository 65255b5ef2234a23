"""Which samples were trained, as the particles themselves write them down before every step."""

import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import Presence

pytestmark = pytest.mark.faults

SAMPLES, BATCH, PERIOD = 480, 2, 3
PSOPS = Algorithm(name=AlgorithmName.PSOPS, sync_period=PERIOD)
NUMBERED = f"""
data = torch.randn({SAMPLES}, 8, generator=torch.Generator().manual_seed(0))
numbers = {{tuple(x): number for number, x in enumerate(data.tolist())}}
loader = DataLoader(
    TensorDataset(data, data.sum(1, keepdim=True)),
    batch_size={BATCH},
    shuffle=True,
    num_workers=int(os.environ.get("WORKERS", 0)),
)
"""
WRITE = "say(epoch=epoch, trains=[numbers[tuple(x)] for x in x.tolist()])"


def a_training(*, epochs: int = 1, pause: float = 0.01, before_step: str = "") -> str:
    return training(epochs=epochs, one_pass=True, pause=pause, setup=NUMBERED, before_step=f"{WRITE}\n{before_step}")


def every_batch(swarm: Processes, name: str) -> list[tuple[int, ...]]:
    """What this process has begun to train."""
    return [tuple(line["trains"]) for line in swarm.said(name) if "trains" in line]


def batches(swarm: Processes, name: str, epoch: int) -> list[tuple[int, ...]]:
    """Likewise, in one epoch."""
    return [tuple(line["trains"]) for line in swarm.said(name) if line.get("epoch") == epoch and "trains" in line]


def trained(swarm: Processes, names: Iterable[str], epoch: int) -> Counter[int]:
    """How often each sample was trained in an epoch."""
    return Counter(number for name in names for batch in batches(swarm, name, epoch) for number in batch)


def once_each(swarm: Processes, names: Iterable[str], epochs: int) -> None:
    for epoch in range(epochs):
        assert trained(swarm, names, epoch) == Counter(range(SAMPLES)), f"epoch {epoch}"


@pytest.mark.parametrize("workers", [0, 2])
def test_undisturbed_every_sample_is_trained_once_an_epoch_and_all_of_them_are_merged(
    tmp_path: Path, workers: int
) -> None:
    names = [f"particle-{index}-1" for index in range(3)]
    with swarm_of(tmp_path, a_training(epochs=2, pause=0.002), replicas=3, algorithm=PSOPS) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index, WORKERS=str(workers)) for index in range(3)]
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        once_each(swarm, names, epochs=2)
        assert [len(batches(swarm, name, 0)) for name in names] == [SAMPLES // BATCH // 3] * 3
        assert swarm.history("round")[-1]["samples"] == 2 * SAMPLES


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_killed_particle_did_not_get_to_is_trained_by_others_and_only_what_was_not_merged_twice(
    tmp_path: Path, workers: int
) -> None:
    with swarm_of(tmp_path, a_training(epochs=2, pause=0.06), replicas=3, algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        extra = {"WORKERS": str(workers)}
        particles = [swarm.particle(index, **extra) for index in range(3)]
        killed = []
        for incarnation in (1, 2):
            for index in (1, 2):
                name = f"particle-{index}-{incarnation}"
                swarm.trains_on(name, steps=5)
                particles[index].signal(signal.SIGKILL)
                particles[index].wait()
                killed.append(name)
                swarm.until_presence(index, Presence.DETACHED)
                particles[index] = swarm.particle(index, incarnation + 1, **extra)
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        names = ["particle-0-1", *(f"particle-{index}-{incarnation}" for index in (1, 2) for incarnation in (1, 2, 3))]
        # What was left of the first epoch may have been trained in the second.
        counts = trained(swarm, names, 0) + trained(swarm, names, 1)
        assert {number for number in range(SAMPLES) if counts[number] < 2} == set()
        # A push speaks for the steps up to it; what follows dies with the particle.
        unmerged = {number for name in killed for batch in every_batch(swarm, name)[-PERIOD:] for number in batch}
        assert {number for number, count in counts.items() if count > 2} <= unmerged
        assert swarm.history("round")[-1]["samples"] == 2 * SAMPLES
        assert "were not trained" not in swarm.log("synchronizer-1")


def test_a_synchronizer_that_is_killed_costs_no_sample_and_repeats_none(tmp_path: Path) -> None:
    names = [f"particle-{index}-1" for index in range(3)]
    with swarm_of(tmp_path, a_training(epochs=2, pause=0.02), replicas=3, algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        for incarnation in (2, 3):
            swarm.trains_on(*names, steps=15)
            synchronizer.signal(signal.SIGKILL)
            synchronizer.wait()
            swarm.trains_on(*names, steps=15)
            synchronizer = swarm.synchronizer(incarnation)
            swarm.rounds_go_on()
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        once_each(swarm, names, epochs=2)


def test_a_particle_that_joins_in_the_middle_of_an_epoch_takes_its_part_of_what_is_left(tmp_path: Path) -> None:
    names = [f"particle-{index}-1" for index in range(3)]
    with swarm_of(tmp_path, a_training(pause=0.03), replicas=2, algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        swarm.trains_on(*names[:2], steps=20)
        swarm.write(swarm.settings.model_copy(update={"replicas": 3, "generation": 2}))
        particles.append(swarm.particle(2))
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        once_each(swarm, names, epochs=1)
        assert len(batches(swarm, names[2], 0)) >= 10


SLOW = """
if index == 1:
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def test_the_last_particles_replacement_trains_what_it_left_when_all_others_have_finished(tmp_path: Path) -> None:
    with swarm_of(
        tmp_path, a_training(pause=0, before_step=SLOW), replicas=2, algorithm=PSOPS, sync=Sync(grace_milliseconds=100)
    ) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        swarm.until_presence(0, Presence.FINISHED)
        particles[1].signal(signal.SIGKILL)
        swarm.until_presence(1, Presence.DETACHED)
        swarm.touch("go")
        replacement = swarm.particle(1, incarnation=2)
        assert swarm.ended(synchronizer) == 0
        assert [particles[0].wait(), replacement.wait()] == [0, 0]
        counts = trained(swarm, ["particle-0-1", "particle-1-2"], 0)
        assert counts == Counter(range(SAMPLES))
        assert len(batches(swarm, "particle-1-2", 0)) < SAMPLES // BATCH // 2, "most of it was trained by the idle one"


IMPATIENT = "swarm.member._REUNION_SECONDS = 1.0"


@pytest.mark.parametrize("patient", [True, False])
def test_a_particle_whose_pushes_are_held_at_its_end_waits_or_leaves_its_last_batches_to_others(
    tmp_path: Path, patient: bool
) -> None:
    script = training(one_pass=True, pause=0.005, setup=NUMBERED + ("" if patient else IMPATIENT), before_step=WRITE)
    algorithm = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=PERIOD)
    with swarm_of(tmp_path, script, replicas=2, min_replicas=2, algorithm=algorithm, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        swarm.trains_on("particle-0-1", "particle-1-1", steps=20)
        particles[1].signal(signal.SIGKILL)
        swarm.until_presence(1, Presence.DETACHED)
        held = swarm.round()
        names = ["particle-0-1", "particle-1-1"]
        eventually(lambda: len(trained(swarm, names, 0)) == SAMPLES, "nothing is left to train")
        if patient:
            time.sleep(2.0)
            assert particles[0].poll() is None
        else:
            swarm.until_presence(0, Presence.FINISHED)
            assert "steps are lost: fewer than minReplicas particles are there" in swarm.log("particle-0-1")
        assert swarm.round() == held
        particles[1] = swarm.particle(1, incarnation=2)
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        assert ("steps are lost" in swarm.log("particle-0-1")) is not patient
        assert (len(batches(swarm, "particle-1-2", 0)) > 0) is not patient
        assert swarm.history("round")[-1]["samples"] == SAMPLES
        assert "were not trained" not in swarm.log("synchronizer-1")


LEAVES = """
if step == 9 and epoch == 0:
    over = True
    break
"""


def test_a_script_that_leaves_its_loop_gives_up_its_share_and_no_one_elses(tmp_path: Path) -> None:
    script = training(epochs=2, one_pass=True, pause=0, setup=NUMBERED, before_step=WRITE, after_step=LEAVES)
    with swarm_of(tmp_path, script, replicas=2, algorithm=PSOPS) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        for name in ("particle-0-1", "particle-1-1"):
            assert [len(batches(swarm, name, epoch)) for epoch in range(2)] == [9, SAMPLES // BATCH // 2]
        assert "were not trained" not in swarm.log("synchronizer-1")
