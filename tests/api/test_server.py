"""A caller that sends its request too slowly loses its connection."""

from __future__ import annotations

import socket
import time

from edgeproxy.api.guard import Guard
from edgeproxy.api.server import Server
from edgeproxy.api.settings import NO_TOKEN, ApiSettings
from tests.api.test_guard import fine
from tests.control.serving import raw, served

TIMEOUT_SECS = 0.3


def server(timeout_secs: float) -> Server:
    """Return a server whose callers have so long for a request."""
    guard = Guard(fine, ApiSettings(timeout_secs=timeout_secs), NO_TOKEN)
    return Server(guard, timeout_secs, 100, 1 << 16)


def test_a_request_in_time_is_answered() -> None:
    with served(server(timeout_secs=20)) as address:
        assert raw(address, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200 "
        )


def test_a_request_that_comes_too_slowly_is_cut() -> None:
    with served(server(TIMEOUT_SECS)) as address:
        for sent in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\n"):
            began = time.monotonic()
            assert raw(address, sent) == b""
            assert time.monotonic() - began < 3


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    slow = b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    with (
        served(server(TIMEOUT_SECS)) as address,
        socket.create_connection(address, 10) as asking,
    ):
        asking.sendall(slow)
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
