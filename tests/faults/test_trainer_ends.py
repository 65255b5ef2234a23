"""How particles end, and how a swarm does: what counts as finished, what fails the job, what harms nobody."""

import signal
import textwrap
from pathlib import Path

import pytest
import torch

from support.processes import eventually, swarm_of
from support.scripts import training
from swarm_api import exits
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import Presence

pytestmark = pytest.mark.faults

PSOPS = Algorithm(name=AlgorithmName.PSOPS, sync_period=3)
EVERY_STEP = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=1)

ENDINGS = """
if step == 5:
    if index == 0:
        if (leaves := os.fork()) == 0:
            sys.exit()
        reading, writing = os.pipe()
        if (killed := os.fork()) == 0:
            os.write(writing, b"!")
            time.sleep(60)
        os.read(reading, 1)  # A signal that comes while Python forks is lost.
        os.kill(killed, signal.SIGTERM)
        say(children=[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (leaves, killed)])
    if index == 1:
        sys.exit(1)
    if index == 2:
        raise ValueError("the data are gone")
    if index == 3:
        sys.exit()
    if index == 4:
        os.kill(os.getpid(), signal.SIGINT)
    if index == 5:
        over = True
        break
"""
EXITS = {
    "raise SystemExit(1)": 1,
    "exit(2)": 2,
    "quit('no data')": 1,
    "leave(3)": 3,
    "raise SystemExit(256 + 4)": 4,
    "raise SystemExit": 0,
    "raise SystemExit(None if step else 1)": 0,
    "exit()": 0,
    "leave(0)": 0,
    "over = caught()": 0,
}
"""Ways to end a script, and what the operating system sees of them."""
CAUGHT = """
from sys import exit as leave


def caught():
    for exits in (sys.exit, exit, leave):
        try:
            exits(1)
        except SystemExit as left:
            assert left.code == 1
    return True
"""
WITHOUT_EPOCHS = "particle.epochs = range"
"""The script's own loop: only its end tells that it has finished."""


def test_only_a_script_that_ends_well_is_finished(tmp_path: Path) -> None:
    script = training(attached=WITHOUT_EPOCHS, after_step=ENDINGS)
    sync = Sync(grace_milliseconds=100, quorum=1)
    with swarm_of(tmp_path, script, replicas=6, algorithm=EVERY_STEP, sync=sync) as swarm:
        swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(6)]
        assert [particle.wait() for particle in particles[1:]] == [1, 1, 0, -signal.SIGINT, 0]
        for index in (1, 2, 4):
            assert swarm.until_presence(index, Presence.DETACHED).contributions > 0
        for index in (3, 5):
            assert swarm.until_presence(index, Presence.FINISHED).contributions >= 5
        assert "the data are gone" in swarm.log("particle-2-1")
        children = eventually(lambda: [line for line in swarm.said("particle-0-1") if "children" in line], "forked")
        assert children == [{"children": [0, -signal.SIGTERM]}]
        swarm.trains_on("particle-0-1")
        swarm.rounds_go_on()
        assert swarm.until_presence(0, Presence.ATTACHED).contributions > 5


EXIT = "\n".join(f"if index == {index}:\n    {way}" for index, way in enumerate(EXITS))
AT_STEP_5 = f"if step == 5:\n{textwrap.indent(EXIT, '    ')}"


@pytest.mark.parametrize(
    "script",
    [
        training(one_pass=True, setup=CAUGHT, end=EXIT),
        training(setup=CAUGHT, attached=WITHOUT_EPOCHS, after_step=AT_STEP_5),
    ],
    ids=["after its last epoch", "in the middle"],
)
def test_only_who_exits_with_0_is_finished_however_the_script_says_it(tmp_path: Path, script: str) -> None:
    sync = Sync(grace_milliseconds=100, quorum=1)
    with swarm_of(tmp_path, script, replicas=len(EXITS), algorithm=EVERY_STEP, sync=sync) as swarm:
        swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(len(EXITS))]
        assert [particle.wait(60) for particle in particles] == list(EXITS.values())
        for index, (way, code) in enumerate(EXITS.items()):
            expected = Presence.DETACHED if code else Presence.FINISHED
            assert swarm.until_presence(index, expected).contributions > 0, way


HANDLERS = """
from swarm_trainer.exchange import Exchange
told = []
if index == 1:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
if index == 2:
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
rest = Exchange.rest


def rests(*arguments, **options):
    say(rests=True)
    rest(*arguments, **options)


Exchange.rest = rests
"""
EVALUATION = """
say(evaluates=True)
while not told:
    time.sleep(0.1)
"""
ENDED_BY_SIGTERM = [-signal.SIGTERM, 7, 0]


def test_who_has_finished_and_evaluates_obeys_sigterm_at_once(tmp_path: Path) -> None:
    script = training(one_pass=True, setup=HANDLERS, end=EVALUATION)
    with swarm_of(tmp_path, script, replicas=3, algorithm=EVERY_STEP, sync=Sync()) as swarm:
        swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        for index, particle in enumerate(particles):
            eventually(lambda name=f"particle-{index}-1": {"evaluates": True} in swarm.said(name), "it evaluates")
            swarm.until_presence(index, Presence.FINISHED)
            particle.signal(signal.SIGTERM)
        assert [particle.wait(10) for particle in particles] == ENDED_BY_SIGTERM
        for index, presence in enumerate((Presence.DETACHED, Presence.DETACHED, Presence.FINISHED)):
            swarm.until_presence(index, presence)


def test_who_waits_for_a_synchronizer_at_the_end_gives_it_up_at_sigterm(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(setup=HANDLERS), replicas=3, algorithm=EVERY_STEP, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        swarm.trains_on("particle-0-1", "particle-1-1", "particle-2-1")
        synchronizer.signal(signal.SIGKILL)
        synchronizer.wait()
        swarm.touch("end-0")
        for index, particle in enumerate(particles):
            eventually(lambda name=f"particle-{index}-1": {"rests": True} in swarm.said(name), "it rests")
            particle.signal(signal.SIGTERM)
        assert [particle.wait(10) for particle in particles] == ENDED_BY_SIGTERM


def test_without_losses_psops_fails_and_says_the_line_to_add(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(report=""), replicas=2, algorithm=PSOPS) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(2)]
        assert synchronizer.wait() == exits.TRAINING_FAILED
        assert [particle.wait() for particle in particles] == [exits.REFUSED, exits.REFUSED]
        for name in ("synchronizer-1", "particle-0-1", "particle-1-1"):
            assert "add `particle.report(loss=loss)` before optimizer.step()" in swarm.log(name)


MOMENTUM = "optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)"
ILL = """
if index == 1:
    loss = loss * math.nan  # Its weights are fine, and nobody knows how good.
if index == 2 and step == 10:
    for parameter in model.parameters():
        parameter.grad.fill_(math.nan)
"""


def test_a_particle_whose_losses_or_weights_are_no_numbers_harms_nobody_and_recovers(tmp_path: Path) -> None:
    script = training(setup=MOMENTUM, report=ILL + "\nparticle.report(loss=loss)", pause=0.005)
    with swarm_of(tmp_path, script, replicas=3, algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        eventually(lambda: (told := swarm.reported(2)) and told.refused, "the push is refused")
        contributions = swarm.reported(2).contributions
        eventually(lambda: (told := swarm.reported(2)) and told.contributions > contributions + 3, "it recovers")
        for name in ("particle-0-1", "particle-2-1"):
            swarm.until_loss(name, below=0.01)
        assert swarm.reported(2).refused == 1
        swarm.touch("end-0")
        assert swarm.ended(synchronizer) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]
        model = swarm.model()
        assert torch.allclose(model["weight"], torch.ones(1, 8), atol=0.2)
        assert all("1" not in round_["losses"] for round_ in swarm.history("round"))
