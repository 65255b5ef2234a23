"""The API server in dicts: over the official client, but not its models, which drop fields that they do not know."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse

from swarm_operator.backends.kubernetes.login import Entrance, Login, LoginError, entrance, login_by

TIMEOUT: Final = 30.0
"""Seconds that a request may take, all its tries apart."""
PATIENCE: Final = 5
"""Tries of a request that the server is too busy for."""
LONGEST_PAUSE: Final = 10.0
"""Seconds between two of them."""
PAGE: Final = 100
"""Objects in one answer to a list."""
WATCH_SECONDS: Final = 240
"""The server ends a watch after so long."""
SILENT_SECONDS: Final = 75.0
"""A watch on which no byte came for so long is dead: servers send a bookmark about once a minute."""

_IDLE_SECONDS: Final = 80.0
"""A connection is kept for so long: the server closes it after 90 s, and a new one costs a TLS handshake."""
_CONNECTIONS: Final = 64
"""For requests; each watch has one more."""

Item = TypeVar("Item")


class ApiError(Exception):
    """The API server refused, or was not reached (status 0)."""

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float = 0.0, causes: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{message} ({reason or 'HTTP'} {status})" if status else message)
        self.status = status
        self.reason = reason
        """Kubernetes' own word: AlreadyExists, Invalid ..."""
        self.message = message
        """For a person."""
        self.retry_after = retry_after
        """Seconds that the server asks for; 0: it does not."""
        self.causes = tuple(causes)
        """Kubernetes' own words again, for what lies behind the reason: NamespaceTerminating ..."""

    @property
    def final(self) -> bool:
        """Whether the same request would be refused again, as far as one can tell."""
        return 400 <= self.status < 500 and self.status not in (401, 408, 409, 410, 429)

    @property
    def homeless(self) -> bool:
        """Whether it was refused because its namespace is going."""
        return "NamespaceTerminating" in self.causes


class _Connections(RESTClientObject):
    """Connections that are kept, and that do not search the environment for proxies and passwords at each request."""

    def __init__(self, configuration: Configuration, watches: int) -> None:
        super().__init__(configuration)
        self._limit = _CONNECTIONS + watches

    def _create_pool_manager(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.ssl_context, limit=self._limit, keepalive_timeout=_IDLE_SECONDS)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


class Client:
    """Requests by verb and path. One event loop; close it at the end."""

    def __init__(
        self, configuration: Configuration, login: Login, told: Callable[[str, int], None], watches: int
    ) -> None:
        """`login` fills in the configuration again; `told` hears verb and status code of every answer."""
        self._configuration = configuration
        self._login = login
        self._told = told
        self._api = ApiClient(configuration)
        self._api.rest_client = _Connections(configuration, watches)

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        told: Callable[[str, int], None] = lambda _verb, _code: None,
        *,
        watches: int = 1,
    ) -> "Client":
        """By this kubeconfig, else by the pod's service account, else by the user's own kubeconfig.

        Args:
            kubeconfig: Its path.
            told: Hears verb and status code of every answer; 0: there was none.
            watches: How many there will be at once.

        Raises:
            LoginError: none of these is there or valid.
        """
        login = login_by(kubeconfig)
        configuration = Configuration()
        await login(configuration)
        return cls(configuration, login, told, watches)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def entrance(self) -> Entrance:
        """How to log in, read again; for whoever keeps connections of its own.

        Raises:
            LoginError: nobody knows any more.
        """
        return await entrance(self._login, self._configuration)

    async def get(self, path: str) -> dict[str, Any]:
        """One object.

        Raises:
            ApiError: as all methods do.
        """
        return _object(await self.request("GET", path))

    async def find(self, path: str) -> dict[str, Any] | None:
        """The same; None: there is none."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, path: str, read: Callable[[dict[str, Any]], Item], selector: str = ""
    ) -> tuple[list[Item], int]:
        """All objects of a collection, and the version of the whole.

        `read` makes of each object what is kept of it, before the next page comes: whole pods take much memory.
        """
        found: list[Item] = []
        query: dict[str, str] = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            page = _object(await self.request("GET", path, query=query))
            found += map(read, page.get("items") or ())
            onward = page["metadata"].get("continue")
            if not onward:
                return found, int(page["metadata"].get("resourceVersion") or 0)
            query["continue"] = onward

    async def watch(self, path: str, version: int, selector: str = "") -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Type and object of what happens to a collection after this version, until the server ends it.

        The type BOOKMARK tells that nothing happened up to the version of its object, which is no more than that.

        Raises:
            ApiError: as all methods do; with status 410 the server has forgotten the version: list anew.
        """
        query = {"watch": "1", "resourceVersion": str(version), "allowWatchBookmarks": "true"}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), **({"labelSelector": selector} if selector else {})}
        rest = b""
        patience = aiohttp.ClientTimeout(total=WATCH_SECONDS + TIMEOUT, sock_connect=TIMEOUT, sock_read=SILENT_SECONDS)
        url = f"{self._configuration.host}/{path}?{urlencode(query)}"
        async with self._answer("GET", url, patience=patience) as response:
            if response.status >= 400:
                raise _refusal(response.status, await response.read(), response.getheader("Retry-After"))
            async for data in response.response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for event in map(json.loads, lines):
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise ApiError(said.get("code") or 500, said.get("reason") or "", said.get("message") or "")
                    yield event["type"], event["object"]

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object as it was made."""
        return _object(await self.request("POST", path, body=body))

    async def create_once(self, path: str, body: Mapping[str, Any]) -> None:
        """The same for something whose name nobody else would use: it may be there already."""
        try:
            await self.create(path, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def delete(self, path: str, uid: str, grace: int | None = None) -> dict[str, Any] | None:
        """The object as it is then; None: it, or the one with this uid, is gone already."""
        options: dict[str, Any] = {"preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            return _object(await self.request("DELETE", path, body=options))
        except ApiError as error:
            if error.status in (404, 409):
                return None
            raise

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object after a JSON merge patch."""
        return _object(await self.request("PATCH", path, body=body, content="application/merge-patch+json"))

    async def allowed(self, verb: str, resource: str, namespace: str = "", group: str = "") -> bool:
        """Whether RBAC lets this client do so; cluster-wide without a namespace."""
        what = {"verb": verb, "resource": resource, "group": group, "namespace": namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what},
        }
        answer = await self.create("apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        return bool(answer["status"].get("allowed"))

    async def request(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 - of one try
    ) -> bytes:
        """What the server answers; it is asked again while it says that it is busy, and once with a new login."""
        url = f"{self._configuration.host}/{path}{f'?{urlencode(query)}' if query else ''}"
        renewed = False
        for attempt in range(1, PATIENCE + 1):
            try:
                return await self._once(verb, url, body, {"Content-Type": content, **(headers or {})}, timeout)
            except ApiError as error:
                if error.status == 401 and not renewed:
                    renewed = True
                    await self._log_in_again(error)
                elif attempt < PATIENCE and (error.status == 429 or (error.status == 503 and error.retry_after)):
                    await asyncio.sleep(min(error.retry_after or float(attempt), LONGEST_PAUSE))
                else:
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def _log_in_again(self, refusal: ApiError) -> None:
        try:
            await self._login(self._configuration)
        except LoginError as error:
            raise ApiError(refusal.status, refusal.reason, str(error)) from error

    async def _once(
        self, verb: str, url: str, body: Mapping[str, Any] | None, headers: dict[str, str], seconds: float
    ) -> bytes:
        patience = aiohttp.ClientTimeout(total=seconds)
        async with self._answer(verb, url, body, headers, patience=patience) as response:
            answer: bytes = await response.read()
        if response.status >= 400:
            raise _refusal(response.status, answer, response.getheader("Retry-After"))
        return answer

    @asynccontextmanager
    async def _answer(
        self,
        verb: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        patience: aiohttp.ClientTimeout,
    ) -> AsyncIterator[RESTResponse]:
        """What the server answers, to be read inside the context; whatever the connection suffers is an ApiError."""
        headers = {"Accept": "application/json", "User-Agent": "swarm-operator", **(headers or {})}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], url, verb, body)
            response = await self._api.rest_client.request(
                verb, url, headers=headers, body=body, _request_timeout=patience
            )
            self._told(verb, response.status)
            async with response.response:
                yield response
        except (OSError, aiohttp.ClientError) as error:
            self._told(verb, 0)
            raise ApiError(
                0, "Unreachable", f"the API server cannot be reached: {error or type(error).__name__}"
            ) from error


def _refusal(status: int, answer: bytes, retry_after: str | None) -> ApiError:
    try:
        said = json.loads(answer)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        said = {"message": answer.decode(errors="replace")[:500]}
    details = said.get("details") or {}
    try:
        pause = float(retry_after or details.get("retryAfterSeconds") or 0)
    except ValueError:  # a date: rare, and a second is as good
        pause = 1.0
    causes = [str(cause.get("reason")) for cause in details.get("causes") or ()]
    return ApiError(status, said.get("reason") or "", said.get("message") or f"HTTP {status}", pause, causes)


def _object(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer)
    return found
