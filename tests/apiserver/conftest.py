"""A bare API server that knows our custom resource, shared by all tests of this folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from apiserver.jobs import Jobs
from apiserver.manifests import a_job
from cluster.apiserver import ApiServer
from support.api_server import api_server, build_programs, install_definition


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the tests of this folder need."""
    build_programs(session, Path(__file__).parent)


@pytest.fixture(scope="session")
def a_server() -> Callable[[], AbstractContextManager[ApiServer]]:
    """Starts an empty API server, or skips the test."""
    return api_server


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """Knows the custom resource; without controllers and nodes."""
    with api_server() as server:
        install_definition(server)
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
