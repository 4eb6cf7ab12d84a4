"""A server of the API whose application answers at once, or when it is let go."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgeproxy.api.guard import Guard, Receive, Scope, Send
from edgeproxy.api.http1.connection_limits import Room
from edgeproxy.api.http1.server import Server
from edgeproxy.api.settings import NO_TOKEN, ApiSettings
from edgeproxy.core.backends.leases import Leases
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from tests.control.serving import served

PATIENCE_SECS = 20.0
Address = tuple[str, int]


@dataclass
class App:
    """Counts requests and echoes their bodies; `/large` has an answer of `large` bytes.

    Attributes:
        asked: The bodies of all requests that reached it.
        large: How many bytes the answer of `/large` has.
    """

    asked: list[bytes] = field(default_factory=list)
    large: int = 4_000_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.asked.append(body)
        await asyncio.sleep(0)
        text = bytes(self.large) if scope["path"] == "/large" else body
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class Pieces(App):
    """Answers `/large` with these pieces."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        rng = random.Random(len(sizes))
        self.pieces = [rng.randbytes(size) for size in sizes]

    @property
    def whole(self) -> bytes:
        return b"".join(self.pieces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/large":
            await super().__call__(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(self.whole))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(
    app: App,
    settings: ApiSettings | None = None,
    room: Room | None = None,
    send_buffer_bytes: int | None = None,
) -> Iterator[Address]:
    """Serve an application behind the guard; give the address."""
    settings = settings or ApiSettings(timeout_secs=PATIENCE_SECS, rate_limit=1_000_000)
    guard = Guard(app, settings, NO_TOKEN, lambda _caller, _now: None)
    missed_heartbeats = MissedHeartbeats(Leases(60.0), dict)
    room = room or Room(1000, 1 << 16, 1 << 16)
    server = Server(guard, missed_heartbeats, settings.timeout_secs, room)
    with served(server, send_buffer_bytes) as address:
        yield address


def reset(asking: socket.socket) -> None:
    """Leave without a word of good-bye."""
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asking.close()
