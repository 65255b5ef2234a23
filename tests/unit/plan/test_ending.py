"""When a particle is done, and when the job is."""

import pytest

from swarm_api.report import Presence, SwarmState
from swarm_api.status import JobState
from swarm_operator.plan.actions import Delete
from swarm_operator.plan.ends import PATIENCE_SECONDS, SETTLE_SECONDS
from swarm_operator.plan.steps import FAREWELL
from unit.plan.builders import SYNCHRONIZER, a_training_world, created, deleted


def test_a_finished_particle_is_present_for_good_and_never_started_again():
    world = a_training_world()
    world.finish(1)
    world.step()
    assert world.attempt(1).finished
    assert world.status.particles.ready == 4
    assert world.status.state is JobState.RUNNING
    world.attached.clear()
    world.vanish(1)
    world.later(10_000)
    assert created(world.step()) == []
    assert world.status.particle_statuses[1].phase == "Finished"


def test_a_particle_that_finished_is_present_while_its_process_still_has_something_to_do():
    world = a_training_world(replicas=2)
    world.step()
    world.attach(1, presence=Presence.FINISHED)
    world.step()
    assert not world.attempt(1).finished
    assert world.status.state is JobState.RUNNING
    assert world.status.particle_statuses[1].phase == "Finished"
    assert world.condition("Running").message == "1 of 2 particles trains and 1 has finished"


def test_finished_in_the_report_is_not_enough_without_exit_0():
    world = a_training_world()
    world.attach(1, presence=Presence.FINISHED)
    world.end(1, 1)
    assert created(world.step()) == [(1, 2)]


@pytest.mark.parametrize(("readable", "patience"), [(True, SETTLE_SECONDS), (False, PATIENCE_SECONDS)])
def test_exit_0_waits_for_the_report_to_say_finished(readable, patience):
    world = a_training_world()
    world.end(1, 0)
    world.report_error = "" if readable else "timed out"
    made = world.step()
    assert created(made) == []
    assert made.requeue_after == pytest.approx(patience)
    assert world.status.particle_statuses[1].phase == "Exited"
    world.later(patience - 0.1)
    world.attach(1, presence=Presence.FINISHED)
    world.report_error = ""
    world.step()
    assert world.attempt(1).finished


@pytest.mark.parametrize(("readable", "patience"), [(True, SETTLE_SECONDS), (False, PATIENCE_SECONDS)])
def test_exit_0_before_the_swarm_finished_is_a_failure(readable, patience):
    world = a_training_world()
    world.end(1, 0)
    world.report_error = "" if readable else "timed out"
    world.step()
    world.later(patience)
    assert created(world.step()) == [(1, 2)]
    assert world.attempt(1).last_reason == "ExitedEarly"
    assert len(world.attempt(1).failures) == 1
    assert world.told("ParticleFailed") == ["particle 1 ended before the swarm finished (exit code 0)"]


@pytest.mark.parametrize("report", ["finished", "not read in time"])
def test_a_job_is_complete_when_its_synchronizer_exits_0(report):
    world = a_training_world()
    for index in (0, 1, 2):
        world.finish(index)
    world.step()
    world.attach(3, presence=Presence.FINISHED)
    if report == "finished":
        world.state = SwarmState.FINISHED
    else:
        world.report_error = "connection refused"
    world.end(SYNCHRONIZER, 0)
    made = world.step()
    assert world.status.state is JobState.COMPLETE
    assert world.condition("Complete").status == "True"
    assert world.status.completion_time == "2026-03-01T12:02:00.000000Z"
    assert world.status.particles.ready == 4
    assert {particle.phase for particle in world.status.particle_statuses} == {"Finished"}
    assert len(world.told("JobComplete")) == 1
    assert (made.actions, made.requeue_after) == ((), FAREWELL)


def test_whoever_still_runs_at_completion_may_end_by_itself_and_is_told_to_after_a_while():
    world = a_training_world(replicas=2)
    for index in (0, 1):
        world.attach(index, presence=Presence.FINISHED)
    world.end(SYNCHRONIZER, 0)
    world.step()
    world.end(0, 0)
    world.later(FAREWELL - 1)
    made = world.step()
    assert (made.actions, made.requeue_after) == ((), pytest.approx(1.0))
    world.later(1)
    made = world.step()
    assert deleted(made) == [(1, 1)]
    assert made.requeue_after is None
    assert all(action.graceful for action in made.actions)
    assert world.step().actions == ()


@pytest.mark.parametrize("field", ["deleting", "disrupted"])
def test_a_synchronizer_that_was_told_to_stop_has_written_nothing_unless_it_said_so(field):
    world = a_training_world()
    world.end(SYNCHRONIZER, 0, **{field: True})
    assert created(world.step()) == [(SYNCHRONIZER, 2)]
    world = a_training_world()
    world.state = SwarmState.FINISHED
    world.end(SYNCHRONIZER, 0, **{field: True})
    world.step()
    assert world.status.state is JobState.COMPLETE


def a_world_whose_synchronizer_dies_after_every_particle_has_gone(**spec):
    world = a_training_world(replicas=2, **spec)
    world.finish(0)
    world.finish(1)
    world.step()
    world.end(SYNCHRONIZER, -9)
    return world


def test_without_a_checkpoint_the_model_is_lost_when_the_synchronizer_dies_after_every_particle_has_gone():
    world = a_world_whose_synchronizer_dies_after_every_particle_has_gone()
    world.step()
    assert world.condition("Failed").reason == "ModelLost"


def test_with_a_checkpoint_another_synchronizer_ends_the_job():
    claim = {"existingClaim": "models"}
    world = a_world_whose_synchronizer_dies_after_every_particle_has_gone(synchronizer={"checkpoint": claim})
    assert created(world.step()) == [(SYNCHRONIZER, 2)]
    world.run(SYNCHRONIZER)
    world.state = SwarmState.FINISHED
    world.end(SYNCHRONIZER, 0)
    world.step()
    assert world.status.state is JobState.COMPLETE
    assert world.condition("Complete").message == "the swarm finished; no output is set, so no model was written"


def test_the_model_is_said_to_be_written_where_there_is_a_place_for_it():
    world = a_training_world(replicas=1, synchronizer={"output": {"existingClaim": "models"}})
    world.finish(0)
    world.state = SwarmState.FINISHED
    world.end(SYNCHRONIZER, 0)
    world.step()
    complete = world.condition("Complete")
    assert (complete.reason, complete.message) == ("ModelWritten", "the swarm finished; the model is written")


@pytest.mark.parametrize("code", [0, 3])
def test_an_ended_job_plans_nothing_more_but_ends_what_shows_up_late(code):
    world = a_training_world(replicas=2)
    world.end(0, 1)
    late = world.plan().actions
    world.end(SYNCHRONIZER, code)
    world.step()
    status = world.status
    assert status.state.ended
    world.later(1000)
    world.step()
    world.stop_all()
    assert world.step().actions == ()
    world.apply(late[0])
    world.end(1, 1)
    made = world.step()
    assert [(type(action), action.index) for action in made.actions] == [(Delete, 0)]
    assert (made.status, made.events, made.requeue_after) == (status, (), None)
