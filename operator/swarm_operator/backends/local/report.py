"""Reads the synchronizer's report over HTTP, beside the loop that reacts to deaths and never in its way."""

import asyncio
import contextlib
import http
import http.client
import json
from collections.abc import Callable
from typing import Final

from swarm_api import env
from swarm_api.report import PROTOCOL_VERSION, Report

TIMEOUT: Final = 1.0
"""Seconds for connecting and for each read."""
INTERVAL: Final = 1.0
"""Seconds between two readings while a synchronizer runs."""
SEARCH_INTERVAL: Final = 0.2
"""Seconds between two looks for the address of one that starts."""


class ReportError(Exception):
    """The report cannot be read; the message says why."""


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
    try:
        said = json.loads(body)
        # Before the rest, which another version may have changed.
        protocol = said.get("protocol")
        if protocol not in (PROTOCOL_VERSION, PROTOCOL_VERSION - 1):
            raise ReportError(f"the report has protocol {protocol}, this swarm knows {PROTOCOL_VERSION}: update one")
        report = Report.model_validate(said)
    except (ValueError, AttributeError) as error:
        raise ReportError(f"the synchronizer at {address} sent no valid report: {error}") from error
    if report.uid != uid:
        raise ReportError(f"the synchronizer at {address} belongs to another run")
    return report


class ReportReader:
    """Keeps the newest report of a running synchronizer."""

    def __init__(self, token: str, uid: str, address: Callable[[], str | None], changed: Callable[[], None]) -> None:
        """`address` tells where the running synchronizer can be asked: empty: not yet known, None: none runs."""
        self.report: Report | None = None
        self.error = ""
        self._token = token
        self._uid = uid
        self._address = address
        self._changed = changed
        self._wanted = asyncio.Event()

    def read_soon(self) -> None:
        """Something happened of which the report may already know more."""
        self._wanted.set()

    async def run(self) -> None:
        """Read until cancelled: once a second while there is somebody to ask, and whenever `read_soon` is called."""
        while True:
            self._wanted.clear()
            address = self._address()
            if address:
                await self._read(address)
            else:
                starts = address is not None and self.report is not None
                self.error = "a new synchronizer is starting" if starts else ""
            with contextlib.suppress(TimeoutError):
                pause = None if address is None else INTERVAL if address else SEARCH_INTERVAL
                await asyncio.wait_for(self._wanted.wait(), pause)

    async def _read(self, address: str) -> None:
        before = (self.report, self.error)
        try:
            self.report = await asyncio.to_thread(fetch, address, self._token, self._uid)
            self.error = ""
        except ReportError as error:
            self.error = str(error)
        if (self.report, self.error) != before:
            self._changed()
