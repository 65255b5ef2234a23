"""Socket options of a link."""

import socket
from typing import Final

PROGRESS_SECONDS: Final = 5.0
"""Without a byte for so long, a transfer under way has failed."""

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_PROBES = 3


def tune(sock: socket.socket, progress_seconds: float = PROGRESS_SECONDS) -> None:
    """Make a connected TCP socket non-blocking, prompt, and sure to notice a peer that is gone without a word.

    An unreachable peer is given up after twice the progress time. Not less: Linux applies TCP_USER_TIMEOUT also to
    a peer that is alive and only keeps its window shut because nobody reads.

    The buffers stay the kernel's to size: a size set by hand ends their growth and is cut at net.core.wmem_max,
    208 KiB on a stock host, and none that was tried was faster.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(int(2000 * progress_seconds), 2**31 - 1))
