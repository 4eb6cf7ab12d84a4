"""Answers in many pieces: every byte comes once, in order, however slowly they are read."""

from __future__ import annotations

import random
import socket

import pytest

from edgeproxy.api.guard import Receive, Scope, Send
from tests.api.http1.rig import App, serving
from tests.control.serving import rest_of

SIZES = (
    (70_000,),
    (1_000_000,),
    (65_536,) * 20,
    (1, 65_537, 3, 200_000, 32_768, 0, 99),
    (100,) * 2000,
)
"""Of the pieces of a large answer."""


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


def read_slowly(asking: socket.socket, count: int) -> bytes:
    """Return so many bytes of what comes, in bits of all sizes."""
    rng = random.Random(count)
    got = b""
    while len(got) < count:
        bit = asking.recv(min(rng.choice((1, 1000, 4096, 50_000)), count - len(got)))
        assert bit, f"it ends after {len(got)} of {count} bytes"
        got += bit
    return got


def read_head(asking: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += asking.recv(1)
    return got


@pytest.mark.parametrize("buffer_bytes", [4096, None])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
class TestLargeAnswers:
    def test_the_connection_carries_the_next_request(
        self, sizes: tuple[int, ...], buffer_bytes: int | None
    ) -> None:
        app = Pieces(sizes)
        with (
            serving(app, send_buffer_bytes=buffer_bytes) as address,
            socket.create_connection(address, 20) as asking,
        ):
            for _ in range(2):
                asking.sendall(b"GET /large HTTP/1.1\r\n\r\n")
                read_head(asking)
                assert read_slowly(asking, len(app.whole)) == app.whole
            asking.sendall(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert rest_of(asking).startswith(b"HTTP/1.1 200 ")

    def test_the_last_answer_is_whole_and_then_the_end_comes(
        self, sizes: tuple[int, ...], buffer_bytes: int | None
    ) -> None:
        app = Pieces(sizes)
        with (
            serving(app, send_buffer_bytes=buffer_bytes) as address,
            socket.create_connection(address, 20) as asking,
        ):
            asking.sendall(b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n")
            read_head(asking)
            assert read_slowly(asking, len(app.whole)) == app.whole
            assert rest_of(asking) == b""

    @pytest.mark.parametrize("ends_late", [False, True])
    def test_who_sends_no_more_gets_all_of_it(
        self, sizes: tuple[int, ...], buffer_bytes: int | None, ends_late: bool
    ) -> None:
        app = Pieces(sizes)
        with (
            serving(app, send_buffer_bytes=buffer_bytes) as address,
            socket.create_connection(address, 20) as asking,
        ):
            asking.sendall(b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n")
            if ends_late:
                asking.recv(1)
            asking.shutdown(socket.SHUT_WR)
            assert rest_of(asking).endswith(app.whole)
