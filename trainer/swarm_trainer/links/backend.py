"""init_process_group("swarm"): how two ranks that share a torch.distributed store find each other."""

import asyncio
import contextlib
import functools
import json
import secrets
import socket
import threading
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.base import SYNCHRONIZER_RANK
from swarm_trainer.links.group import SwarmProcessGroup

NAME = "swarm"
_KEY = "swarm/address"
_TICKET_BYTES = 32
_TICKET_SECONDS = 5.0


def register() -> None:
    """Make the backend known to torch.distributed in this process; importing swarm_trainer.links does it."""
    dist.Backend.register_backend(NAME, _create, devices=["cpu"])


def _create(store: Store, rank: int, size: int, timeout: timedelta) -> SwarmProcessGroup:
    """The function that init_process_group and new_group call; the group's timeout is one of progress."""
    if size != 2:
        raise ValueError(f"the swarm backend joins 2 ranks, a synchronizer and one particle, not {size}: use gloo here")
    seconds = timeout.total_seconds()
    sock = _accept(store, seconds) if rank == SYNCHRONIZER_RANK else _connect(store, seconds)
    return SwarmProcessGroup(sock, rank, loop=_background_loop(), progress_seconds=seconds)


def _accept(store: Store, seconds: float) -> socket.socket:
    """Publish an address and a ticket, and take the connection that brings the ticket."""
    ticket = secrets.token_bytes(_TICKET_BYTES)
    deadline = time.monotonic() + seconds
    with socket.create_server((_own_address(), 0)) as server:
        host, port = server.getsockname()[:2]
        store.set(_KEY, json.dumps({"host": host, "port": port, "ticket": ticket.hex()}))
        while True:
            server.settimeout(max(0.0, deadline - time.monotonic()) or 0.001)
            try:
                sock, _ = server.accept()
            except TimeoutError:
                raise LinkTimeoutError(f"rank 1 did not connect to {host}:{port} within {seconds:g} s") from None
            sock.settimeout(_TICKET_SECONDS)
            with contextlib.suppress(OSError):
                if secrets.compare_digest(sock.recv(_TICKET_BYTES, socket.MSG_WAITALL), ticket):
                    return sock
            sock.close()


def _connect(store: Store, seconds: float) -> socket.socket:
    published = json.loads(store.get(_KEY))
    host, port = published["host"], published["port"]
    try:
        sock = socket.create_connection((host, port), timeout=seconds)
        sock.sendall(bytes.fromhex(published["ticket"]))
    except OSError as error:
        raise LinkError(f"rank 0 published {host}:{port}, which does not answer: {error}") from error
    return sock


def _own_address() -> str:
    """As gloo does it: where this host's name leads, else loopback."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


@functools.cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """The one loop of this process that moves the bytes of all groups made by init_process_group."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="swarm-links", daemon=True).start()
    return loop
