"""The words beside a gloo pair: where the peer listens, what it is about to send, what has arrived."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeVar

from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.base import again
from swarm_trainer.links.frame import HEADER_BYTES, Header
from swarm_trainer.links.peer_store import PeerStore

_LAYOUT = struct.Struct("<BI")
_MAX_BODY = 1 << 16
_T = TypeVar("_T")


class _Word(IntEnum):
    ENTRY = 1
    """A store entry: key, NUL, value."""
    ANNOUNCED = 2
    """The header of the tensor that comes next."""
    RECEIVED = 3
    """It has been received; no body."""


class SideChannel:
    """Speaks over the socket that a gloo pair was opened with, and sees the peer's end there at once.

    Lives in the event loop it was made in. `ended` is done, with the reason, when the socket or `end` says so.

    Args:
        seconds: How long the store waits for an entry of the peer.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        self.announced: asyncio.Queue[Header] = asyncio.Queue()
        self.received: asyncio.Queue[None] = asyncio.Queue()
        self.store = PeerStore(self._publish, seconds)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[LinkError] = self._loop.create_future()
        self._reader = reader
        self._writer = writer
        self._listening = self._loop.create_task(self._listen())

    def announce(self, header: Header) -> None:
        """Say what the next tensor is."""
        self._say(_Word.ANNOUNCED, header.pack())

    def acknowledge(self) -> None:
        """Say that the last one has come."""
        self._say(_Word.RECEIVED, b"")

    def end(self, error: LinkError) -> None:
        """Cut the connection and free all who wait; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(again(error))
            self.store.fail(error)
            self._listening.cancel()
            self._writer.transport.abort()

    async def unless_ended(self, result: Awaitable[_T], seconds_left: Callable[[], float] | None = None) -> _T:
        """Await something that may not outlive the connection.

        Args:
            result: What is awaited; cancelled when it is given up.
            seconds_left: How long from now it may still take; asked again when that is over.

        Raises:
            LinkError: The connection ended first.
            LinkTimeoutError: No time was left.
        """
        waiting = asyncio.ensure_future(result)
        try:
            while not waiting.done() and not self.ended.done():
                left = seconds_left() if seconds_left else None
                if left is not None and left <= 0:
                    raise LinkTimeoutError("nothing came from the peer in time")
                await asyncio.wait((waiting, self.ended), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
            del waiting, result  # else its error would hold this frame, and it the error
        raise again(self.ended.result())

    def _publish(self, key: str, value: bytes) -> None:
        self._loop.call_soon_threadsafe(self._say, _Word.ENTRY, key.encode() + b"\0" + value)

    def _say(self, word: _Word, body: bytes) -> None:
        self._writer.write(_LAYOUT.pack(word, len(body)) + body)

    async def _listen(self) -> None:
        try:
            while True:
                word, length = _LAYOUT.unpack(await self._reader.readexactly(_LAYOUT.size))
                if length > _MAX_BODY:
                    raise LinkError(f"the peer sent {length} bytes beside its gloo pair, which is no message")
                self._hear(word, await self._reader.readexactly(length))
        except asyncio.IncompleteReadError:
            self.end(LinkError("the peer closed the connection"))
        except OSError as error:
            self.end(LinkError(f"the connection broke: {error.strerror or error}"))
        except LinkError as error:
            self.end(error)

    def _hear(self, word: int, body: bytes) -> None:
        if word == _Word.ENTRY:
            key, _, value = body.partition(b"\0")
            self.store.receive(key.decode(errors="replace"), value)
        elif word == _Word.ANNOUNCED and len(body) == HEADER_BYTES:
            self.announced.put_nowait(Header.unpack(body))
        elif word == _Word.RECEIVED:
            self.received.put_nowait(None)
        else:
            raise LinkError(f"the peer sent {word}, {len(body)} bytes beside its gloo pair, which is no message")
