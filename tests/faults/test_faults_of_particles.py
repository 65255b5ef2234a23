"""Particles that die around an exchange, freeze, lag, diverge or come in crowds: what the weights say of it."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cable import Way
from support.processes import eventually
from support.tallied import Tallied, tallied
from swarm_api.report import Presence

pytestmark = pytest.mark.faults

PART = 20_000
"""Bytes of a push or a reply: less than half of one."""


def at_a_moment_of_its_own(scene: Tallied, moment: str) -> None:
    scene.dies("particle-1", scene.particles[1], moment)


def on_the_wire(scene: Tallied, moment: str) -> None:
    way = Way.UP if moment == "during a push" else Way.DOWN
    scene.cable.cut_after(way, PART, first=lambda: scene.particles[1].signal(signal.SIGKILL))
    assert scene.particles[1].wait() == -signal.SIGKILL


def with_its_reply_on_the_way(scene: Tallied, moment: str) -> None:
    scene.merges_without_a_word()
    scene.kill(1)
    scene.cable.cut()


@pytest.mark.parametrize(
    ("moment", "kill"),
    {
        "before a push": at_a_moment_of_its_own,
        "during a push": on_the_wire,
        "after a push": at_a_moment_of_its_own,
        "before a pull": with_its_reply_on_the_way,
        "during a pull": on_the_wire,
        "after a pull": at_a_moment_of_its_own,
    }.items(),
)
def test_a_particle_is_killed_around_an_exchange(
    tmp_path: Path, moment: str, kill: Callable[[Tallied, str], None]
) -> None:
    with tallied(tmp_path) as scene:
        kill(scene, moment)
        scene.swarm.until_presence(1, Presence.DETACHED)
        scene.goes_on(0, 2)
        scene.replace(1)


def test_a_particle_is_told_to_end_and_not_a_step_of_it_is_lost(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        scene.particles[1].signal(signal.SIGTERM)
        assert scene.particles[1].wait() == -signal.SIGTERM
        drawn = sum("trains" in line for line in scene.swarm.said("particle-1-1"))
        told = scene.swarm.until_presence(1, Presence.DETACHED)
        assert told.step == drawn
        scene.replace(1)


def test_a_particle_sleeps_for_5_seconds_and_goes_on(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        scene.particles[1].signal(signal.SIGSTOP)
        asleep = time.monotonic()
        scene.goes_on(0, 2)
        awake = max(0.0, asleep + 5 - time.monotonic())
        time.sleep(awake)
        scene.particles[1].signal(signal.SIGCONT)


def test_a_particle_sleeps_for_ever_and_is_replaced(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        frozen = scene.particles[1]
        frozen.signal(signal.SIGSTOP)
        scene.goes_on(0, 2)
        scene.replace(1)
        scene.goes_on()
        assert frozen.poll() is None


def test_all_particles_are_killed_at_once(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        scene.kill(0, 1, 2)
        scene.replace(0, 1, 2)


def test_ten_particles_join_at_once(tmp_path: Path) -> None:
    with tallied(tmp_path, epochs=4) as scene:
        scene.add(10)
        scene.goes_on(0, 1, 2)
        eventually(lambda: {line["particle"] for line in scene.swarm.history("attached")} == set(range(13)), "all in")


def test_a_particle_that_is_ten_times_slower_slows_nobody_and_loses_nothing(tmp_path: Path) -> None:
    with tallied(tmp_path, epochs=4) as scene:

        def seconds() -> float:
            """That particle 0 took for its last 36 steps: in that time a slow one delivers."""
            first, *_, last = [line["at"] for line in scene.swarm.said("particle-0-1") if "at" in line][-36:]
            return float(last - first)

        scene.swarm.trains_on("particle-0-1", steps=36)
        before = seconds()
        scene.swarm.touch("particle-1 is slow")
        scene.goes_on(1)
        eventually(lambda: seconds() <= before / 0.95, "the others keep their rate")


def test_weights_that_are_no_numbers_are_trained_again_from_the_center(tmp_path: Path) -> None:
    with tallied(tmp_path) as scene:
        scene.diverged.add(1)
        scene.swarm.touch("particle-1 diverges")
        eventually(lambda: (told := scene.swarm.reported(1)) and told.refused, "the push is refused")
