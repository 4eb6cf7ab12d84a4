"""What backends and clients of a storm agree on.

A backend greets with its id. The client answers with one byte, the mode: ECHO returns all that
is sent; RESET and CLOSE return a preface, and then the backend resets or ends its direction.
"""

from __future__ import annotations

import asyncio
import socket
import struct

GREETING_BYTES = 8
PREFACE_BYTES = 1000
"""What a backend of the modes RESET and CLOSE echoes before it does so."""
ECHO, RESET, CLOSE = b"e", b"r", b"c"
CHUNK = 1 << 16

Address = tuple[str, int]


async def exactly(tcp: socket.socket, count: int) -> bytes:
    """Return `count` bytes. Raises EOFError if there are fewer."""
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(tcp, count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def reset_on_close(tcp: socket.socket) -> None:
    """Let a reset, and no FIN, be what closing this socket sends."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
