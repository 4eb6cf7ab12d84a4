"""Listening sockets, with every option that accepted connections inherit.

The options of connections to backends are set where they are dialed: `portable/dialer`,
`native/gate_thread/dialer` and `native/byte_thread/loop`.
"""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

BACKLOG = 4096
"""Connections the kernel may hold while accepting is paused; `somaxconn` caps it."""

ANYBODY = 0o666
"""The mode of a Unix socket: every user that can reach its directory may connect."""

KEEPALIVE_IDLE_SECS = 30
KEEPALIVE_INTERVAL_SECS = 10
KEEPALIVE_PROBES = 3


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket on `host`, an IP address; port 0 lets the system choose.

    `::` accepts IPv4 clients too. Raises OSError if the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        prepare(listening)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def open_unix_listener(path: Path) -> socket.socket:
    """Return a listening Unix socket at this path; every user that can reach it may connect.

    A socket on which no process listens any more is replaced. Raises OSError.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        listening.setblocking(False)
        listening.bind(str(path))
        path.chmod(ANYBODY)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _make_way(path: Path) -> None:
    """Remove a socket on which no process listens. Raises OSError if the path is in use."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is something else")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full
    raise FileExistsError(errno.EADDRINUSE, "another proxy listens there")


def prepare(tcp: socket.socket) -> None:
    """Set the options that both connections of a session need; accepted sockets inherit them.

    Keepalive finds an idle peer that has vanished. Urgent data stays in line, so that no
    byte is lost. `TCP_USER_TIMEOUT` is deliberately not set: Linux also applies it to a
    live peer that only stopped reading (see `engine/portable/unacked`).
    """
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECS)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECS)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
