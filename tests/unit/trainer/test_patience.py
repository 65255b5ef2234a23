"""Both ends of a connection are busy for longer than a silence may last, and neither gives the other up."""

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest
from torch import nn

from swarm_trainer import connection
from swarm_trainer.synchronizer import commits, peer
from swarm_trainer.wire import messages as say
from unit.trainer.in_process import SECONDS, Particle, Synchronizer, World

WIDTH = 2_500_000
"""10 MB, more than the kernel keeps for a sender."""
RATE = 4e6
SILENCE, BEAT = 1.0, 0.1


@pytest.fixture(autouse=True)
def short_silences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENCE_SECONDS", SILENCE)
    monkeypatch.setattr(peer, "_REASSURE_SECONDS", BEAT)


def beating(particle: Particle) -> Particle:
    particle.conversation._heartbeat_seconds = BEAT
    return particle


def longest_silence(synchronizer: Synchronizer, index: int, answer: "Future[Any]") -> float:
    """As the report has it of this particle, until the answer is there."""
    silences = []
    while not answer.done():
        silences.append(synchronizer.reported(index).silent_seconds)
        time.sleep(BEAT / 2)
    return max(silences)


def test_weights_that_take_longer_than_a_silence_to_arrive_found_a_swarm_and_are_merged(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    cable = world.cable()
    cable.throttle(RATE)
    particle = beating(world.particle(0, model=nn.Linear(WIDTH, 1), cable=cable))
    began = time.monotonic()
    assert particle.attach()[0].action is say.Action.KEEP
    assert time.monotonic() - began > 2 * SILENCE
    connected = beating(particle).conversation.connection
    began, pushing = time.monotonic(), particle.pushing(1.0)
    assert longest_silence(synchronizer, 0, pushing) < SILENCE
    assert pushing.result()[0].status is say.ReplyStatus.MERGED
    assert time.monotonic() - began > 2 * SILENCE
    assert particle.conversation.connection is connected


def test_a_push_waits_for_a_merge_that_takes_longer_than_a_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = map(beating, world.particles(1))
    merging = threading.Event()
    monkeypatch.setattr(commits, "_SMALL_BYTES", 0)
    synchronizer.hub._swarm._merging.submit(merging.wait, SECONDS)
    connected, pushing = particle.conversation.connection, particle.pushing(1.0)
    threading.Timer(3 * SILENCE, merging.set).start()
    assert longest_silence(synchronizer, 0, pushing) < SILENCE
    assert pushing.result()[0].status is say.ReplyStatus.MERGED
    assert particle.conversation.connection is connected
