"""Asks a synchronizer of this machine for its report."""

import contextlib
import http
import http.client

from swarm_api import env
from swarm_api.report import Report
from swarm_operator.backends.report import TIMEOUT, ReportError, parse


def fetch(address: str, token: str, uid: str) -> Report:
    """The report at `host:port`; waits up to two timeouts.

    Raises:
        ReportError: it is not there, not of this job, or of another version.
    """
    try:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=TIMEOUT)) as connection:
            connection.request("GET", "/report", headers={env.REPORT_TOKEN_HEADER: token})
            response = connection.getresponse()
            body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ReportError(f"no report from the synchronizer at {address}: {error}") from error
    if response.status != http.HTTPStatus.OK:
        raise ReportError(f"the synchronizer at {address} answered {response.status} {response.reason}")
    return parse(body, uid, address)
