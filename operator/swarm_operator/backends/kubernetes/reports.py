"""Asks a synchronizer's pod for its report: directly, or through the API server where pods cannot be reached."""

from typing import Final, Self

import aiohttp

from swarm_api import env
from swarm_api.report import Report
from swarm_operator.backends.kubernetes import paths
from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.observe import Pod
from swarm_operator.backends.report import TIMEOUT, ReportError, parse

LARGEST: Final = 1024 * 1024
"""Bytes of a report: three times one of 1024 particles. What is made of them in memory is up to 100 times as much."""


class Reports:
    """One way for all jobs. A synchronizer is a tenant's: only so much is read of it, and it leads nowhere else."""

    def __init__(self, client: Client, *, proxied: bool) -> None:
        self._client = client
        self._proxied = proxied
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if not self._proxied:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=2 * TIMEOUT, sock_connect=TIMEOUT),
                headers={"Accept-Encoding": "identity"},
                # A few bytes can be packed that are gigabytes when unpacked.
                auto_decompress=False,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def address(self, namespace: str, pod: Pod) -> str:
        """Where to ask; empty: it has no address yet."""
        if self._proxied:
            return f"{paths.pods(namespace, pod.name)}:{env.REPORT_PORT}/proxy/report"
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        return f"{host}:{env.REPORT_PORT}" if pod.ip else ""

    async def fetch(self, address: str, token: str, uid: str) -> Report:
        """The report at such an address.

        Raises:
            ReportError: it is not there, not of this job, or of another version.
        """
        headers = {env.REPORT_TOKEN_HEADER: token}
        body = await (self._through_the_server(address, headers) if self._proxied else self._directly(address, headers))
        return parse(body, uid, address)

    async def _through_the_server(self, path: str, headers: dict[str, str]) -> bytes:
        try:
            return await self._client.request("GET", path, headers=headers, timeout=2 * TIMEOUT)
        except ApiError as error:
            raise ReportError(f"no report from the synchronizer through the API server: {error.message}") from error

    async def _directly(self, address: str, headers: dict[str, str]) -> bytes:
        assert self._session
        try:
            url = f"http://{address}/report"
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise ReportError(f"the synchronizer at {address} answered {response.status} {response.reason}")
                body = bytearray()
                async for data in response.content.iter_any():
                    body += data
                    if len(body) > LARGEST:
                        raise ReportError(f"the synchronizer at {address} sent more than {LARGEST} bytes")
                return bytes(body)
        except TimeoutError as error:
            raise ReportError(f"no report from the synchronizer at {address}: it does not answer") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else str(error)
            raise ReportError(f"no report from the synchronizer at {address}: {why}") from error
