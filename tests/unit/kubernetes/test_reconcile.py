"""What becomes of a job that is gone when its server is asked for it."""

import asyncio
import time

import pytest

from swarm_operator.cluster.cache import Cache
from swarm_operator.cluster.reconcile import Reconciler
from unit.kubernetes.objects import an_office

KEY = ("team", "mnist")


def a_job(uid, version):
    """One that cannot be run as it is written: nothing is made of it."""
    metadata = {"namespace": "team", "name": "mnist", "uid": uid, "generation": 1, "resourceVersion": version}
    return {"metadata": metadata, "spec": {}}


class Server:
    """Has one job or none, and lets something happen while it lists pods."""

    def __init__(self):
        self.job = None
        self.meanwhile = lambda: None

    async def find(self, path):
        return self.job

    async def list(self, path, read, selector):
        self.meanwhile()
        return [], 5

    async def create(self, path, body):
        return body

    async def patch(self, path, body):
        return self.job


def reconciling(story):
    async def played():
        server, cache = Server(), Cache()
        reconciler = Reconciler(cache, server, an_office(server), lambda key, delay: None)
        try:
            await story(server, cache, reconciler)
        finally:
            await reconciler.close()

    asyncio.run(asyncio.wait_for(played(), 10))


async def lose_the_old_one(server, cache, reconciler, *, tracked, told):
    """The job is gone when it is looked for, and this is told meanwhile."""
    cache.put_job(a_job("old", "1"))
    if tracked:
        server.job = a_job("old", "1")
        assert await reconciler.reconcile(KEY) is not None
    server.job = None
    server.meanwhile = lambda: cache.put_job(told)
    cache.listed_at = time.monotonic()
    assert await reconciler.reconcile(KEY) is None


@pytest.mark.parametrize("tracked", [True, False])
def test_a_new_job_that_comes_while_the_old_one_is_looked_for_is_not_forgotten_with_it(tracked):
    async def story(server, cache, reconciler):
        await lose_the_old_one(server, cache, reconciler, tracked=tracked, told=a_job("new", "9"))
        assert cache.job(KEY)["metadata"]["uid"] == "new"
        server.job = a_job("new", "9")
        assert await reconciler.reconcile(KEY) is not None

    reconciling(story)


@pytest.mark.parametrize("tracked", [True, False])
def test_what_is_told_late_of_a_job_that_is_gone_is_forgotten_with_it(tracked):
    async def story(server, cache, reconciler):
        await lose_the_old_one(server, cache, reconciler, tracked=tracked, told=a_job("old", "2"))
        assert cache.job(KEY) is None

    reconciling(story)
