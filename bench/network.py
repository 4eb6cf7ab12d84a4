"""A loopback of one's own, with the congestion control that Linux has by default.

What a machine has chosen for the internet can rule a measurement on loopback. BBR paces:
with it, every packet there waits for a timer, a gigabyte costs two to four times as much whoever
carries it, and twice as much in one run as in the next.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess

CONGESTION_CONTROL = "cubic"
CLONE_NEWNET = 0x40000000
ROUTES = ("127.0.0.0/8", "127.0.0.1")


def enter_own_loopback() -> str:
    """Move this process, and what it starts, to a new network. Return what it got, in words.

    Must be called before any thread is started. Without the rights for it, everything stays
    as it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        why = os.strerror(ctypes.get_errno())
        return f"the machine's own loopback ({why}: run as root for another), {_control()}"
    _ip("link", "set", "lo", "up")
    for route in ROUTES:
        words = ("replace", "local", route, "dev", "lo", "congctl", CONGESTION_CONTROL)
        _ip("route", *words, "table", "local")
    return f"a loopback of its own, {_control()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _control() -> str:
    """Return how connections on loopback are controlled."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        name = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return f"congestion control {name.rstrip(bytes(1)).decode()}"
