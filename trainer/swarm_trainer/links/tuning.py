"""Socket options of a link."""

import socket

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_PROBES = 3


def tune(sock: socket.socket, progress_seconds: float) -> None:
    """Make a connected TCP socket non-blocking, prompt, and sure to notice a peer that is gone without a word.

    An unreachable peer is given up after twice the progress time. Not less: Linux applies TCP_USER_TIMEOUT also to
    a peer that is alive and only keeps its window shut because nobody reads.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * progress_seconds))
