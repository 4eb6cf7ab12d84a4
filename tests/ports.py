"""Ports for programs that are told where to listen before they do.

The kernel gives none of them to a connection in between: they are below its own range. Each worker
of the suite has others.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

LOWEST = 20_000
PORTS_EACH = 1_000
KERNELS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port that nobody has, for TCP or UDP, on any address; another one each time."""
    return next(port for port in _left if _is_free(port))


def _own_ports() -> Iterator[int]:
    """Yield the ports of this worker, from anywhere among them: another suite may run, too."""
    end = int(KERNELS.read_text().split()[0])
    assert end >= LOWEST + PORTS_EACH, f"{KERNELS} leaves too few ports from {LOWEST} on"
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = LOWEST + worker % ((end - LOWEST) // PORTS_EACH) * PORTS_EACH
    start = secrets.randbelow(PORTS_EACH)
    for number in range(PORTS_EACH):
        yield first + (start + number) % PORTS_EACH


def _is_free(port: int) -> bool:
    family, host = (
        (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "0.0.0.0")
    )
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind((host, port))
    except OSError:
        return False
    return True


_left = _own_ports()
