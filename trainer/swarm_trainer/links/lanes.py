"""The two directions of a framed connection, one system call at a time; no event loop and no lock in here."""

import socket
from collections import deque
from concurrent.futures import Future

import torch

from swarm_trainer.errors import LinkError
from swarm_trainer.links.frame import HEADER_BYTES, Header, memory

_PIECE = 4 << 20
"""Most bytes of one system call."""
_MARK = 1 << 20
"""While so many bytes of a tensor are missing, the loop is woken only for so many."""


class Transfer:
    """One tensor on its way; `done` is completed by whoever owns the lane and cannot be cancelled."""

    def __init__(self, tensor: torch.Tensor, tag: int, sequence: int) -> None:
        self.header = Header(tensor.dtype, tensor.numel(), tag, sequence)
        self.payload = memory(tensor)
        self.moved = 0
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()


class Lane:
    """What is under way in one direction, oldest first."""

    def __init__(self) -> None:
        self.transfers: deque[Transfer] = deque()
        self._posted = 0

    def post(self, tensor: torch.Tensor, tag: int) -> Transfer:
        """Queue a checked tensor."""
        transfer = Transfer(tensor, tag, self._posted)
        self._posted += 1
        self.transfers.append(transfer)
        return transfer

    @property
    def wanted(self) -> bool:
        """Whether there is something to move."""
        return bool(self.transfers)

    def step(self, sock: socket.socket) -> tuple[int, Transfer | None]:
        """Move some bytes of the first transfer; how many, and the transfer if that was its end.

        Raises:
            BlockingIOError: The socket has no room or no bytes.
            LinkError: The peer closed, or sent what was not asked for.
            OSError: The connection broke.
        """
        raise NotImplementedError


class Outgoing(Lane):
    """Sends each transfer as header and payload."""

    def step(self, sock: socket.socket) -> tuple[int, Transfer | None]:
        """As in Lane."""
        transfer = self.transfers[0]
        start = transfer.moved - HEADER_BYTES
        if start < 0:
            moved = sock.sendmsg([transfer.header.pack()[start:], transfer.payload[:_PIECE]])
        else:
            moved = sock.send(transfer.payload[start : start + _PIECE])
        transfer.moved += moved
        if transfer.moved < HEADER_BYTES + len(transfer.payload):
            return moved, None
        return moved, self.transfers.popleft()


class Incoming(Lane):
    """Reads one header ahead, and its payload only into a posted transfer that it fits."""

    def __init__(self) -> None:
        super().__init__()
        self._raw = memoryview(bytearray(HEADER_BYTES))
        self._raw_filled = 0
        self._header: Header | None = None
        self._mark = 1

    @property
    def wanted(self) -> bool:
        """As in Lane; the next header always is."""
        return self._header is None or bool(self.transfers)

    def step(self, sock: socket.socket) -> tuple[int, Transfer | None]:
        """As in Lane."""
        if self._header is None:
            return self._read_header(sock), None
        transfer = self.transfers[0]
        self._header.require(transfer.header)
        moved = 0
        if transfer.moved < len(transfer.payload):
            moved = _read(sock, transfer.payload[transfer.moved : transfer.moved + _PIECE])
            transfer.moved += moved
        missing = len(transfer.payload) - transfer.moved
        self._set_mark(sock, _MARK if missing >= _MARK else 1)
        if missing:
            return moved, None
        self._header = None
        return moved, self.transfers.popleft()

    def _set_mark(self, sock: socket.socket, mark: int) -> None:
        if mark != self._mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._mark = mark

    def _read_header(self, sock: socket.socket) -> int:
        moved = _read(sock, self._raw[self._raw_filled :])
        self._raw_filled += moved
        if self._raw_filled == HEADER_BYTES:
            self._raw_filled = 0
            self._header = Header.unpack(self._raw)
        return moved


def _read(sock: socket.socket, buffer: memoryview) -> int:
    moved = sock.recv_into(buffer)
    if not moved:
        raise LinkError("the peer closed the connection")
    return moved
