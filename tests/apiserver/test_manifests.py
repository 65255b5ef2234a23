"""What a real API server accepts and refuses, and what it fills in."""

import pytest

from apiserver.manifests import ACCEPTED, POD, REJECTED, TEMPLATE, a_job, a_pod
from swarm_api.algorithm import Algorithm
from swarm_api.job import SwarmTrainingJob


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_and_filled_in_as_the_models_do(jobs, changes):
    manifest = a_job(changes)
    stored, complaint = jobs.create(manifest, dry_run=True)
    assert not complaint
    ours = SwarmTrainingJob.model_validate(manifest).spec
    assert SwarmTrainingJob.model_validate(stored).spec == ours
    filled_in = {key: value for key, value in stored["spec"].items() if key not in ("particles", "synchronizer")}
    assert filled_in == ours.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"particles", "synchronizer"}
    )
    assert stored["spec"]["particles"]["template"] == manifest["spec"]["particles"]["template"]


@pytest.mark.parametrize("member", Algorithm.members.values())
def test_settings_of_every_algorithm_are_filled_in_as_the_models_do(jobs, member):
    name = next(name for name, found in Algorithm.members.items() if found == member)
    manifest = a_job({"spec.algorithm": {"name": name, member: {}}})
    stored, complaint = jobs.create(manifest, dry_run=True)
    assert not complaint
    ours = SwarmTrainingJob.model_validate(manifest).spec.algorithm
    assert stored["spec"]["algorithm"] == ours.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(("changes", "message"), REJECTED.values(), ids=REJECTED)
def test_refused(jobs, changes, message):
    _, complaint = jobs.create(a_job(changes), dry_run=True)
    assert message in complaint


def test_all_that_is_wrong_is_said_at_once(jobs):
    changes = {"spec.particles.minReplicas": 9, f"{POD}.hostname": "h", "spec.algorithm.easgd": {}}
    _, complaint = jobs.create(a_job(changes), dry_run=True)
    for field in ("particles.replicas", "particles.template.spec.hostname", "algorithm.easgd"):
        assert f"spec.{field}: Invalid value" in complaint


REPLACED = {
    "particles.template": {TEMPLATE: {"spec": a_pod(nodeSelector={"gpu": "h100"})}},
    "synchronizer.template": {"spec.synchronizer.template": {"spec": a_pod()}},
}
ELSEWHERE = {"spec.synchronizer.output": {"existingClaim": "elsewhere"}}
KEPT = {"spec.synchronizer.checkpoint": {"existingClaim": "elsewhere", "path": "deep"}}


def merged(changes):
    """Only what changes, as a merge patch."""
    before, after = a_job()["spec"], a_job(changes)["spec"]
    return {"spec": {key: value for key, value in after.items() if value != before.get(key)}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec.seed": 1}, "seed cannot be changed: delete the job and make a new one"),
        ({"spec.sync.link": "Gloo"}, "link cannot be changed"),
        (ELSEWHERE, "output cannot be set or removed later"),
        (KEPT, "checkpoint cannot be set or removed later"),
        *((change, f"{what} can be changed only while the job is suspended") for what, change in REPLACED.items()),
    ],
)
def test_what_cannot_change_while_the_job_runs(jobs, job, changes, message):
    _, complaint = jobs.change("kept", merged(changes), dry_run=True)
    assert message in complaint


@pytest.mark.parametrize("job", [{"spec.suspend": True}], indirect=True)
@pytest.mark.parametrize("what", REPLACED)
def test_what_can_change_while_the_job_is_suspended(jobs, job, what):
    _, complaint = jobs.change("kept", merged(REPLACED[what]), dry_run=True)
    assert not complaint


@pytest.mark.parametrize("job", [{"spec.suspend": True}], indirect=True)
@pytest.mark.parametrize("changes", [{"spec.seed": 1}, {"spec.sync.link": "Gloo"}, ELSEWHERE, KEPT])
def test_what_not_even_a_suspension_can_change(jobs, job, changes):
    _, complaint = jobs.change("kept", merged(changes), dry_run=True)
    assert "cannot be" in complaint


@pytest.mark.parametrize("job", [ELSEWHERE], indirect=True)
@pytest.mark.parametrize("output", [None, {"existingClaim": "other"}, {"path": "deeper"}])
def test_the_output_stays_where_it_is(jobs, job, output):
    _, complaint = jobs.change("kept", {"spec": {"synchronizer": {"output": output}}}, dry_run=True)
    assert "output cannot be" in complaint


@pytest.mark.parametrize("job", [KEPT], indirect=True)
@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (None, "checkpoint cannot be set or removed"),
        ({"existingClaim": "other"}, "checkpoint.existingClaim cannot be changed"),
        ({"path": "deeper"}, "checkpoint.path cannot be changed"),
        ({"path": None}, "checkpoint.path cannot be changed"),
        ({"intervalSeconds": 5, "keep": 1}, ""),
    ],
)
def test_checkpoints_stay_where_they_are_and_may_become_more_or_less_frequent(jobs, job, checkpoint, message):
    _, complaint = jobs.change("kept", {"spec": {"synchronizer": {"checkpoint": checkpoint}}}, dry_run=True)
    assert message in complaint
    assert message or not complaint


@pytest.mark.parametrize("job", [{f"{POD}.nodeSelector": {"gpu": "a100"}}], indirect=True)
@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {"gpu": "h100"}},
        {"nodeSelector": None},
        {"hostNetwork": True},
        {"containers": [{"name": "main", "image": "another"}]},
        {"containers": [{"name": "main", "image": "mine", "command": ["python", "train.py"], "tty": True}]},
    ],
)
def test_no_change_of_a_template_slips_through(jobs, job, pod):
    _, complaint = jobs.change("kept", {"spec": {"particles": {"template": {"spec": pod}}}}, dry_run=True)
    assert "particles.template can be changed only while" in complaint


@pytest.mark.parametrize(
    "spec",
    [
        {"particles": {"replicas": 8}},
        {"particles": {"replicas": 1}},
        {"particles": {"maxReplicas": 16, "minReplicas": 2}},
        {"particles": {"failurePolicy": {"maxFailuresPerParticle": 9}}},
        {"algorithm": {"syncPeriod": 5, "psops": {"social": 0.5}}},
        {"algorithm": {"name": "EASGD", "psops": None, "easgd": {"beta": 0.5}}},
        {"sync": {"deadlineSeconds": 5, "quorum": 1}},
        {"suspend": True},
        {"suspend": True, **merged(REPLACED["particles.template"])["spec"]},
    ],
)
def test_what_can_change_while_the_job_runs(jobs, job, spec):
    _, complaint = jobs.change("kept", {"spec": spec}, dry_run=True)
    assert not complaint
