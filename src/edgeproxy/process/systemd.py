"""Talks to systemd: says when the proxy is ready and alive, takes the sockets it was given.

Without systemd all of it does nothing. See sd_notify(3) and sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3


def notify(*lines: str) -> None:
    """Send these lines to the service manager, if there is one. Never raises."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    if where.startswith("@"):
        where = "\0" + where[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.sendto("\n".join(lines).encode(), where)
    except OSError:
        pass  # the manager notices by itself that it got no message


def watchdog_secs(environ: Mapping[str, str] = os.environ) -> float:
    """Return the service manager's watchdog timeout in seconds; 0: it has no watchdog."""
    meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
    text = environ.get("WATCHDOG_USEC", "")
    if meant_for != str(os.getpid()) or not text.isdigit():
        return 0.0
    return int(text) / 1e6


def given_sockets() -> list[socket.socket]:
    """Return the listening sockets that this process was started with. Only once."""
    meant_for = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdigit():
        return []
    return [socket.socket(fileno=FIRST_FD + number) for number in range(int(count))]
