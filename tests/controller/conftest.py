"""A bare API server and the operator, in a namespace for each test. Nothing runs pods: the test says how they are."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cluster import CommandError, UnavailableError, binaries
from cluster.apiserver import ApiServer
from controller.stage import Stage
from swarm_operator.cluster.config import Config

CRD = Path(__file__).parents[2] / "crds" / "swarm.training_swarmtrainingjobs.yaml"
OPERATOR = "swarm"
"""Whose requests are counted."""
SECONDS = 60
"""Of one story at most."""
PROGRAMS = ("etcd", "kube-apiserver", "kubeadm", "kubectl", "helm")

_numbers = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test, whose time is limited."""
    here = Path(__file__).parent
    if session.config.option.collectonly or not any(here in item.path.parents for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), contextlib.suppress(UnavailableError, CommandError):
        binaries.build(PROGRAMS)


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(ApiServer(users=(OPERATOR,), audit=True))
        except UnavailableError as error:
            pytest.skip(f"no API server here: {error}")
        server.kubectl("create", "--filename", CRD)
        server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "--filename", CRD)
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
