"""What a person sees, and how often it is written."""

import pytest

from swarm_api.report import CheckpointReport, SwarmState
from swarm_api.status import JobState, JobStatus
from swarm_operator.plan import worth_writing
from swarm_operator.plan.times import stamp, unix
from unit.plan.builders import NOON, SYNCHRONIZER, a_training_world, a_world


def said(world, kind):
    condition = world.condition(kind)
    return condition.status, condition.reason, condition.message


def test_a_job_goes_through_its_states_and_says_why_it_is_where_it_is():
    world = a_world(min_replicas=2)
    world.step()
    world.change(3, reason="Unschedulable", message="0/3 nodes have a free GPU")
    world.step()
    assert world.status.state is JobState.PENDING
    assert "particle 3 waits: Unschedulable: 0/3 nodes have a free GPU" in world.condition("Running").message

    world.run(SYNCHRONIZER, 0, 1, 2)
    world.attach(0)
    world.step()
    assert world.status.state is JobState.STARTING
    assert said(world, "Running")[:2] == ("False", "Starting")
    assert world.condition("Running").message.startswith("1 of 4 particles is there")
    assert said(world, "Degraded")[:2] == ("False", "Starting")

    world.attach(1, 2)
    world.commit(0, 1, 2)
    world.step()
    assert world.status.state is JobState.DEGRADED
    assert said(world, "Running") == ("True", "Training", "3 of 4 particles train")
    assert said(world, "Degraded") == (
        "True",
        "ParticlesMissing",
        "3 of 4 particles train; particle 3 waits: Unschedulable: 0/3 nodes have a free GPU",
    )

    world.run(3)
    world.attach(3)
    world.change(3, reason="", message="")
    world.step()
    assert world.status.state is JobState.RUNNING
    assert said(world, "Degraded") == ("False", "AllPresent", "all 4 particles train")

    for index in (0, 1, 2):
        world.end(index, 1)
    world.state = SwarmState.WAITING
    world.step()
    assert world.status.state is JobState.WAITING
    status, reason, message = said(world, "Running")
    assert (status, reason) == ("False", "BelowMinimum")
    assert message.startswith("1 of 4 particles is there and minReplicas is 2, so nothing commits")
    assert [event.reason for event in world.events if event.reason.startswith("Job")] == [
        "JobDegraded",
        "JobRunning",
        "JobWaiting",
    ]


def test_degraded_tells_of_the_failure_and_of_the_next_start():
    world = a_training_world()
    for _ in range(3):
        world.end(2, 1)
        made = world.step()
        if world.newest(2).ended_phase:
            break
        world.run(2)
        world.step()
    assert made.requeue_after < 1.2
    assert said(world, "Degraded")[2] == (
        "3 of 4 particles train; particle 2 failed with exit code 1 (third time in an hour), next start after 1 s"
    )
    waiting = world.condition("Degraded")
    world.later(0.5)
    world.step()
    assert world.condition("Degraded") == waiting, "a countdown would be written every second"


def test_while_the_synchronizer_is_away_the_job_waits_and_says_that_the_particles_go_on():
    world = a_training_world()
    world.end(SYNCHRONIZER, -9)
    world.step()
    assert world.status.state is JobState.WAITING
    status, reason, message = said(world, "Running")
    assert (status, reason) == ("False", "SynchronizerAbsent")
    assert message == (
        "the synchronizer was killed by SIGKILL and starts again; the particles train on by themselves meanwhile"
    )
    before = world.status.training
    world.run(SYNCHRONIZER)
    world.step()
    assert world.status.training == before, "an empty report is no progress"
    world.attach(0, 1, 2, 3)
    world.commit(0, 1, 2, 3)
    world.step()
    assert world.status.state is JobState.RUNNING


def test_a_transition_time_moves_only_with_the_status_and_conditions_keep_their_order():
    world = a_training_world()
    world.step()
    before = {condition.type: condition for condition in world.status.conditions}
    world.end(2, 1)
    world.step()
    after = {condition.type: condition for condition in world.status.conditions}
    assert list(before) == list(after)
    moved = {kind for kind in after if after[kind].last_transition_time != before[kind].last_transition_time}
    assert moved == {"Degraded"}
    assert after["Degraded"].last_transition_time == stamp(world.now)
    assert all(condition.reason and condition.message for condition in after.values())


def test_a_new_reason_alone_is_no_transition():
    world = a_world()
    world.step()
    pending = world.condition("Running")
    world.later(5)
    world.run(SYNCHRONIZER)
    world.step()
    starting = world.condition("Running")
    assert (pending.reason, starting.reason) == ("Pending", "Starting")
    assert starting.last_transition_time == pending.last_transition_time


def test_an_unreadable_report_is_only_a_condition():
    world = a_training_world()
    world.report_error = "connection refused"
    assert world.step().actions == ()
    assert said(world, "ReportUnavailable")[:2] == ("True", "Unreadable")
    assert "connection refused" in said(world, "ReportUnavailable")[2]
    assert world.status.state is JobState.RUNNING


def test_nobody_complains_of_a_synchronizer_that_is_still_starting():
    world = a_world()
    world.step()
    world.run(SYNCHRONIZER)
    world.epoch, world.report_error = 0, "connection refused"
    world.step()
    assert said(world, "ReportUnavailable")[0] == "False"
    world.later(31)
    world.step()
    assert said(world, "ReportUnavailable")[0] == "True"


def test_nobody_complains_of_a_synchronizer_that_leaves_after_its_work():
    world = a_training_world()
    world.state, world.report_error = SwarmState.FINISHED, "connection refused"
    world.step()
    assert said(world, "ReportUnavailable")[0] == "False"


CLAIM = {"existingClaim": "models"}


@pytest.mark.parametrize(
    ("synchronizer", "one_machine", "kept"),
    [
        ({}, False, "NoOutput"),
        ({"output": CLAIM}, False, "Kept"),
        ({"checkpoint": CLAIM}, False, "Kept"),
        ({}, True, "Kept"),
    ],
)
def test_where_nothing_would_be_left_of_the_training_a_condition_and_one_event_warn(synchronizer, one_machine, kept):
    world = a_world(synchronizer=synchronizer)
    world.keeps_all = one_machine
    for _ in range(3):
        world.step()
    status, reason, message = said(world, "NothingKept")
    assert (status, reason) == (str(kept == "NoOutput"), kept)
    warnings = [event for event in world.events if event.reason == "NothingKept"]
    assert [event.warning for event in warnings] == [True] * (kept == "NoOutput")
    if warnings:
        assert "neither synchronizer.output nor synchronizer.checkpoint is set" in message


def test_a_checkpoint_that_cannot_be_written_is_a_condition_while_it_is_so_and_one_event():
    world = a_training_world(synchronizer={"checkpoint": CLAIM})
    assert said(world, "CheckpointFailing")[0] == "False"
    for error, status in (("", "False"), ("no space left", "True"), ("no space left", "True"), ("", "False")):
        world.checkpoint = CheckpointReport(round=3, error=error)
        world.step()
        assert said(world, "CheckpointFailing")[0] == status
        assert error in said(world, "CheckpointFailing")[2]
    assert world.told("CheckpointFailing") == ["no space left; the training goes on"]
    assert world.status.state is JobState.RUNNING


def test_a_model_that_cannot_be_written_is_a_condition_and_one_event_and_leaves_the_synchronizer_alone():
    world = a_training_world(replicas=2, synchronizer={"output": CLAIM})
    for index in range(2):
        world.finish(index)
    for message in ("", "no space left", "no space left"):
        world.message = message
        assert world.step().actions == ()
        assert said(world, "OutputFailing")[0] == str(bool(message))
        world.later(1000)
    assert world.told("OutputFailing") == ["no space left; the synchronizer holds the model and tries again"]
    assert world.status.state is JobState.RUNNING
    world.spec(suspend=True)
    assert world.step().actions == (), "it is all that has the model"
    world.state, world.message = SwarmState.FINISHED, ""
    world.end(SYNCHRONIZER, 0)
    world.step()
    assert said(world, "OutputFailing")[0] == "False"
    assert world.status.state is JobState.COMPLETE


def test_a_swarm_that_waits_has_no_trouble_with_its_output():
    world = a_training_world()
    world.state, world.message = SwarmState.WAITING, "0 of at least 1 particles"
    world.step()
    assert said(world, "OutputFailing")[0] == "False"


def test_recovery_is_told_by_phase_once_the_replacement_contributes():
    world = a_training_world()
    world.end(2, 1)
    world.later(0.5)
    world.step()
    world.later(2)
    world.run(2)
    world.step()
    assert world.status.recovery.count == 1
    assert world.status.recovery.detect_seconds is None
    world.later(3)
    world.attach(2)
    world.later(4)
    world.commit(0, 1, 2, 3)
    world.step()
    recovery = world.status.recovery
    phases = (
        recovery.detect_seconds,
        recovery.schedule_seconds,
        recovery.start_seconds,
        recovery.rejoin_seconds,
    )
    assert phases == pytest.approx((0.5, 2, 3, 4))
    world.end(SYNCHRONIZER, 1)
    world.step()
    world.step()
    assert world.status.recovery == recovery.model_copy(update={"count": 2})


def test_particle_statuses_show_where_each_one_is():
    world = a_training_world()
    world.attach(0, step=500, loss=0.25, last_round=1)
    world.commit(1, 2)
    world.change(2, node="node-7")
    world.end(3, 1)
    world.step()
    particles = world.status.particle_statuses
    assert [particle.phase for particle in particles] == ["Running", "Running", "Running", "Starting"]
    assert (particles[0].step, particles[0].loss, particles[0].staleness_rounds) == (500, 0.25, 1)
    assert (particles[2].pod, particles[2].node) == ("mnist-particle-2-1", "node-7")
    assert (particles[3].failures, particles[3].last_exit_code, particles[3].last_reason) == (1, 1, "Error")
    assert world.status.training.step == 500


def test_of_many_particles_only_the_best_and_those_that_are_not_well_are_listed():
    world = a_training_world(replicas=1000)
    report = world.report().model_copy(update={"best_particle": 77})
    world.report = lambda: report
    world.step()
    assert [particle.index for particle in world.status.particle_statuses] == [77]
    world.end(500, 1)
    world.step()
    assert [particle.index for particle in world.status.particle_statuses] == [77, 500]
    for index in range(1000):
        if not world.newest(index).ended_phase:
            world.end(index, 1)
    made = world.step()
    assert len(world.status.particle_statuses) <= 128
    assert len(made.events) < 12
    assert len(made.status.model_dump_json(by_alias=True, exclude_defaults=True)) < 300_000


def test_a_healthy_swarm_of_a_thousand_fits_into_the_status():
    world = a_training_world(replicas=1000)
    world.step()
    assert len(world.status.model_dump_json(by_alias=True, exclude_defaults=True)) < 128 * 1024


def test_times_are_kept_to_the_microsecond():
    assert stamp(NOON + 0.25) == "2026-03-01T12:00:00.250000Z"
    assert unix("2026-03-01T12:00:00Z") == NOON
    for part in range(1000):
        when = NOON + part / 997
        assert unix(stamp(when)) == pytest.approx(when, rel=0, abs=2e-6)


def test_a_status_survives_being_written_down_and_read_again():
    world = a_training_world()
    world.end(2, 1)
    world.step()
    written = world.status.model_dump_json(by_alias=True, exclude_defaults=True)
    assert JobStatus.model_validate_json(written) == world.status


@pytest.mark.parametrize(
    ("change", "since", "worth"),
    [
        ("nothing", 100, False),
        ("progress", 9.9, False),
        ("progress", 10, True),
        ("structure", 0.9, False),
        ("structure", 1, True),
        ("structure", 100, True),
    ],
)
def test_status_is_written_at_once_for_what_matters_now_and_then_for_numbers(change, since, worth):
    world = a_training_world()
    world.step()
    before = world.status
    if change == "progress":
        world.attach(0, step=999, loss=0.1)
        world.commit(0, 1, 2, 3)
    elif change == "structure":
        world.end(2, 1)
    world.step()
    assert worth_writing(before, world.status, since) is worth
