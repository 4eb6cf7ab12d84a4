"""Messages say what failed in words: no number of an error, no call of the system."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgeproxy.errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (
            ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5432)"),
            "Connection refused (127.0.0.1:5432)",
        ),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), "
                "[Errno 113] Connect call failed ('127.0.0.1', 1)"
            ),
            "Connection refused (::1:1), No route to host (127.0.0.1:1)",
        ),
        (FileNotFoundError(2, "No such file", "x"), "No such file: 'x'"),
        (OSError("just words"), "just words"),
        (EOFError(), "EOFError"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    ],
)
def test_it_is_said_in_words(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_connection_that_is_refused_is_said_in_words() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
        with pytest.raises(OSError, match="Connect call failed") as caught:
            asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 20))
    assert reason_of(caught.value) == f"Connection refused (127.0.0.1:{port})"
