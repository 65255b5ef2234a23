"""A job's life on an API server: made, hurt, healed, scaled, suspended, ended."""

import asyncio
import json
import time

from swarm_api.report import Presence, SwarmState
from swarm_operator.backends.kubernetes import labels, paths

EVERYBODY = ("mnist-synchronizer-1", "mnist-particle-0-1", "mnist-particle-1-1")


def settings_of(pod):
    return json.loads(pod["metadata"]["annotations"][labels.SETTINGS])


def writes(before, after):
    """How many of each verb the operator asked for that change something."""
    made = {verb: after[user, verb] - before[user, verb] for user, verb in after if user == "swarm"}
    return {verb: number for verb, number in made.items() if number and verb not in ("get", "list", "watch")}


def test_a_job_becomes_pods_and_what_they_need_in_as_few_requests(play, server):
    async def story(stage):
        before = server.requests_by_user()
        claim = {"resources": {"requests": {"storage": "1Gi"}}}
        job = await stage.create_job(synchronizer={"output": {"volumeClaim": claim}})
        pods = await stage.has_pods(*EVERYBODY)
        selector = "swarm.training/job-name=mnist,swarm.training/role=particle"
        status = await stage.status_is(state="Pending", selector=selector)
        made = writes(before, server.requests_by_user())
        assert made == {"create": 7, "patch": 2}, "pods, what they need, a question; Service and status"
        incarnations = {key: each.get("incarnation") for key, each in status["attempts"].items()}
        assert incarnations == {"synchronizer": 1, "0": 1, "1": 1}
        (service,) = await stage.all(paths.services)
        (secret,) = await stage.all(paths.secrets)
        (claim,) = await stage.all(paths.claims)
        owners = {each["metadata"]["ownerReferences"][0]["uid"] for each in (*pods.values(), service, secret)}
        assert owners == {job["metadata"]["uid"]}
        assert "ownerReferences" not in claim["metadata"], "the model outlives the job"
        environment = {each["name"]: each for each in pods["mnist-particle-0-1"]["spec"]["containers"][0]["env"]}
        address = f"{service['metadata']['name']}.{stage.namespace}.svc:29400"
        assert environment["SWARM_SYNCHRONIZER_ADDRESS"]["value"] == address

    play(story)


def test_a_failed_particle_is_replaced_within_a_second_and_nobody_else_is_touched(play):
    async def story(stage):
        await stage.create_job(replicas=3)
        await stage.train(3)
        before = await stage.pods()
        begun = time.monotonic()
        await stage.end("mnist-particle-1-1", 1, "out of luck")
        after = await stage.has_pods(*before, "mnist-particle-1-2")
        assert time.monotonic() - begun < 1
        assert all(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items())
        status = await stage.status_is(state="Degraded")
        assert status["attempts"]["1"]["incarnation"] == 2
        assert len(status["attempts"]["1"]["failures"]) == 1
        told = await stage.told("ParticleFailed", "ParticleReplaced")
        assert "out of luck" in told["ParticleFailed"]
        await stage.run("mnist-particle-1-2")
        await stage.say((0, 1), (1, 2), (2, 1))
        status = await stage.status_is(state="Running")
        assert status["recovery"]["count"] == 1
        assert status["recovery"]["detectSeconds"] < 2

    play(story)


def test_what_a_user_deletes_comes_back_free(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.delete_pod("mnist-particle-0-1")
        await stage.has_pods("mnist-synchronizer-1", "mnist-particle-0-2", "mnist-particle-1-1")
        status = await stage.status_is(state="Degraded")
        assert "failures" not in status["attempts"]["0"]
        assert status["attempts"]["0"]["incarnation"] == 2

    play(story)


def test_a_lost_synchronizer_is_replaced_and_found_under_the_same_name(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.end("mnist-synchronizer-1", 137)
        pods = await stage.has_pods(*EVERYBODY, "mnist-synchronizer-2")

        async def selected():
            (service,) = await stage.all(paths.services)
            return service["spec"]["selector"]

        def matches(selector):
            return {name for name, pod in pods.items() if selector.items() <= pod["metadata"]["labels"].items()} == {
                "mnist-synchronizer-2"
            }

        await stage.until(selected, matches)
        await stage.run("mnist-synchronizer-2")
        await stage.say((0, 1), (1, 1), epoch=2)
        await stage.status_is(state="Running", recovery={"count": 1})

    play(story)


def test_a_job_is_complete_when_the_synchronizer_says_so_and_ends(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.say((0, 1), (1, 1), state=SwarmState.FINISHED, presence=Presence.FINISHED)
        await stage.is_heard()
        for name in ("mnist-particle-0-1", "mnist-particle-1-1"):
            await stage.end(name, 0)
        await stage.end("mnist-synchronizer-1", 0)
        status = await stage.status_is(state="Complete")
        assert status["particles"]["summary"] == "2/2"
        assert set(await stage.pods()) == set(EVERYBODY), "the dead keep their logs"

    play(story)


def test_scaling_touches_nobody_that_stays(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        before = await stage.pods()
        await stage.change_job({"particles": {"replicas": 3}})
        after = await stage.has_pods(*EVERYBODY, "mnist-particle-2-1")
        assert all(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items())

        async def told():
            return settings_of(await stage.pod("mnist-synchronizer-1"))

        assert settings_of(before["mnist-synchronizer-1"])["replicas"] == 2
        await stage.until(told, lambda settings: settings["replicas"] == 3)
        await stage.change_job({"particles": {"replicas": 1}})
        await stage.has_pods("mnist-synchronizer-1", "mnist-particle-0-1")
        await stage.until(told, lambda settings: settings["replicas"] == 1)

    play(story)


def test_a_suspended_job_has_no_pods_and_comes_back_with_higher_incarnations(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.change_job({"suspend": True})
        await stage.has_pods()
        await stage.status_is(state="Suspended")
        await stage.change_job({"suspend": False})
        await stage.has_pods("mnist-synchronizer-2", "mnist-particle-0-2", "mnist-particle-1-2")

    play(story)


def test_sidecars_do_not_hold_the_place_of_a_particle(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        ended = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}}
        containers = [
            {"name": "trainer", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
        ]
        await stage.set_pod("mnist-particle-0-1", phase="Running", containerStatuses=containers)
        await stage.has_pods("mnist-synchronizer-1", "mnist-particle-0-2", "mnist-particle-1-1")

    play(story)


def test_while_nothing_happens_nothing_is_written(play, server):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await asyncio.sleep(2.5)  # until the last change of the status is written
        before, reads = server.requests_by_user(), stage.reads
        await asyncio.sleep(4)
        assert not writes(before, server.requests_by_user())
        assert stage.reads > reads, "the report is still read"

    play(story)
