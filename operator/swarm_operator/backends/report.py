"""Reads the synchronizer's report beside the loop that reacts to deaths, and never in its way: every backend's way."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final

from swarm_api.report import PROTOCOL_VERSION, Report

TIMEOUT: Final = 1.0
"""Seconds for connecting and for each read."""
INTERVAL: Final = 1.0
"""Seconds between two readings while a synchronizer runs."""
SEARCH_INTERVAL: Final = 0.2
"""Seconds between two looks for the address of one that starts."""
LONGEST: Final = 1000
"""Characters of what is wrong with a report."""


class ReportError(Exception):
    """The report cannot be read; the message says why."""


def parse(body: bytes, uid: str, address: str) -> Report:
    """The report in what was answered.

    Raises:
        ReportError: it is none, not of this job, or of another version.
    """
    try:
        said = json.loads(body)
        # Before the rest, which another version may have changed.
        protocol = said.get("protocol")
        if protocol not in (PROTOCOL_VERSION, PROTOCOL_VERSION - 1):
            raise ReportError(f"the report has protocol {protocol}, this swarm knows {PROTOCOL_VERSION}: update one")
        report = Report.model_validate(said)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ReportError(f"the synchronizer at {address} sent no valid report: {str(error)[:LONGEST]}") from error
    if report.uid != uid:
        raise ReportError(f"the synchronizer at {address} belongs to another run")
    return report


class ReportReader:
    """Keeps the newest report of a running synchronizer."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[Report]],
        address: Callable[[], str | None],
        changed: Callable[[], None],
        interval: Callable[[], float] = lambda: INTERVAL,
    ) -> None:
        """`fetch` asks at an address and may raise ReportError.

        `address` tells where the running synchronizer can be asked: empty: not yet known, None: none runs.
        `interval` tells the seconds between two readings.
        """
        self.report: Report | None = None
        self.error = ""
        self.heard = 0.0
        """When the report was read last, Unix seconds; 0: never."""
        self._fetch = fetch
        self._address = address
        self._changed = changed
        self._interval = interval
        self._wanted = asyncio.Event()

    def read_soon(self) -> None:
        """Something happened of which the report may already know more."""
        self._wanted.set()

    async def run(self) -> None:
        """Read until cancelled: in intervals while there is somebody to ask, and whenever `read_soon` is called."""
        while True:
            self._wanted.clear()
            address = self._address()
            if address:
                await self._read(address)
            else:
                starts = address is not None and self.report is not None
                self.error = "a new synchronizer is starting" if starts else ""
            with contextlib.suppress(TimeoutError):
                pause = None if address is None else self._interval() if address else SEARCH_INTERVAL
                await asyncio.wait_for(self._wanted.wait(), pause)

    async def _read(self, address: str) -> None:
        before = (self.report, self.error)
        try:
            self.report = await self._fetch(address)
            self.error, self.heard = "", time.time()
        except ReportError as error:
            self.error = str(error)
        if (self.report, self.error) != before:
            self._changed()
