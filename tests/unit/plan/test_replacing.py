"""Who is started, replaced and cleared away, and when."""

from dataclasses import replace

import pytest

from swarm_api.report import Presence
from swarm_operator.plan import plan
from swarm_operator.plan.actions import Create
from swarm_operator.plan.backoff import backoff
from swarm_operator.plan.facts import Phase, Role
from unit.plan.builders import SYNCHRONIZER, a_training_world, a_world, created, deleted


def test_a_new_job_gets_its_synchronizer_and_all_particles_at_once():
    world = a_world(replicas=3)
    assert created(world.step()) == [(SYNCHRONIZER, 1), (0, 1), (1, 1), (2, 1)]
    assert world.step().actions == ()


def test_a_lost_start_is_repeated_under_the_same_incarnation():
    world = a_world(replicas=1)
    world.remember(world.plan())
    assert created(world.step()) == [(SYNCHRONIZER, 1), (0, 1)]


def test_a_job_that_is_being_deleted_gets_nothing_new():
    world = a_world(metadata={"deletionTimestamp": "2026-03-01T12:00:00Z"})
    made = world.step()
    assert (made.actions, made.status, made.events) == ((), world.status, ())


def test_a_particle_that_trained_well_is_replaced_at_once_and_the_others_are_left_alone():
    world = a_training_world()
    world.end(2, 1)
    made = world.step()
    assert created(made) == [(2, 2)]
    assert deleted(made) == []
    assert world.attempt(2).setbacks == 0


@pytest.mark.parametrize(("setbacks", "shortest"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (7, 32), (8, 60), (99, 60)])
def test_backoff_doubles_up_to_a_minute(setbacks, shortest):
    waits = [backoff(setbacks, "uid", index, 1) for index in range(50)]
    assert all(shortest <= wait <= 1.1 * shortest for wait in waits)
    assert len(set(waits)) == (50 if shortest else 1), "those that failed together must not return together"
    assert waits == [backoff(setbacks, "uid", index, 1) for index in range(50)]


@pytest.mark.parametrize(
    ("lived", "contributes", "free"),
    [(5, True, False), (5, True, True), (600, False, False), (600, False, True), (0, False, False)],
)
def test_ends_that_come_early_or_without_a_contribution_back_off_free_or_charged(lived, contributes, free):
    world = a_training_world(policy={"maxFailuresPerParticle": 100, "windowSeconds": 604_800})
    pauses = []
    world.end(2, 1)
    for _ in range(5):
        made = world.step()
        start = world.now
        while not created(made):
            world.later(made.requeue_after)
            made = world.step()
        pauses.append(world.now - start)
        world.run(2)
        if contributes:
            world.attach(2)
            world.commit(2)
        world.step()
        world.later(lived)
        world.end(2, 1, disrupted=free)
    expected = [0, 0, 1, 2, 4]
    assert all(low <= pause <= 1.1 * low + 0.002 for low, pause in zip(expected, pauses, strict=True)), pauses


def test_one_good_life_forgets_the_setbacks():
    world = a_training_world(policy={"maxFailuresPerParticle": 10})
    for lived in (1, 1, 600):
        world.end(2, 1)
        made = world.step()
        while not created(made):
            world.later(made.requeue_after)
            made = world.step()
        world.run(2)
        world.attach(2)
        world.commit(2)
        world.step()
        world.later(lived)
    assert world.attempt(2).setbacks == 2
    world.end(2, 1)
    assert created(world.step()) == [(2, 5)]
    assert world.attempt(2).setbacks == 0


@pytest.mark.parametrize(
    ("end", "charged", "reason"),
    [
        ({"exit_code": 1}, True, "Error"),
        ({"exit_code": 137, "reason": "OOMKilled"}, True, "OOMKilled"),
        ({"exit_code": -11}, True, "Killed"),
        ({"exit_code": -9, "reason": "Evicted", "disrupted": True}, False, "Evicted"),
        ({"exit_code": -15, "disrupted": True}, False, "Disrupted"),
        ({"exit_code": -15, "deleting": True}, False, "Deleted"),
        ({"exit_code": 0, "deleting": True}, False, "Deleted"),
    ],
)
def test_only_failures_of_its_own_are_charged(end, charged, reason):
    world = a_training_world()
    world.end(2, **end)
    made = world.step()
    assert created(made) == [(2, 2)]
    assert len(world.attempt(2).failures) == charged
    assert world.attempt(2).last_reason == reason
    told = world.told("ParticleFailed") if charged else world.told("ParticleLost")
    assert len(told) == 1


def test_one_that_others_are_deleting_is_replaced_before_it_is_gone():
    world = a_training_world()
    world.change(2, deleting=True)
    assert created(world.step()) == [(2, 2)]
    world.step()
    assert world.attempt(2).failures == ()


def test_one_that_vanished_is_replaced_free():
    world = a_training_world()
    world.vanish(2)
    world.vanish(SYNCHRONIZER)
    assert created(world.step()) == [(SYNCHRONIZER, 2), (2, 2)]
    assert world.attempt(2).failures == world.attempt(SYNCHRONIZER).failures == ()


def test_next_incarnation_is_higher_than_any_that_status_report_or_backend_know():
    world = a_training_world()
    world.vanish(1)
    world.attached[1] = world.attached[1].model_copy(update={"incarnation": 7})
    world.apply(created_elsewhere(2, 4))
    world.change(2, phase=Phase.FAILED, exit_code=1, ended=world.now)
    assert created(world.step()) == [(1, 8), (2, 5)]


def created_elsewhere(index, incarnation):
    return Create(role=Role.PARTICLE, index=index, incarnation=incarnation)


def test_a_replacement_that_only_the_report_knows_is_not_replaced_again():
    world = a_training_world()
    world.end(2, 1)
    behind = world.observed()
    world.step()
    world.run(2)
    world.attach(2)
    made = plan(world.job, replace(behind, report=world.report()), world.now)
    assert made.actions == ()


def test_one_counted_as_lost_that_comes_into_sight_alive_is_ended_even_while_suspended():
    world = a_world(replicas=1)
    unseen = world.observed()
    world.step()
    world.run(SYNCHRONIZER, 0)
    world.attach(0, presence=Presence.DETACHED)
    world.spec(suspend=True)
    world.remember(plan(world.job, replace(unseen, report=world.report()), world.now))
    assert (0, 1) in deleted(world.step())


def test_one_fenced_off_by_a_newer_incarnation_is_killed_once_the_status_knows_the_newer():
    world = a_training_world()
    world.apply(created_elsewhere(2, 2))
    world.run(2)
    assert deleted(world.step()) == [(2, 1)]
    assert deleted(world.step()) == []


def test_nothing_is_ended_before_the_status_holds_its_incarnation():
    world = a_training_world()
    lost = world.status.attempts
    world.apply(created_elsewhere(2, 2))
    world.run(2)
    world.job = world.job.model_copy(update={"status": world.status.model_copy(update={"attempts": {}})})
    made = world.step()
    assert made.actions == ()
    assert made.requeue_after is not None
    assert {key: each.incarnation for key, each in world.status.attempts.items()} == {
        key: each.incarnation + (key == "2") for key, each in lost.items()
    }
    assert deleted(world.step()) == [(2, 1)]


@pytest.mark.parametrize("attached", [True, False])
def test_a_silent_particle_is_killed_charged_and_replaced(attached):
    world = a_training_world()
    presence = Presence.ATTACHED if attached else Presence.DETACHED
    world.attach(2, presence=presence, silent_seconds=59.9)
    assert world.step().actions == ()
    world.attach(2, presence=presence, silent_seconds=60.1)
    made = world.step()
    assert deleted(made) == [(2, 1)]
    assert not made.actions[0].graceful
    assert created(made) == [(2, 2)]
    assert len(world.attempt(2).failures) == 1
    assert world.attempt(2).last_reason == "Unresponsive"
    world.step()
    assert len(world.attempt(2).failures) == 1, "its end was charged once"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda world: setattr(world, "report_error", "connection refused"),
        lambda world: world.end(SYNCHRONIZER, 1),
        lambda world: world.attach(2, presence=Presence.FINISHED),
        lambda world: setattr(world, "job", world.job.model_copy(update={"metadata": other_uid(world)})),
    ],
    ids=["report is old", "synchronizer is gone", "it finished", "report of another job"],
)
def test_silence_alone_proves_nothing_where_the_report_does_not(spoil):
    world = a_training_world()
    world.attach(2, silent_seconds=1000)
    other = world.report()
    spoil(world)
    world.report = lambda: other.model_copy(update={"particles": tuple(world.attached.values())})
    assert (2, 1) not in deleted(world.step())
    assert world.attempt(2).incarnation == 1


def other_uid(world):
    return world.job.metadata.model_copy(update={"uid": "another"})


def test_two_ended_members_of_a_particle_are_kept_and_older_ones_cleared_once_the_status_knows_them():
    world = a_training_world(policy={"maxFailuresPerParticle": 100})
    cleared = []
    for incarnation in range(1, 6):
        world.end(2, 1)
        while world.newest(2).incarnation == incarnation:
            made = world.step()
            cleared += deleted(made)
            world.later(made.requeue_after)
    kept = sorted(member.incarnation for member in world.members.values() if member.index == 2 and member.ended_phase)
    assert cleared == [(2, 1), (2, 2), (2, 3)]
    assert kept == [4, 5]


def test_nothing_is_cleared_before_the_status_holds_its_incarnation():
    world = a_world(replicas=1)
    for incarnation in range(1, 5):
        world.apply(created_elsewhere(0, incarnation))
        world.end(0, 1)
    assert deleted(world.step()) == []
    made = world.step()
    assert deleted(made) == [(0, 1), (0, 2)]


def test_the_synchronizer_is_replaced_like_any_other():
    world = a_training_world()
    world.end(SYNCHRONIZER, 1)
    assert created(world.step()) == [(SYNCHRONIZER, 2)]
    world.run(SYNCHRONIZER)
    world.step()
    pauses = []
    for _ in range(2):
        world.end(SYNCHRONIZER, 1)
        made = world.step()
        pauses.append(0 if created(made) else made.requeue_after)
        if not created(made):
            world.later(made.requeue_after)
            world.step()
        world.run(SYNCHRONIZER)
        world.step()
    assert pauses[0] == 0
    assert 1 <= pauses[1] <= 1.1
    assert {world.newest(index).incarnation for index in range(4)} == {1}, "the particles were left alone"
