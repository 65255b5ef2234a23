"""What the operator serves over HTTP: /metrics on one port, /healthz and /readyz on the other."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

HEALTHY: Final = ""
"""What a check says when nothing is wrong; anything else is the complaint."""

Check = Callable[[], str]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve_metrics(stack: AsyncExitStack, port: int, registry: CollectorRegistry) -> None:
    """Serve on all addresses until the stack is left."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    await _serve(stack, port, {"/metrics": answer})


async def serve_health(stack: AsyncExitStack, port: int, *, alive: Check, ready: Check) -> None:
    """The same for the probes. They run in the loop that does the work: one that stands still answers nobody."""

    def answering(check: Check) -> _Handler:
        async def answer(_: web.Request) -> web.Response:
            complaint = check()
            return web.Response(status=503 if complaint else 200, text=f"{complaint or 'ok'}\n")

        return answer

    await _serve(stack, port, {"/healthz": answering(alive), "/readyz": answering(ready)})


async def _serve(stack: AsyncExitStack, port: int, routes: dict[str, _Handler]) -> None:
    application = web.Application()
    application.add_routes([web.get(path, handler) for path, handler in routes.items()])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, port=port).start()
