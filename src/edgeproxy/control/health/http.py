"""Checks the health of a backend by HTTP: a GET, whose answer has to have the expected status.

Only the head of the answer is read, so its body may be of any length and in any coding.
"""

from __future__ import annotations

import re

from edgeproxy.control.health.connection import ProbeConnection, ProbeError
from edgeproxy.core.backends.health import ProbeSettings

ALPN = ("http/1.1",)
MAX_INTERIM = 10
"""Maximum number of interim answers (1xx) before the final one."""

_VERSION = b"HTTP/1."
_HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\0\r\n]*+)?\r?\n"
    rb"(?:(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:|[ \t])[^\0\r\n]*+\r?\n)*+\r?\n"
)
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200


async def check(connection: ProbeConnection, settings: ProbeSettings, host: str) -> str:
    """Return what is wrong with a backend, or "". Raises OSError and ProbeError."""
    await connection.send(
        f"GET {settings.path} HTTP/1.1\r\nHost: {settings.host or host}\r\n"
        "User-Agent: edgeproxy-probe\r\nConnection: close\r\n\r\n".encode("latin-1")
    )
    received = b""
    for _ in range(MAX_INTERIM + 1):
        while (end := _end(received)) == 0:
            data = await connection.receive()
            if not data:
                return "closed the connection without an answer"
            received += data
        status = _status(received[:end])
        if status == settings.status:
            return ""
        if status >= _FIRST_FINAL or status == _SWITCHING_PROTOCOLS:
            return f"HTTP status {status}"
        received = received[end:]
    return f"no HTTP: more than {MAX_INTERIM} interim answers"


def _end(received: bytes) -> int:
    """Return where the first head ends, 0 if it goes on. Raises ProbeError if it is no HTTP."""
    if not received.startswith(_VERSION[: len(received)]):
        raise ProbeError("no HTTP: the answer does not begin with HTTP/1")
    ends = [
        found + len(blank) for blank in (b"\n\r\n", b"\n\n") if (found := received.find(blank)) >= 0
    ]
    return min(ends, default=0)


def _status(head: bytes) -> int:
    """Return the status in a head. Raises ProbeError."""
    found = _HEAD.fullmatch(head)
    if found is None:
        raise ProbeError("no HTTP: a line of the answer's head is malformed")
    return int(found[1])
