"""The socket of a run, over which `swarm kill` and `swarm status` speak to it: one JSON line each way.

It is bound and connected through the folder's file descriptor, since a socket's path may have 107 bytes only.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Request = dict[str, Any]
Answer = dict[str, Any]

_PATIENCE = 5.0
"""Seconds that a client waits for each answer."""


class NotRunningError(Exception):
    """Nobody listens: the run ended."""


@contextlib.asynccontextmanager
async def serve(path: Path, answer: Callable[[Request], Answer]) -> AsyncIterator[None]:
    """Answer requests at `path` for the duration; whoever may write to its folder may ask."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, ValueError, TimeoutError):
            request = json.loads(await asyncio.wait_for(reader.readline(), _PATIENCE))
            writer.write(json.dumps(answer(request)).encode() + b"\n")
            await writer.drain()

    with _short(path) as short:  # as long as the server, which may look at its own name again
        try:
            server = await asyncio.start_unix_server(respond, path=short)
        except OSError as error:  # as some shared folders do
            log.warning("swarm kill cannot reach this run: its folder takes no socket (%s)", error.strerror)
            yield
            return
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)  # noqa: ASYNC240 one name in a folder of our own


def ask(path: Path, request: Request) -> Answer:
    """What the run at `path` answers.

    Raises:
        NotRunningError: nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            with _short(path) as short:
                connection.connect(short)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile() as file:
                found = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise NotRunningError(f"no run listens at {path}: {error}") from error
    assert isinstance(found, dict)
    return found


def answers(path: Path) -> bool:
    """Whether the run at `path` runs."""
    try:
        ask(path, {})
    except NotRunningError:
        return False
    return True


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
