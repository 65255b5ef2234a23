"""What the operator tells of itself: probes, metrics, log."""

import asyncio
import json
import logging
from contextlib import AsyncExitStack

import aiohttp
import pytest

from cluster.processes import free_ports
from swarm_api.status import JobState, Recovery
from swarm_operator.cluster import logs
from swarm_operator.cluster.metrics import Metrics
from swarm_operator.cluster.server import serve_health, serve_metrics


def asked(story):
    async def on_air():
        async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:

            async def get(port, path):
                async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                    return response.status, await response.text()

            await story(stack, get)

    asyncio.run(asyncio.wait_for(on_air(), 10))


def some_metrics(states=()):
    return Metrics(states=lambda: states, depth=lambda: 3, silence=lambda: 61.0)


def test_a_probe_says_what_is_wrong():
    async def story(stack, get):
        complaints = [""]
        (port,) = free_ports(1)
        await serve_health(stack, port, alive=lambda: complaints[-1], ready=lambda: "the watches have not begun")
        assert await get(port, "/healthz") == (200, "ok\n")
        assert await get(port, "/readyz") == (503, "the watches have not begun\n")
        complaints.append("a job has waited for 61 s")
        assert await get(port, "/healthz") == (503, "a job has waited for 61 s\n")

    asked(story)


def test_metrics_have_few_labels_whatever_happens():
    async def story(stack, get):
        metrics = some_metrics((JobState.RUNNING, JobState.RUNNING, JobState.FAILED))
        metrics.requested("POST", 201)
        for reason in ("OOMKilled", "OutOfcpu", "OutOfexample.com/foo", "MyOwnWord"):
            metrics.replaced(reason)
        metrics.recovered(Recovery(detect_seconds=0.1, schedule_seconds=1, start_seconds=5, rejoin_seconds=None))
        (port,) = free_ports(1)
        await serve_metrics(stack, port, metrics.registry)
        _, text = await get(port, "/metrics")
        lines = text.splitlines()
        for line in (
            'swarm_operator_jobs{state="Running"} 2.0',
            'swarm_operator_jobs{state="Waiting"} 0.0',
            'swarm_operator_replacements_total{reason="OOMKilled"} 1.0',
            'swarm_operator_replacements_total{reason="AdmissionRejected"} 2.0',
            'swarm_operator_replacements_total{reason="Other"} 1.0',
            'swarm_operator_api_requests_total{code="201",verb="POST"} 1.0',
            'swarm_operator_recovery_seconds_sum{phase="start"} 5.0',
            "swarm_operator_pod_watch_silent_seconds 61.0",
            "swarm_operator_workqueue_depth 3.0",
        ):
            assert line in lines
        assert 'phase="rejoin"' not in text
        assert "swarm_operator_build_info{" in text

    asked(story)


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield root
    root.handlers[:], root.level = before


def test_a_line_of_the_log_is_json_with_the_error_in_it(root_logger, capsys):
    logs.configure("json", "info")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("swarm").exception("%s: failed", "team/mnist")
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["logger"], said["message"]) == ("error", "swarm", "team/mnist: failed")
    assert "ValueError: broken" in said["error"]
