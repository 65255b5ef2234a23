"""The status as it is read and written, and what is said of a job that cannot be run."""

import json

import pytest

from swarm_api.job import Metadata
from swarm_api.status import Attempt, JobState, JobStatus, ParticleCounts, ParticleStatus, Training
from swarm_operator.backends.kubernetes.floors import floors, raised
from swarm_operator.backends.kubernetes.observe import read
from swarm_operator.cluster import events, status
from swarm_operator.cluster.config import ConfigError, parse
from swarm_operator.plan.facts import Event
from unit.kubernetes.objects import NOON, a_pod


def a_status(replicas=2, **fields):
    return JobStatus(
        attempts={str(index): Attempt(incarnation=1, contributed=True) for index in range(replicas)},
        particle_statuses=[
            ParticleStatus(index=index, incarnation=1, phase="Running") for index in range(min(replicas, 3))
        ],
        **fields,
    )


def merged(target, patch):
    """RFC 7386 by the book."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) if isinstance(result.get(key), dict) else {}, value)
        else:
            result[key] = value
    return result


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "z": [1]}}),
        ({"a": [1, 2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"x": 1}}),
        (status.dumped(a_status()), status.dumped(a_status(3, training=Training(round=4, best_loss=0.5)))),
    ],
)
def test_the_patch_makes_the_one_of_the_other(before, after):
    assert merged(before, status.merge_patch(before, after)) == after
    assert status.merge_patch(after, after) == {}


def test_only_what_changed_is_written():
    before = a_status(training=Training(round=1))
    after = before.model_copy(update={"training": Training(round=2)})
    assert status.merge_patch(status.dumped(before), status.dumped(after)) == {"training": {"round": 2}}


def test_what_is_written_is_read_again():
    before = a_status(particles=ParticleCounts(desired=2), attached=True)
    assert status.loaded(status.dumped(before)) == before
    assert status.loaded(None) == JobStatus()


def test_the_status_of_a_thousand_particles_is_small():
    assert len(json.dumps(status.dumped(a_status(1000)))) < 100 * 1024


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.update(newField={"a": 1}),
        lambda raw: raw["attempts"]["0"].update(newField=1),
        lambda raw: raw["particleStatuses"][0].update(newField=1, another=2),
        lambda raw: raw.update(state="Dreaming"),
        lambda raw: raw.update(training={"round": "many"}),
    ],
)
def test_what_another_version_wrote_does_not_make_it_forget_the_incarnations(damage):
    raw = status.dumped(a_status())
    damage(raw)
    assert status.loaded(raw).attempts == a_status().attempts


@pytest.mark.parametrize(
    ("new", "since", "took", "due"),
    [
        (a_status(), 5.0, 0.0, None),
        (a_status(attached=True), 0.4, 0.01, 0.6),
        (a_status(attached=True), 5.0, 0.01, 0.0),
        (a_status(attached=True), 1.0, 0.2, 3.0),
        (a_status(attached=True), 1.0, 20.0, 9.0),
        (a_status(state=JobState.COMPLETE), 0.4, 20.0, 0.6),
        (a_status(training=Training(round=1)), 4.0, 0.01, 26.0),
        (a_status(training=Training(round=1)), 4.0, 20.0, 26.0),
        (a_status(training=Training(round=1)), 31.0, 0.01, 0.0),
    ],
)
def test_what_matters_is_written_within_a_second_and_numbers_now_and_then_unless_a_write_takes_long(
    new, since, took, due
):
    found = status.due(a_status(), new, since, took, 30.0)
    assert found == (due if due is None else pytest.approx(due))


def test_a_refused_job_says_since_when_and_why_and_keeps_its_other_conditions():
    first = status.refused(JobStatus(), JobStatus(), 1, "InvalidTemplate", "no such volume", NOON)
    second = status.refused(JobStatus(), first, 2, "InvalidTemplate", "no such claim", NOON + 60)
    (condition,) = second.conditions
    assert status.is_refused(second)
    assert not status.is_refused(JobStatus())
    assert (condition.message, condition.observed_generation) == ("no such claim", 2)
    assert condition.last_transition_time == first.conditions[0].last_transition_time


def test_an_event_is_the_jobs_and_names_the_pod_beside():
    job = Metadata(name="mnist", namespace="team", uid="u")
    found = events.body(
        job, Event(reason="ParticleFailed", message="x" * 5000, warning=True, regarding="p"), NOON, "pu"
    )
    assert (found["involvedObject"]["uid"], found["related"]["uid"], found["type"]) == ("u", "pu", "Warning")
    assert found["firstTimestamp"] == "2026-03-01T12:00:00Z"
    assert len(found["message"]) <= 1024
    assert "related" not in events.body(job, Event(reason="JobRunning", message=""), NOON)


def test_names_of_an_older_job_are_counted_past_without_blame():
    older = read(a_pod())
    assert floors([older], "uid-1") == {}
    assert floors([older], "another") == {"2": 5}
    assert floors([read(a_pod(metadata={"ownerReferences": []}))], "uid-1") == {"2": 5}, "it was orphaned"
    fresh = raised(JobStatus(), {"2": 5, "synchronizer": 3}, NOON)
    assert {key: each.incarnation for key, each in fresh.attempts.items()} == {"2": 5, "synchronizer": 3}
    assert not any(each.failures or each.setbacks for each in fresh.attempts.values())


def test_a_living_incarnation_is_not_renumbered():
    living = JobStatus(attempts={"2": Attempt(incarnation=1)})
    assert raised(living, {"2": 5}, NOON) is living
    ended = JobStatus(attempts={"2": Attempt(incarnation=1, ended_at="2026-03-01T12:00:00Z", setbacks=2)})
    assert raised(ended, {"2": 5}, NOON).attempts["2"].incarnation == 5
    assert raised(ended, {"2": 5}, NOON).attempts["2"].setbacks == 2
    assert raised(ended, {"2": 1}, NOON) is ended


@pytest.mark.parametrize(
    ("arguments", "inside", "proxied"),
    [
        ([], True, False),
        ([], False, True),
        (["--kubeconfig", "x"], True, True),
        (["--reports", "direct"], False, False),
        (["--reports", "proxy"], True, True),
    ],
)
def test_reports_are_read_through_the_server_where_pods_cannot_be_reached(monkeypatch, arguments, inside, proxied):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if inside:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert parse(arguments).proxied == proxied


def test_namespaces_may_be_repeated():
    assert parse(["--namespace", "a", "--namespace", "b", "--namespace", "a"]).namespaces == ("a", "b")


@pytest.mark.parametrize(("text", "complaint"), [(None, "make one with"), ("short\n", "has 5 bytes")])
def test_without_a_proper_key_it_says_how_to_make_one(tmp_path, text, complaint):
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        parse(["--key-file", str(path)]).key()
