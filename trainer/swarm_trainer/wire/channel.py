"""JSON messages over a connected socket, each behind its length."""

import asyncio
import contextlib
import socket
import struct
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from swarm_trainer.errors import LinkError
from swarm_trainer.links.tuning import tune

_LENGTH: Final = struct.Struct("!I")

HANDSHAKE_LIMIT: Final = 4 * 1024
"""Bytes that a stranger may make us read."""

MESSAGE_LIMIT: Final = 64 * 1024 * 1024
"""A schema names every tensor of a model; nothing else comes near this."""

M = TypeVar("M", bound=BaseModel)


class Channel:
    """Both directions of one connection, used from one event loop. Sends may overlap; receives may not."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            tune(sock)
        self._sock = sock
        self._sending = asyncio.Lock()
        self._closed = False
        self.limit = HANDSHAKE_LIMIT
        """Largest message that is accepted, in bytes; raised once the peer has proved itself."""

    async def send(self, message: BaseModel) -> None:
        """Send one message.

        Raises:
            LinkError: The peer is gone or the channel was closed.
        """
        body = message.model_dump_json().encode()
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, _LENGTH.pack(len(body)) + body)
            except (OSError, ValueError) as error:
                msg = f"control channel: {error}"
                raise LinkError(msg) from error

    async def recv(self, kind: type[M]) -> M:
        """The next message.

        Raises:
            LinkError: The peer is gone, the channel was closed, or what came is no such message.
        """
        (length,) = _LENGTH.unpack(await self._exactly(_LENGTH.size))
        if length > self.limit:
            msg = f"control channel: a message of {length} bytes exceeds the limit of {self.limit}"
            raise LinkError(msg)
        body = await self._exactly(length)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            msg = f"control channel: not a {kind.__name__}: {error}"
            raise LinkError(msg) from error

    def release(self) -> socket.socket:
        """Hand the socket on, every byte of the channel having been read."""
        self._closed = True
        return self._sock

    def close(self) -> None:
        """End the connection; whoever waits on it gets LinkError. May be called twice."""
        if not self._closed:
            self._closed = True
            # A shutdown wakes the coroutine that waits for this socket; a mere close would leave it waiting.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            asyncio.get_running_loop().call_soon(self._sock.close)

    async def _exactly(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < size:
            try:
                piece = await loop.sock_recv(self._sock, min(size - len(data), 1 << 20))
            except (OSError, ValueError) as error:
                msg = f"control channel: {'it was closed' if self._closed else error}"
                raise LinkError(msg) from error
            if not piece:
                msg = "control channel: the peer closed the connection"
                raise LinkError(msg)
            data += piece
        return bytes(data)
