"""When a job wants to be looked at again after a step that went wrong."""

import asyncio

import pytest

from swarm_operator.backends.kubernetes import births
from swarm_operator.backends.kubernetes.backend import WAVE
from swarm_operator.backends.kubernetes.client import ApiError
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.cluster.tracked import TrackedJob
from unit.kubernetes.objects import a_job, an_office

FORBIDDEN = ApiError(403, "Forbidden", "exceeded quota: few")
BROKEN = ApiError(500, "InternalError", "failed calling webhook", retry_after=30.0)


class Server:
    """Takes everything but pods, of which it says what the test wants."""

    def __init__(self):
        self.refusal = BROKEN
        """Of a pod, by its name; or of all."""

    async def create(self, path, body):
        if path.endswith("/pods"):
            refusal = self.refusal
            raise refusal.get(body["metadata"]["name"], BROKEN) if isinstance(refusal, dict) else refusal
        return body

    async def create_once(self, path, body):
        await self.create(path, body)

    async def patch(self, path, body):
        return {"metadata": {"namespace": "team", "name": "mnist", "resourceVersion": "2"}}


def stepping(story, replicas=2):
    """Plays `story(server, step)`, where a step tells what it asked to be waked after, and what it returned."""

    async def played():
        server, woken = Server(), []
        template = {"spec": {"containers": [{"name": "trainer", "image": "mine"}]}}
        raw = a_job(particles={"replicas": replicas, "template": template}).model_dump(mode="json", by_alias=True)
        raw["metadata"]["resourceVersion"] = "1"
        job = TrackedJob(raw, PodSet(), an_office(server), woken.append)

        async def step():
            woken.clear()
            try:
                again = await job.step(raw)
            except ApiError:
                again = None
            return list(woken), again

        try:
            await story(server, step)
        finally:
            await job.close()

    asyncio.run(asyncio.wait_for(played(), 10))


def test_more_pods_than_one_step_makes_and_a_server_that_takes_none_are_no_hurry():
    async def story(server, step):
        woken, again = await step()
        assert (woken, again) == ([], None), "the queue's pause and the server's hold"

    stepping(story, replicas=WAVE + 10)


def test_a_refused_pod_whose_next_try_fails_is_no_hurry(monkeypatch):
    monkeypatch.setattr(births, "FIRST_PAUSE", 0.0)

    async def story(server, step):
        server.refusal = FORBIDDEN
        _, again = await step()
        assert again < 1
        server.refusal = BROKEN
        assert await step() == ([], None)

    stepping(story)


def test_what_is_due_before_a_failed_step_comes_again_is_not_forgotten():
    async def story(server, step):
        server.refusal = {"mnist-particle-0-1": FORBIDDEN}
        (wait,), again = await step()
        assert again is None
        assert wait == pytest.approx(births.FIRST_PAUSE, abs=0.5)

    stepping(story, replicas=WAVE + 10)
