"""A bare API server that knows our custom resource, shared by all tests of this folder."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from apiserver.jobs import CRD, Jobs
from apiserver.manifests import a_job
from cluster import CommandError, UnavailableError, binaries
from cluster.apiserver import ApiServer

PROGRAMS = ("etcd", "kube-apiserver", "kubeadm", "kubectl", "helm")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test, whose time is limited, and show how that goes on.

    Where it fails, the fixture that needs them says so.
    """
    here = Path(__file__).parent
    if session.config.option.collectonly or not any(here in item.path.parents for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), contextlib.suppress(UnavailableError, CommandError):
        binaries.build(PROGRAMS)


@pytest.fixture(scope="session")
def a_server() -> Callable[[], AbstractContextManager[ApiServer]]:
    """Starts an empty API server, or skips the test."""

    @contextlib.contextmanager
    def start() -> Iterator[ApiServer]:
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(ApiServer())
            except UnavailableError as error:
                pytest.skip(f"no API server here: {error}")
            yield server

    return start


@pytest.fixture(scope="session")
def server(a_server: Callable[[], AbstractContextManager[ApiServer]]) -> Iterator[ApiServer]:
    """Knows the custom resource; without controllers and nodes."""
    with a_server() as server:
        server.kubectl("create", "--filename", CRD)
        server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "--filename", CRD)
        yield server


@pytest.fixture(scope="session")
def jobs(server: ApiServer) -> Jobs:
    """For creating, reading and changing them."""
    return Jobs(server.kubeconfig)


@pytest.fixture
def job(jobs: Jobs, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The job that the test's parameter asks for, by default a small one; it exists."""
    found, complaint = jobs.create(a_job(getattr(request, "param", {}), name="kept"))
    assert not complaint
    yield found
    jobs.delete("kept")
