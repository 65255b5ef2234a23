"""A synchronizer that goes on from checkpoints: with new particles, with those that live, and when the disk is bad."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm_api.algorithm import PSOPS as PSO
from swarm_api.algorithm import Algorithm, AlgorithmName, Memory
from swarm_api.report import CheckpointReport, Presence
from swarm_api.settings import Keeping
from swarm_trainer.errors import RefusedError, SwarmError
from swarm_trainer.synchronizer.center import Version
from swarm_trainer.vectors import Tensors, X
from swarm_trainer.wire import messages as say
from unit.trainer.in_process import SECONDS, Particle, Synchronizer, World, a_model, until_attached

MERGED = say.ReplyStatus.MERGED
REMEMBERS = Algorithm(name=AlgorithmName.PSOPS, sync_period=1, psops=PSO(memory=Memory.BEST_EVER))


def rounds(synchronizer: Synchronizer, particles: list[Particle], *values: float, **fields: Any) -> None:
    """One round for each value; each is in a checkpoint before the next one begins."""
    for value in values:
        before = synchronizer.hub.report().round
        for pushing in [particle.pushing(value, **fields) for particle in particles]:
            assert pushing.result(SECONDS)[0].status is MERGED
        synchronizer.until_kept(before + 1)


def now(synchronizer: Synchronizer) -> Version:
    assert synchronizer.hub.center is not None
    return synchronizer.hub.center.now


def everything_ends(synchronizer: Synchronizer, particles: list[Particle]) -> None:
    synchronizer.stop()
    for particle in particles:
        particle.session.close()


def equal(these: Tensors, those: Tensors) -> bool:
    return these.keys() == those.keys() and all(torch.equal(tensor, those[name]) for name, tensor in these.items())


def kept(synchronizer: Synchronizer) -> CheckpointReport:
    report = synchronizer.hub.report().checkpoint
    assert report is not None
    return report


def test_when_all_are_gone_the_swarm_goes_on_where_its_last_checkpoint_is(world: World) -> None:
    first = world.synchronizer(keeps=True, replicas=2, algorithm=REMEMBERS)
    particles = world.particles(2)
    for particle, epoch in zip(particles, (3, 2), strict=True):
        particle.session.position.epoch = epoch
    rounds(first, particles, 5.0, fitness=0.5, samples=80)
    rounds(first, particles, 6.0, fitness=0.9, samples=160)
    before = now(first)
    assert before.state["best_loss"] == 0.5
    everything_ends(first, particles)

    second = world.synchronizer(keeps=True, replicas=2, algorithm=REMEMBERS)
    starting = [world.particle(index, incarnation=2) for index in range(2)]
    welcomes = [attaching.result(SECONDS) for attaching in [particle.attaching() for particle in starting]]
    after = now(second)
    assert after.round == 2
    assert equal(after.weights, before.weights)
    assert after.state["best_loss"] == 0.5
    assert torch.equal(after.state["best"], before.state["best"])  # type: ignore[arg-type]
    for welcome, tensors in welcomes:
        assert (welcome.action, welcome.round) == (say.Action.ADOPT, 2)
        assert equal(tensors, before.weights)
        assert welcome.progress.samples == 160
    assert kept(second) == CheckpointReport(round=2)
    rounds(second, starting, 7.0, fitness=0.7)
    assert (second.hub.report().round, now(second).state["best_loss"]) == (3, 0.5)


def test_particles_that_know_no_later_round_than_the_checkpoint_meet_the_very_center_again(world: World) -> None:
    first = world.synchronizer(keeps=True, replicas=2)
    particles = world.particles(2)
    rounds(first, particles, 1.0, 2.0)
    before = now(first)
    first.stop()
    second = world.synchronizer(keeps=True, replicas=2)
    until_attached(*particles)
    assert equal(now(second).weights, before.weights)
    assert now(second).round == 2
    assert second.reported(0).contributions == 2
    rounds(second, particles, 3.0)
    assert second.reported(0).contributions == 3


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "newest checkpoint damaged"])
def test_an_incarnation_that_was_replaced_stays_outside_of_the_next_synchronizer_too(
    world: World, damaged: bool
) -> None:
    first = world.synchronizer(keeps=True, replicas=1)
    (replaced,) = world.particles(1)
    rounds(first, [replaced], 1.0)
    replacement = world.particle(0, incarnation=2)
    replacement.attach()
    rounds(first, [replacement], 2.0)
    first.stop()
    if damaged:
        os.truncate(world.checkpoints / "2-1" / "center.safetensors", 40)
    second = world.synchronizer(keeps=True, replicas=1)
    with pytest.raises(RefusedError, match="incarnation 1 was replaced by 2"):
        world.particle(0).attach()  # The first to come.
    until_attached(replacement)
    assert second.reported(0).incarnation == 2
    rounds(second, [replacement], 3.0)


def test_particles_that_are_ahead_of_the_checkpoint_make_the_center_anew_and_what_is_lost_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.synchronizer(keeps=True, replicas=3, algorithm=REMEMBERS)
    particles = world.particles(3)
    rounds(first, particles, 1.0, samples=8)
    first.stop()
    second = world.synchronizer(replicas=3, algorithm=REMEMBERS)  # Keeps nothing, so that it gets ahead.
    until_attached(*particles)
    for pushing in [particle.pushing(2.0, samples=16) for particle in particles]:
        pushing.result(SECONDS)
    second.stop()
    *survivors, lost = particles
    lost.session.close()
    for particle, value in zip(survivors, (10.0, 20.0), strict=True):
        particle.weights.gather().fill_(value)
        particle.session.position.samples = 24
    third = world.synchronizer(keeps=True, replicas=3, algorithm=REMEMBERS)
    until_attached(*survivors)
    assert now(third).round == 2
    assert now(third).weights[X].unique().tolist() == [0.0, 15.0]  # What is between the weights stays 0.
    assert "lost with the last synchronizer: the best weights ever and their loss" in caplog.text
    # The survivors speak for themselves; of the third one the checkpoint is all that is known.
    assert third.hub.report().round == 2
    assert [third.reported(index).samples for index in range(3)] == [24, 24, 8]
    assert third.reported(2).presence is Presence.DETACHED


@pytest.mark.parametrize("damage", ["center.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_holds(
    world: World, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = world.synchronizer(keeps=True, replicas=1)
    particles = world.particles(1)
    rounds(first, particles, 1.0, 2.0, samples=8)
    everything_ends(first, particles)
    os.truncate(world.checkpoints / "2-1" / damage, 40)
    second = world.synchronizer(keeps=True, replicas=1)
    welcome, tensors = world.particle(0, incarnation=2).attach()
    assert (welcome.round, welcome.progress.samples) == (1, 8)
    assert tensors[X].unique().tolist() == [1.0]
    assert f"checkpoint 2-1 is passed over: {world.checkpoints / '2-1' / damage}" in caplog.text
    assert kept(second).round == 1


def test_the_newest_few_are_kept(world: World) -> None:
    synchronizer = world.synchronizer(keeps=True, replicas=1, checkpoint=Keeping(interval_seconds=0, keep=2))
    rounds(synchronizer, world.particles(1), 1.0, 2.0, 3.0)
    assert sorted(path.name for path in world.checkpoints.iterdir()) == ["2-1", "3-1", "EPOCH"]


def test_checkpoints_are_not_more_often_than_asked_for_and_the_last_round_is_kept_at_the_end(world: World) -> None:
    synchronizer = world.synchronizer(keeps=True, replicas=1, checkpoint=Keeping(interval_seconds=3600))
    (particle,) = world.particles(1)
    for value in (1.0, 2.0, 3.0):
        particle.push(value)
    assert [path.name for path in world.checkpoints.iterdir()] == ["EPOCH"]
    for _ in range(2):
        synchronizer.loop.call_soon_threadsafe(synchronizer.hub.keep)
        synchronizer.until_kept(3)
    assert sorted(path.name for path in world.checkpoints.iterdir()) == ["3-1", "EPOCH"]


def test_a_disk_that_fails_is_told_and_stops_nobody_and_when_it_is_well_again_nothing_is_told(world: World) -> None:
    world.checkpoints.touch()  # A file where the folder should be.
    synchronizer = world.synchronizer(keeps=True, replicas=1)
    assert kept(synchronizer).error == f"checkpoints cannot be written to {world.checkpoints}: Not a directory"
    (particle,) = world.particles(1)
    for value in (1.0, 2.0, 3.0):
        assert particle.push(value)[0].status is MERGED
    assert kept(synchronizer).error
    world.checkpoints.unlink()
    synchronizer.until(lambda: particle.push(4.0) and not kept(synchronizer).error, "written again")
    assert kept(synchronizer).round > 3


def test_a_synchronizer_that_was_replaced_writes_no_checkpoint_any_more_and_says_so(world: World) -> None:
    stale = world.synchronizer(keeps=True, replicas=1)
    (particle,) = particles = world.particles(1)
    rounds(stale, particles, 1.0)
    world.store(epoch=2).claim()
    stale.until(lambda: particle.push(2.0) and kept(stale).error, "fenced")
    assert kept(stale).error.endswith("belongs to synchronizer 2 now: synchronizer 1 writes no checkpoints any more")
    for value in (3.0, 4.0):
        assert particle.push(value)[0].status is MERGED
    assert sorted(path.name for path in world.checkpoints.iterdir() if path.is_dir()) == ["1-1"]


def test_another_algorithm_goes_on_from_the_weights_of_the_checkpoint(world: World) -> None:
    first = world.synchronizer(keeps=True, replicas=1, algorithm=REMEMBERS)
    particles = world.particles(1)
    rounds(first, particles, 1.0)
    everything_ends(first, particles)
    second = world.synchronizer(keeps=True, replicas=1)
    particle = world.particle(0, incarnation=2)
    assert particle.attach()[1][X].unique().tolist() == [1.0]
    assert now(second).state.keys() == {X}
    rounds(second, [particle], 2.0)


def test_a_script_with_another_model_than_the_checkpoints_is_refused(world: World) -> None:
    first = world.synchronizer(keeps=True, replicas=1)
    particles = world.particles(1)
    rounds(first, particles, 1.0)
    everything_ends(first, particles)
    world.synchronizer(keeps=True, replicas=1)
    with pytest.raises(
        RefusedError, match=r"another model than the swarm's: its '0.weight' has shape .*; start a new job, or"
    ):
        world.particle(0, incarnation=2, model=a_model(width=5)).attach()


def test_when_everyone_had_finished_the_checkpoint_is_all_that_is_needed(world: World) -> None:
    first = world.synchronizer(keeps=True, replicas=1)
    (particle,) = particles = world.particles(1)
    rounds(first, particles, 1.0)
    particle.session.tell(say.Goodbye(finished=True, progress=say.Progress(fraction=1.0)), timeout=SECONDS)
    first.until_presence(0, Presence.FINISHED)
    everything_ends(first, particles)
    second = world.synchronizer(keeps=True, replicas=1, finished=(0,))
    second.ended.result(SECONDS)
    assert second.center()[X].unique().tolist() == [1.0]


def test_when_everyone_had_finished_and_nothing_was_kept_the_job_fails(world: World, tmp_path: Path) -> None:
    synchronizer = world.synchronizer(keeps=True, replicas=2, finished=(0,), given_up=(1,))
    with pytest.raises(SwarmError, match=r"has the model any more: set spec\.synchronizer\.checkpoint"):
        synchronizer.ended.result(SECONDS)
