"""When the scribe writes, on clocks that the test moves."""

import asyncio
from types import SimpleNamespace

from swarm_api.job import Metadata
from swarm_api.status import JobStatus
from swarm_operator.cluster import scribe
from swarm_operator.cluster.scribe import Scribe
from unit.kubernetes.objects import NOON


class Server:
    """Takes every patch."""

    def __init__(self):
        self.patches = asyncio.Queue()

    async def patch(self, path, body):
        self.patches.put_nowait(body["status"])
        return {}


def test_a_wall_clock_that_is_set_back_delays_no_write(monkeypatch):
    wall, steady = [NOON], [1000.0]
    monkeypatch.setattr(scribe, "time", SimpleNamespace(time=lambda: wall[-1], monotonic=lambda: steady[-1]))

    async def story():
        server = Server()
        writer = Scribe(
            server,
            Metadata(name="mnist", namespace="team", uid="u"),
            {},
            JobStatus(),
            progress_seconds=lambda: 10.0,
            wrote=lambda _: None,
            failed=lambda: None,
        )
        writing = asyncio.create_task(writer.run())
        writer.note(JobStatus(attached=True), (), lambda _: "")
        await server.patches.get()
        wall.append(NOON - 3600)
        steady.append(1020.0)
        writer.note(JobStatus(attached=True, observed_generation=2), (), lambda _: "")
        assert (await server.patches.get())["observedGeneration"] == 2
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 5))
