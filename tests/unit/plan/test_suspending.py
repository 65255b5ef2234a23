"""What the user switches while the job runs: suspend, and the number of replicas."""

from swarm_api.report import Presence, SwarmState
from swarm_api.status import JobState
from unit.plan.builders import SYNCHRONIZER, a_training_world, a_world, created, deleted


def suspend(world):
    world.spec(suspend=True)
    for _ in range(6):
        world.step()
        world.stop_all()
    assert world.step().actions == ()
    assert world.status.state is JobState.SUSPENDED


def test_suspend_stops_the_particles_and_then_the_synchronizer():
    world = a_training_world()
    world.spec(suspend=True)
    made = world.step()
    assert deleted(made) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert all(action.graceful for action in made.actions)
    assert world.condition("Suspended").reason == "Suspending"
    assert world.status.state is JobState.RUNNING
    assert world.step().actions == ()
    world.stop_all()
    assert deleted(world.step()) == [(SYNCHRONIZER, 1)]
    world.stop_all()
    assert world.step().actions == ()
    assert world.status.state is JobState.SUSPENDED
    assert world.condition("Suspended").status == "True"
    assert "from the beginning" in world.condition("Suspended").message
    assert len(world.told("JobSuspended")) == 1
    assert world.told("ParticleFailed") == world.told("ParticleLost") == []


def test_resume_starts_new_incarnations_at_once_and_holds_nothing_against_them():
    world = a_training_world(policy={"maxFailuresPerParticle": 0})
    world.end(1, 1)
    world.finish(2)
    world.step()
    assert world.attempt(1).quarantined
    suspend(world)
    world.spec(suspend=False)
    made = world.step()
    assert created(made) == [(SYNCHRONIZER, 2), (0, 2), (1, 2), (2, 2), (3, 2)]
    assert not any(attempt.failures or attempt.setbacks for attempt in world.status.attempts.values())
    assert not world.attempt(1).quarantined
    assert not world.attempt(2).finished
    assert world.status.training.round == 0
    assert world.status.state is JobState.PENDING
    assert world.step().actions == ()
    assert world.status.training.round == 0, "the report of the last life says nothing of this one"
    assert len(world.told("JobResumed")) == 1
    assert world.status.recovery.count == 0


def test_with_checkpoints_a_resumed_job_is_where_it_was_and_says_so():
    world = a_training_world(synchronizer={"checkpoint": {"existingClaim": "models"}})
    world.commit(0, 1)
    world.step()
    suspend(world)
    assert "resuming goes on from the last checkpoint" in world.condition("Suspended").message
    world.spec(suspend=False)
    made = world.step()
    assert created(made) == [(SYNCHRONIZER, 2), (0, 2), (1, 2), (2, 2), (3, 2)]
    assert world.status.training.round == 2
    assert world.told("JobResumed") == ["training goes on from the last checkpoint"]


def test_a_resume_with_a_broken_script_is_judged_like_a_new_start():
    world = a_training_world(replicas=1)
    suspend(world)
    world.spec(suspend=False)
    world.step()
    world.run(SYNCHRONIZER, 0)
    for _ in range(2):
        world.step()
        world.end(0, 1)
        world.step()
        if not world.status.state.ended:
            world.run(0)
    assert world.condition("Failed").reason == "NeverAttached"


def resumed_without_a_status(world):
    """The operator ended between its first starts after a suspension and the write of the status."""
    world.spec(suspend=True)
    world.end(SYNCHRONIZER, -9)
    suspend(world)
    world.spec(suspend=False)
    for action in world.plan().actions:
        world.apply(action)
    world.spec(suspend=True)
    return world


def test_what_started_before_the_status_was_lost_can_be_suspended_again():
    world = a_training_world(replicas=1)
    world.finish(0)
    world.step()
    suspend(resumed_without_a_status(world))
    assert all(member.ended_phase for member in world.members.values())


def test_what_started_before_the_status_was_lost_is_no_longer_given_up():
    world = a_training_world(replicas=2, policy={"maxFailuresPerParticle": 0})
    world.end(1, 1)
    world.step()
    resumed_without_a_status(world).step()
    world.spec(suspend=False)
    world.step()
    assert world.status.particles.quarantined == 0
    assert world.attempt(1).failures == ()


def test_a_job_may_be_born_suspended():
    world = a_world(suspend=True)
    assert world.step().actions == ()
    assert (world.status.state, world.status.start_time) == (JobState.SUSPENDED, None)
    world.spec(suspend=False)
    assert len(created(world.step())) == 5
    assert world.told("JobResumed") == ["training starts"]


def test_a_suspension_taken_back_in_time_replaces_only_those_that_had_to_stop():
    world = a_training_world()
    world.spec(suspend=True)
    world.step()
    world.spec(suspend=False)
    assert created(world.step()) == [], "those that stop still hold their places"
    world.stop_all()
    assert created(world.step()) == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert world.newest(SYNCHRONIZER).incarnation == 1
    assert all(attempt.setbacks == 0 for attempt in world.status.attempts.values())


def test_a_successor_does_not_wait_for_ever_for_one_that_will_not_stop():
    world = a_training_world()
    world.spec(suspend=True)
    world.step()
    world.spec(suspend=False)
    made = world.step()
    assert 59 < made.requeue_after <= 60
    world.later(60)
    assert created(world.step()) == [(0, 2), (1, 2), (2, 2), (3, 2)]


def test_a_suspension_lets_the_model_be_written_when_that_is_all_that_is_left():
    world = a_training_world(replicas=2)
    world.finish(0)
    world.finish(1)
    world.step()
    world.spec(suspend=True)
    assert world.step().actions == ()
    world.state = SwarmState.FINISHED
    world.end(SYNCHRONIZER, 0)
    world.step()
    assert world.status.state is JobState.COMPLETE


def test_scaling_down_stops_the_highest_indices_and_scaling_up_starts_them_again():
    world = a_training_world()
    world.spec(particles={"replicas": 2})
    made = world.step()
    assert deleted(made) == [(2, 1), (3, 1)]
    assert all(action.graceful for action in made.actions)
    world.stop_all()
    assert created(world.step()) == []
    assert world.status.state is JobState.RUNNING
    assert world.status.particles.desired == len(world.status.particle_statuses) == 2
    world.spec(particles={"replicas": 5})
    assert created(world.step()) == [(2, 2), (3, 2), (4, 1)]
    assert world.attempt(2).setbacks == 0
    assert world.attempt(2).failures == ()


def test_a_start_after_scaling_up_is_no_recovery_of_what_failed_before():
    world = a_training_world()
    world.end(3, 1)
    world.step()
    world.run(3)
    world.step()
    world.spec(particles={"replicas": 3})
    world.step()
    world.stop_all()
    world.spec(particles={"replicas": 4})
    world.step()
    world.run(3)
    world.attach(3)
    world.commit(3)
    world.step()
    assert world.status.recovery.count == 1
    assert world.status.recovery.rejoin_seconds is None


def test_one_that_comes_into_sight_after_the_suspension_stops_too():
    world = a_world(replicas=1)
    hidden = world.plan()
    world.remember(hidden)
    world.spec(suspend=True)
    world.step()
    assert world.status.state is JobState.SUSPENDED
    for action in hidden.actions:
        world.apply(action)
    made = world.step()
    assert made.actions == ()
    assert made.requeue_after is not None
    assert deleted(world.step()) == [(0, 1)]
    world.attach(0, presence=Presence.DETACHED)
    suspend(world)
