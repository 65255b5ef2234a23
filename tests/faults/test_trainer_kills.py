"""What a kill, a freeze or a polite signal does to particles and synchronizer, without any operator."""

import random
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from swarm_api import exits
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Link, Sync
from swarm_api.report import Presence

pytestmark = pytest.mark.faults

PSOPS = Algorithm(name=AlgorithmName.PSOPS, sync_period=3)
LOCAL_SGD = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=3)
FIRST_LOSS = 300.0
"""No particle's first loss is below this, unless it starts from a center that has been trained."""


def learned(swarm: Processes) -> None:
    """The model is good, and plain torch loads it."""
    model = torch.nn.Linear(8, 1)
    model.load_state_dict(swarm.model())
    assert torch.allclose(model.weight, torch.ones(1, 8), atol=0.2)


def consecutive(swarm: Processes, name: str) -> bool:
    """Whether this process took every step once."""
    steps = [line["step"] for line in swarm.said(name) if "step" in line]
    return steps == list(range(1, len(steps) + 1))


def all_train(swarm: Processes, *indices: int) -> None:
    """Wait until these contribute."""
    for index in indices:
        eventually(
            lambda index=index: (report := swarm.reported(index)) and report.contributions, f"{index} contributes"
        )


FORK_A_WORKER = """
if os.fork() == 0:  # As a DataLoader does; its workers notice the end of their parent only after seconds.
    for _ in range(900):
        if os.path.exists("leave"):
            break
        time.sleep(0.1)
    os._exit(0)
"""


@pytest.mark.parametrize("link", Link)
def test_a_kill_is_noticed_although_a_worker_of_the_particle_lives_on(tmp_path: Path, link: Link) -> None:
    script = training(attached=FORK_A_WORKER)
    with swarm_of(tmp_path, script, replicas=2, algorithm=LOCAL_SGD, sync=Sync(link=link)) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        try:
            all_train(swarm, 0, 1)
            particles[1].signal(signal.SIGKILL)
            swarm.until_presence(1, Presence.DETACHED)
            swarm.trains_on("particle-0-1")
        finally:
            swarm.touch("leave")
        assert synchronizer.poll() is None


@pytest.mark.parametrize("link", Link)
def test_a_killed_particle_comes_back_from_the_center_and_the_others_never_stop(tmp_path: Path, link: Link) -> None:
    sync = Sync(link=link)
    with swarm_of(tmp_path, training(epochs=3), replicas=3, algorithm=PSOPS, sync=sync) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        survivors = ["particle-0-1", "particle-2-1"]
        swarm.touch("end-0")
        for name in (*survivors, "particle-1-1"):
            eventually(lambda name=name: any(line.get("epoch") == 1 for line in swarm.said(name)), "the second epoch")
            swarm.until_loss(name, below=1.0)
        particles[1].signal(signal.SIGKILL)
        swarm.until_presence(1, Presence.DETACHED)
        swarm.trains_on(*survivors)
        swarm.rounds_go_on()
        particles[1] = swarm.particle(1, incarnation=2)
        swarm.trains_on("particle-1-2")
        all_train(swarm, 1)
        swarm.until_loss("particle-1-2", below=0.01)
        swarm.touch("end-1")
        swarm.touch("end-2")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]

        newcomer = [line for line in swarm.said("particle-1-2") if "loss" in line]
        assert swarm.said("particle-1-1")[0]["loss"] > FIRST_LOSS
        assert newcomer[0]["loss"] < FIRST_LOSS / 100
        assert (newcomer[0]["epoch"], newcomer[-1]["epoch"]) == (1, 2)
        assert all(consecutive(swarm, name) for name in survivors)
        contributors = [round_["contributors"] for round_ in swarm.history("round")]
        alone = contributors.index([0, 2])
        assert any(1 in later for later in contributors[alone:])
        learned(swarm)


BIG = "model.big = torch.nn.Parameter(torch.zeros(2_000_000))"
"""8 MB for every push and every reply, after every step: a kill meets a particle in the middle of either."""


def test_a_particle_that_is_killed_wherever_it_is_leaves_the_others_whole(tmp_path: Path) -> None:
    always = Algorithm(name=AlgorithmName.PSOPS, sync_period=1)
    moments = random.Random(1)
    with swarm_of(tmp_path, training(setup=BIG, pause=0), replicas=3, algorithm=always, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        for incarnation in range(2, 8):
            swarm.trains_on(f"particle-1-{incarnation - 1}", steps=3)
            time.sleep(moments.uniform(0, 0.1))
            particles[1].signal(signal.SIGKILL)
            particles[1] = swarm.particle(1, incarnation)
        swarm.until_loss("particle-0-1", below=0.01)
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        assert all(consecutive(swarm, name) for name in ("particle-0-1", "particle-2-1"))
        numbers = [round_["round"] for round_ in swarm.history("round")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert swarm.model().pop("big").count_nonzero() == 0


def test_particles_train_on_without_a_synchronizer_and_the_next_one_goes_on_from_them(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(), replicas=2, algorithm=LOCAL_SGD, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        names = ["particle-0-1", "particle-1-1"]
        last = [0]
        for incarnation, ending in ((2, signal.SIGKILL), (3, signal.SIGTERM)):
            all_train(swarm, 0, 1)
            swarm.until_loss(names[0], below=0.01)
            synchronizer.signal(ending)
            code = synchronizer.wait()
            last.append(swarm.history("round")[-1]["round"])
            swarm.trains_on(*names)
            if ending is signal.SIGTERM:
                assert code == 128 + signal.SIGTERM
                learned(swarm)
            synchronizer = swarm.synchronizer(incarnation)
            swarm.rounds_go_on()
            assert "center rebuilt from particles [0, 1]" in swarm.log(f"synchronizer-{incarnation}")
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0]

        assert all(consecutive(swarm, name) for name in names)
        numbers = [round_["round"] for round_ in swarm.history("round")]
        steps = [after - before for before, after in pairwise(numbers)]
        # A round whose answer died with its synchronizer is not known to anybody.
        assert set(steps) <= {0, 1}
        assert steps.count(0) <= 2
        assert 0 < last[1] < last[2] < numbers[-1]
        learned(swarm)


def test_particles_that_reach_the_end_while_there_is_no_synchronizer_give_the_next_one_their_last_steps(
    tmp_path: Path,
) -> None:
    with swarm_of(tmp_path, training(), replicas=2, algorithm=PSOPS, sync=Sync()) as swarm:
        first = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        all_train(swarm, 0, 1)
        first.signal(signal.SIGKILL)
        first.wait()
        before = len(swarm.history("round"))
        swarm.touch("end-0")
        for index in range(2):
            name = f"particle-{index}-1"
            eventually(lambda name=name: "no synchronizer" in swarm.log(name), "it misses the synchronizer")
        second = swarm.synchronizer(2)
        assert swarm.ended(second) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        trained = sum(8 * swarm.steps(f"particle-{index}-1") for index in range(2))
        assert len(swarm.history("round")) > before
        assert swarm.history("round")[-1]["samples"] == trained
        assert {line["particle"] for line in swarm.history("finished")} == {0, 1}


AT_THE_END = """
if step == 6:
    say(waits=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def test_particles_that_have_finished_wait_for_a_synchronizer_to_know_and_to_have_their_model(tmp_path: Path) -> None:
    always = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=1)
    script = training(one_pass=True, after_step=AT_THE_END)
    with swarm_of(tmp_path, script, replicas=2, algorithm=always, sync=Sync()) as swarm:
        first = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        names = ["particle-0-1", "particle-1-1"]
        eventually(lambda: all({"waits": True} in swarm.said(name) for name in names), "all their steps are merged")
        first.signal(signal.SIGKILL)
        first.wait()
        for name in names:
            eventually(lambda name=name: "no synchronizer" in swarm.log(name), "it misses the synchronizer")
        swarm.touch("go")
        time.sleep(1.0)
        assert not any("done" in swarm.log(name) for name in names)
        second = swarm.synchronizer(2)
        assert swarm.ended(second) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        assert "center rebuilt from particles [0, 1]" in swarm.log("synchronizer-2")
        assert {line["particle"] for line in swarm.history("finished")} == {0, 1}
        assert "weight" in swarm.model()


def test_a_frozen_particle_holds_nobody_up_and_goes_on_or_is_fenced_when_it_wakes(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(), replicas=3, algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        all_train(swarm, 0, 1, 2)
        particles[2].signal(signal.SIGSTOP)
        swarm.rounds_go_on(10)
        replacement = swarm.particle(2, incarnation=2)
        all_train(swarm, 2)
        particles[1].signal(signal.SIGSTOP)
        swarm.rounds_go_on(10)
        assert 1 not in swarm.contributors()

        particles[2].signal(signal.SIGCONT)
        assert particles[2].wait() == exits.FENCED
        assert "Fenced" in swarm.log("particle-2-1")
        particles[1].signal(signal.SIGCONT)
        eventually(lambda: 1 in swarm.contributors(), "the frozen one contributes again")
        swarm.until_loss("particle-1-1", below=0.01)
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in (*particles[:2], replacement)] == [0, 0, 0]
        assert consecutive(swarm, "particle-1-1")
        learned(swarm)


def test_particles_leave_a_frozen_synchronizer_and_come_back_to_it(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(), replicas=2, algorithm=LOCAL_SGD, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        names = ["particle-0-1", "particle-1-1"]
        all_train(swarm, 0, 1)
        synchronizer.signal(signal.SIGSTOP)
        for name in names:
            eventually(lambda name=name: "no synchronizer" in swarm.log(name), "it gives up waiting")
        swarm.trains_on(*names, steps=20)
        synchronizer.signal(signal.SIGCONT)
        eventually(lambda: swarm.contributors() == [0, 1], "both contribute")
        swarm.until_loss(names[0], below=0.01)
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        assert all(consecutive(swarm, name) for name in names)
        learned(swarm)


HANDLER = """
if index == 1:
    signal.signal(signal.SIGTERM, lambda *_: say(handler=True) or sys.exit(7))
"""


def test_a_particle_that_is_told_to_stop_pushes_what_it_has_says_goodbye_and_obeys(tmp_path: Path) -> None:
    rarely = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=100_000)
    sync = Sync(grace_milliseconds=100, quorum=1)
    with swarm_of(tmp_path, training(setup=HANDLER), replicas=3, algorithm=rarely, sync=sync) as swarm:
        swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        swarm.trains_on("particle-0-1", "particle-1-1", "particle-2-1")
        assert not swarm.history("round")
        for particle in particles[:2]:
            particle.signal(signal.SIGTERM)
        assert [particle.wait() for particle in particles[:2]] == [-signal.SIGTERM, 7]
        for index in (0, 1):
            name = f"particle-{index}-1"
            report = swarm.until_presence(index, Presence.DETACHED)
            said = [line for line in swarm.said(name) if "step" in line]
            # The step in which the signal came is not printed any more where the handler ends the process.
            assert report.step - len(said) in (0, 1)
            assert (report.contributions, report.samples) == (1, 8 * report.step)
        assert swarm.said("particle-1-1")[-1] == {"handler": True}
        assert sorted(line["why"] for line in swarm.history("detached")) == ["left", "left"]
        swarm.trains_on("particle-2-1")
