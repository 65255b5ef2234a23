"""A bare API server and the operator, in a namespace for each test. Nothing runs pods: the test says how they are."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cluster.apiserver import ApiServer
from controller.stage import Stage
from support.api_server import api_server, build_programs, install_definition
from swarm_operator.cluster.config import Config

OPERATOR = "swarm"
"""Whose requests are counted."""
SECONDS = 60
"""Of one story at most."""

_numbers = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests of this folder need."""
    build_programs(session, Path(__file__).parent)


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    with api_server(users=(OPERATOR,), audit=True) as server:
        install_definition(server)
        server.kubectl("create", "clusterrolebinding", "test", "--clusterrole=cluster-admin", f"--user={OPERATOR}")
        yield server


@pytest.fixture
def play(server: ApiServer, tmp_path: Path) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    """Plays a story on a stage: an empty namespace in which the operator works."""

    def run(story: Callable[[Stage], Awaitable[None]], *, installed: Path | None = None) -> None:
        """`installed`: login of an operator that works in all namespaces, as the chart installs it."""

        async def on_stage() -> None:
            number = next(_numbers)
            key = tmp_path / "key"
            key.write_text("0" * 32)
            name = f"test-{number}"
            config = Config(
                kubeconfig=str(installed or server.kubeconfig_of_user(OPERATOR)),
                namespaces=() if installed else (name,),
                key_file=key,
                metrics_port=0,
                liveness_port=0,
            )
            async with Stage.set(name, f"127.0.1.{number}", server.kubeconfig, config) as stage:
                await story(stage)

        asyncio.run(asyncio.wait_for(on_stage(), SECONDS))

    return run
