"""Carries TCP between this machine and the network namespace that holds the cluster.

Nothing else connects the two, so that no packet of the cluster can leave the machine. As a program it lets this
machine's loopback reach one port of the namespace's, and tells whoever asks in there that names outside do not exist,
since programs wait long for a name server that does not answer. It is started inside the namespace and given a
listening socket that was made outside:

    python relay.py FILE_DESCRIPTOR PORT
"""

import asyncio
import ctypes
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Streams]]

NAME_SERVER = "172.17.0.1"
"""Its address: that of the engine's default bridge, which every container reaches."""

_CLONE_NEWNET = 0x40000000


@contextmanager
def egress(pid: int) -> Iterator[str]:
    """An HTTP proxy on the loopback of a process's network namespace, for image builds that need package registries.

    Args:
        pid: a process in that namespace.

    Yields:
        The proxy's URL, as seen in the namespace.
    """
    listener = _listen_in(pid)
    started: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]] = Future()

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task.cancel))
        await _serve(listener, _dial_as_proxy)

    thread = threading.Thread(target=asyncio.run, args=[serve()], daemon=True)
    thread.start()
    loop, cancel = started.result()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(cancel)
        thread.join()


def _listen_in(pid: int) -> socket.socket:
    sockets: list[socket.socket] = []
    problems: list[OSError] = []

    def listen() -> None:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                problems.append(OSError(ctypes.get_errno(), "setns"))
                return
            sockets.append(socket.create_server(("127.0.0.1", 0)))
        finally:
            os.close(namespace)

    # A namespace is entered by a thread, which never comes back: so one that ends here.
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return sockets[0]


async def _serve(listener: socket.socket, dial: Dial) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            far_reader, far_writer = await dial(reader, writer)
            with closing(far_writer):
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    with suppress(asyncio.CancelledError):
        async with await asyncio.start_server(handle, sock=listener) as server:
            await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def _dial_as_proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Streams:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        far = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        url = urlsplit(target)
        far = await asyncio.open_connection(url.hostname, url.port or 80)
        far[1].write(head)  # servers take a request line with a whole URL, see RFC 9112, 3.2.2
    return far


class _NoSuchName(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        flags = bytes([0x81, 0x83])  # a response, recursion desired and available, NXDOMAIN: RFC 1035, 4.1.1
        self._transport.sendto(data[:2] + flags + data[4:], address)


async def _run(listener: socket.socket, port: int) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(_NoSuchName, local_addr=(NAME_SERVER, 53))
    await _serve(listener, lambda reader, writer: asyncio.open_connection("127.0.0.1", port))


def main() -> None:
    """Run until killed."""
    asyncio.run(_run(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))


if __name__ == "__main__":
    main()
