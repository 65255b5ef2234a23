"""A particle's wire to its synchronizer, which a test cuts where it likes: a TCP relay in threads of this process."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

_PIECE = 16 * 1024
_BUFFER = 64 * 1024
"""Of the cable's ends, so that who sends more than the cable carries has to wait, and the kernel does not."""


class Way(Enum):
    """Of the bytes."""

    UP = "to the synchronizer"
    DOWN = "to the particle"


def _nothing() -> None:
    pass


class Cable:
    """Serves one particle, which finds its address in `file`; the synchronizer's is looked up for every connection."""

    def __init__(self, synchronizer: Path, file: Path) -> None:
        self.file = file
        self.cuts = 0
        """So far."""
        self.opening: list[bytes] = []
        """The particle's first two words on its newest connection: both sides of a handshake wait in between."""
        self._synchronizer = synchronizer
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._left: dict[Way, list[int]] = {}
        self._first: Callable[[], None] = _nothing
        self._threads: list[threading.Thread] = []
        self.held = threading.Event()
        """Tensors for the particle have been held since `hold`."""
        self._whole = threading.Event()
        self._whole.set()
        self._rate: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        file.write_text(json.dumps({"address": f"{host}:{port}"}))
        self._start(self._accept)

    def cut(self) -> None:
        """End all connections as they are; new ones may come."""
        with self._lock:
            self._cut()

    def cut_after(self, way: Way, *sizes: int, first: Callable[[], None] = _nothing) -> None:
        """Cut once so many more bytes of tensors have passed, in the middle of them; then after the next size.

        Args:
            way: Of the bytes.
            sizes: How many.
            first: Called before each cut, in a thread of the cable.
        """
        with self._lock:
            self._left[way] = list(sizes)
            self._first = first

    def hold(self) -> None:
        """Let nothing more through to the particle, until the next cut."""
        self.held.clear()
        self._whole.clear()

    def throttle(self, rate: float | None) -> None:
        """Carry so many bytes of tensors a second to the synchronizer; None: as many as can be.

        Of connections that are made afterwards no more than some MB wait in the particle's kernel.
        """
        self._rate = rate
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def close(self) -> None:
        """For ever."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()
        self._whole.set()
        self.cuts += 1

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        try:
            hello = near.recv(_PIECE)
            host, _, port = json.loads(self._synchronizer.read_text())["address"].rpartition(":")
            far = socket.create_connection((host, int(port)))
        except (OSError, ValueError):
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tensors = b'"purpose":"link"' in hello
        if not tensors:
            self.opening = [hello]
        with self._lock:
            self._ends += (near, far)
        back = threading.Thread(target=self._carry, args=(far, near, Way.DOWN, tensors))
        back.start()
        self._carry(near, far, Way.UP, tensors, hello)
        back.join()
        near.close()
        far.close()

    def _carry(self, source: socket.socket, target: socket.socket, way: Way, tensors: bool, piece: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            while True:
                target.sendall(piece)
                if tensors and way is Way.UP and self._rate:
                    time.sleep(len(piece) / self._rate)
                piece = source.recv(_PIECE)
                if not piece:
                    break
                if way is Way.DOWN:
                    if tensors and not self._whole.is_set():
                        self.held.set()
                    self._whole.wait()
                elif not tensors and len(self.opening) < 2:
                    self.opening.append(piece)
                if tensors and (part := self._share(way, len(piece))) is not None:
                    target.sendall(piece[:part])
                    self._first()
                    self.cut()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _share(self, way: Way, size: int) -> int | None:
        """How many of so many bytes pass before the cut; None: all, and there is none yet."""
        with self._lock:
            left = self._left.get(way)
            if not left:
                return None
            if left[0] > size:
                left[0] -= size
                return None
            return left.pop(0)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()
