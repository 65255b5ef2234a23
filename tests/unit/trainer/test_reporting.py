"""Who may read what over HTTP."""

import http.client
from collections.abc import Iterator

import pytest

from swarm_api import env
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.reporting import ReportServer


@pytest.fixture
def server() -> Iterator[ReportServer]:
    server = ReportServer("127.0.0.1", 0, "token", Gauges().registry)
    yield server
    server.close()


def get(server: ReportServer, path: str, token: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request("GET", path, headers={} if token is None else {env.REPORT_TOKEN_HEADER: token})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/report", b"token", 200),
        ("/report", b"wrong", 403),
        ("/report", "t\u00f6ken".encode(), 403),
        ("/report", None, 403),
        ("/metrics", None, 200),
        ("/healthz", None, 200),
        ("/", b"token", 404),
    ],
)
def test_only_the_report_needs_the_token(server: ReportServer, path: str, token: bytes | None, status: int) -> None:
    assert get(server, path, token)[0] == status


def test_the_end_is_noted_when_the_final_report_has_been_read(server: ReportServer) -> None:
    server.publish(b'{"round": 1}')
    assert get(server, "/report", b"token") == (200, b'{"round": 1}')
    assert not server.read_to_the_end.is_set()
    server.publish(b'{"round": 2}', final=True)
    get(server, "/report")
    assert not server.read_to_the_end.is_set()
    assert get(server, "/report", b"token") == (200, b'{"round": 2}')
    assert server.read_to_the_end.wait(10)
