"""Status and scale as controllers, kubectl and autoscalers use them."""

import pytest

from apiserver.manifests import a_job
from swarm_api.status import Attempt, Condition, JobState, JobStatus, ParticleCounts, ParticleStatus, Recovery, Training

NOW = "2026-03-01T12:00:00.250000Z"
STATUS = JobStatus(
    observed_generation=1,
    start_time=NOW,
    completion_time=NOW,
    state=JobState.RUNNING,
    conditions=(
        Condition(type="Running", status="True", reason="Training", message="all train", last_transition_time=NOW),
        Condition(type="Degraded", status="False", reason="AllPresent", message="...", last_transition_time=NOW),
    ),
    particles=ParticleCounts(desired=4, running=4, ready=3, quarantined=1),
    selector="swarm.training/job-name=kept,swarm.training/role=particle",
    particle_statuses=(
        ParticleStatus(
            index=3,
            incarnation=2,
            pod="kept-particle-3-2",
            node="n",
            phase="Running",
            failures=1,
            last_exit_code=-9,
            last_reason="OOMKilled",
            step=120,
            staleness_rounds=1,
            loss=0.04325139,
            is_best=True,
        ),
    ),
    training=Training(
        round=12,
        step=120,
        samples_seen=2**40,
        best_loss=0.04325139895081520,
        best_particle=3,
        progress_percent=40,
        samples_per_second=12345.678,
        last_sync_time=NOW,
        algorithm_generation=1,
    ),
    recovery=Recovery(count=5, detect_seconds=0.1, schedule_seconds=0.2, start_seconds=0.3, rejoin_seconds=0.4),
    attempts={
        "3": Attempt(
            incarnation=2,
            contributed=True,
            failures=(NOW,),
            setbacks=1,
            ended_at=NOW,
            detect_seconds=0.5,
            finished=True,
            quarantined=True,
            last_exit_code=-9,
            last_reason="OOMKilled",
        ),
        "synchronizer": Attempt(incarnation=1),
    },
    attached=True,
)
"""With a value in every field."""
WRITTEN = STATUS.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_every_field_of_a_status_is_kept_and_a_strangers_is_not(jobs, job):
    status = {**WRITTEN, "strange": 1, "training": {**WRITTEN["training"], "stranger": 1}}
    written, complaint = jobs.change("kept", {"status": status}, "status")
    assert not complaint
    assert written["status"] == WRITTEN
    assert JobStatus.model_validate(written["status"]) == STATUS


def test_a_status_is_changed_only_as_such(jobs, job):
    changed, _ = jobs.change("kept", {"status": WRITTEN, "spec": {"suspend": True}})
    assert "status" not in changed
    written, _ = jobs.change("kept", {"status": WRITTEN, "spec": {"suspend": False}}, "status")
    assert written["spec"]["suspend"]
    assert written["metadata"]["generation"] == changed["metadata"]["generation"] == 2


def test_nothing_is_added_to_a_status(jobs, job):
    written, _ = jobs.change("kept", {"status": {"state": "Pending", "training": {"round": 1}}}, "status")
    assert written["status"] == {"state": "Pending", "training": {"round": 1}}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"state": "Odd"}, "status.state: Unsupported value"),
        ({"conditions": 2 * WRITTEN["conditions"]}, "status.conditions[2]: Duplicate value"),
        ({"conditions": [{"type": "Running"}]}, "status.conditions[0].message: Required value"),
        ({"startTime": "noon"}, "status.startTime"),
    ],
)
def test_a_wrong_status_is_refused(jobs, job, status, message):
    _, complaint = jobs.change("kept", {"status": status}, "status")
    assert message in complaint


@pytest.mark.parametrize("job", [{"spec.particles": {**a_job()["spec"]["particles"], "maxReplicas": 4}}], indirect=True)
def test_a_job_is_scaled_within_its_bounds(jobs, job):
    jobs.change("kept", {"status": WRITTEN}, "status")
    scale = jobs.get("kept", "scale")
    assert scale["spec"]["replicas"] == 2
    assert scale["status"] == {"replicas": 4, "selector": STATUS.selector}
    scaled, complaint = jobs.change("kept", {"spec": {"replicas": 4}}, "scale")
    assert not complaint
    assert scaled["spec"]["replicas"] == jobs.get("kept")["spec"]["particles"]["replicas"] == 4
    _, complaint = jobs.change("kept", {"spec": {"replicas": 5}}, "scale")
    assert "replicas must be at most maxReplicas: lower replicas or raise maxReplicas" in complaint


def test_kubectl_shows_how_a_job_is_at_a_glance(jobs, job, server):
    jobs.change("kept", {"status": WRITTEN}, "status")
    titles, row = server.kubectl("get", "stj").splitlines()
    assert titles.split() == ["NAME", "STATE", "ALGORITHM", "PARTICLES", "ROUND", "BEST-LOSS", "AGE"]
    assert row.split()[:-1] == ["kept", "Running", "PSOPS", "3/4", "12", "0.0432514"]
    titles, row = server.kubectl("get", "swarm", "--output=wide").splitlines()
    assert titles.split()[6:-1] == ["RESTARTS", "STEP", "BEST-PARTICLE"]
    assert row.split()[6:-1] == ["5", "120", "3"]


def test_kubectl_explains_a_field(server):
    told = server.kubectl("explain", "stj.spec.sync.quorum")
    assert "Members that must have delivered before a round may close" in told
