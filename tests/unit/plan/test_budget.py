"""How often a particle may fail, and what follows."""

import pytest

from swarm_api.report import SwarmState
from swarm_api.status import JobState
from unit.plan.builders import SYNCHRONIZER, a_training_world, a_world, created, deleted


def fail(world, who, times=1, *, after=0.0, **end):
    """It fails, is replaced and runs again; `after` seconds lie before each failure."""
    for _ in range(times):
        world.later(after)
        world.end(who, end.get("exit_code", 1), message=end.get("message", "boom"), disrupted=end.get("free", False))
        made = world.step()
        while world.newest(who).ended_phase and made.requeue_after is not None and not world.status.state.ended:
            if world.status.attempts[str(who)].quarantined:
                break
            world.later(made.requeue_after)
            made = world.step()
        if not world.newest(who).ended_phase:
            world.run(who)
            world.step()


def test_a_particle_over_its_budget_is_given_up_and_the_swarm_goes_on():
    world = a_training_world()
    fail(world, 2, 3)
    assert not world.attempt(2).quarantined
    fail(world, 2, message="Traceback\nValueError: no such file")
    assert world.attempt(2).quarantined
    assert world.newest(2).incarnation == 4
    assert world.status.particles.quarantined == 1
    assert world.status.state is JobState.DEGRADED
    assert world.condition("Degraded").reason == "ParticleQuarantined"
    for told in (world.condition("Degraded").message, *world.told("ParticleQuarantined")):
        assert "exit code 1" in told
        assert told.endswith("ValueError: no such file")
    world.later(10_000)
    assert created(world.step()) == []
    assert len(world.told("ParticleQuarantined")) == 1


def test_failures_older_than_the_window_are_forgotten():
    world = a_training_world(policy={"maxFailuresPerParticle": 2, "windowSeconds": 600})
    fail(world, 2, 6, after=301)
    assert not world.attempt(2).quarantined
    assert len(world.attempt(2).failures) == 2
    fail(world, 2)
    assert world.attempt(2).quarantined


def test_free_ends_are_never_charged_however_many():
    world = a_training_world(policy={"maxFailuresPerParticle": 0})
    fail(world, 2, 6, free=True)
    assert world.attempt(2).failures == ()
    assert world.newest(2).incarnation == 7


def test_no_failure_is_allowed_where_the_budget_is_zero():
    world = a_training_world(policy={"maxFailuresPerParticle": 0})
    fail(world, 2)
    assert world.attempt(2).quarantined


def test_the_job_fails_when_fewer_than_min_replicas_are_possible_and_nothing_lives_on():
    world = a_training_world(min_replicas=3, policy={"maxFailuresPerParticle": 1})
    fail(world, 0, 2)
    assert not world.status.state.ended
    world.end(1, 1)
    world.step()
    world.run(1)
    world.step()
    world.end(1, 7, message="CUDA error")
    made = world.step()
    failed = world.condition("Failed")
    assert (world.status.state, failed.status, failed.reason) == (JobState.FAILED, "True", "TooManyFailures")
    assert "exit code 7" in failed.message
    assert failed.message.endswith("CUDA error")
    assert set(deleted(made)) == {(2, 1), (3, 1), (SYNCHRONIZER, 1)}
    assert world.told("JobFailed") == [failed.message]


def test_a_finished_particle_still_counts_as_possible():
    world = a_training_world(replicas=2, min_replicas=1, policy={"maxFailuresPerParticle": 0})
    world.finish(0)
    world.step()
    fail(world, 1)
    assert not world.status.state.ended


def test_a_script_that_never_attaches_fails_the_job_after_two_failures_of_each_particle():
    world = a_world(replicas=2)
    world.step()
    world.run(SYNCHRONIZER, 0, 1)
    world.step()
    fail(world, 0, 2)
    fail(world, 1)
    assert not world.status.state.ended
    fail(world, 1, exit_code=2, message="ModuleNotFoundError: swarm_trainer")
    failed = world.condition("Failed")
    assert (failed.status, failed.reason) == ("True", "NeverAttached")
    assert "exit code 2" in failed.message
    assert failed.message.endswith("ModuleNotFoundError: swarm_trainer")


@pytest.mark.parametrize("why", ["attached once", "no report"])
def test_nobody_says_never_attached_without_knowing(why):
    world = a_world(replicas=2)
    world.step()
    world.run(SYNCHRONIZER, 0, 1)
    if why == "attached once":
        world.attach(0)
    else:
        world.epoch = 0
    world.step()
    world.attached.clear()
    fail(world, 0, 2)
    fail(world, 1, 2)
    assert not world.status.state.ended


def test_a_synchronizer_over_the_budget_fails_the_job():
    world = a_training_world()
    fail(world, SYNCHRONIZER, 4, message="out of memory")
    failed = world.condition("Failed")
    assert (world.status.state, failed.reason) == (JobState.FAILED, "SynchronizerFailed")
    assert failed.message.endswith("out of memory")


@pytest.mark.parametrize("way", ["report", "exit code", "both"])
def test_the_job_fails_when_the_synchronizer_says_that_training_cannot_go_on(way):
    world = a_training_world()
    if way != "exit code":
        world.state, world.message = SwarmState.FAILED, "no particle reports a loss: call particle.report"
    if way != "report":
        world.end(SYNCHRONIZER, 3, message="no particle reports a loss: call particle.report")
    made = world.step()
    failed = world.condition("Failed")
    assert (failed.status, failed.reason) == ("True", "TrainingFailed")
    assert failed.message == "no particle reports a loss: call particle.report"
    assert created(made) == []
