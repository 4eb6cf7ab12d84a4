"""Each kind of probe finds what is wrong, within its time, whatever the other side does."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from edgeproxy.control.health.probe import probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import ProbeSettings

SETTINGS = ProbeSettings(enabled=True, timeout_secs=5.0)
SOON_SECS = 0.3

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Backend]:
    """Give a backend that talks like this to whoever connects."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield Backend("a", "app", "sa", "127.0.0.1", port)
    finally:
        listening.close()


def found(talk: Talk, settings: ProbeSettings) -> str:
    """Return what a probe finds of a server that talks like this."""

    async def run() -> str:
        async with server(talk) as backend:
            return await probe(backend, settings)

    return asyncio.run(run())


def says(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return talk


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    tcp = writer.get_extra_info("socket")
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def http(**settings: object) -> ProbeSettings:
    return replace(SETTINGS, kind="http", **settings)  # type: ignore[arg-type]


def test_tcp_wants_nothing_but_a_connection() -> None:
    assert found(silent, SETTINGS) == ""


@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_nobody_there(kind: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = Backend("a", "app", "sa", "127.0.0.1", unused.getsockname()[1])
        assert asyncio.run(probe(backend, replace(SETTINGS, kind=kind))) == "connection refused"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.0 200 OK\r\n\r\nall is well", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 503 No\r\n\r\n", "HTTP status 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "HTTP status 302"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: x\r\ncontent-length: 5, 6\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\nserver: old\n\n", ""),
        (b"HTTP/1.1 200\r\nx:\xff\r\n folded\r\n\r\n", ""),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP status 101"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 11, "no HTTP: more than 10 interim answers"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "no HTTP: a line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "no HTTP: a line"),
        (b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n", "no HTTP: a line"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        (b"S", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "no answer within 65536 bytes"),
    ],
)
def test_http_wants_the_status(answer: bytes, fault: str) -> None:
    assert found(says(answer), http()).startswith(fault)
    assert fault or found(says(answer), http()) == ""


def test_http_asks_as_it_is_told() -> None:
    heard = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert found(talk, http(path="/up?x=1", status=204, host="app.example")) == ""
    assert heard.startswith(b"GET /up?x=1 HTTP/1.1\r\n")
    assert b"host: app.example\r\n" in heard.lower()


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_silence_is_over_at_the_timeout(kind: str) -> None:
    began = time.monotonic()
    fault = found(silent, replace(SETTINGS, kind=kind, timeout_secs=SOON_SECS))
    assert fault == "no answer within 0.3 s"
    assert time.monotonic() - began < SOON_SECS + 2


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_reset_is_no_answer(kind: str) -> None:
    fault = found(reset, replace(SETTINGS, kind=kind))
    assert fault in ("connection reset by peer", "closed the connection without an answer")


def grpc_server(
    status: bytes, code: str = "0", asked: list[bytes] | None = None, extra: bytes = b"x"
) -> Talk:
    """Talk as a gRPC server would, with this serving status and result."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialog = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        dialog.initiate_connection()
        writer.write(dialog.data_to_send())
        while data := await reader.read(65536):
            for event in dialog.receive_data(data):
                if isinstance(event, RequestReceived):
                    headers = [tuple(map(str, pair)) for pair in event.headers or ()]
                    assert (":path", "/grpc.health.v1.Health/Check") in headers
                elif isinstance(event, StreamEnded):
                    stream = event.stream_id
                    dialog.send_headers(
                        stream,
                        [
                            (b":status", b"200"),
                            (b"content-type", b"application/grpc"),
                            (b"x-extra", extra),
                        ],
                    )
                    dialog.send_data(stream, b"\x00" + len(status).to_bytes(4, "big") + status)
                    dialog.send_headers(stream, [("grpc-status", code)], end_stream=True)
                elif asked is not None and hasattr(event, "data"):
                    asked.append(event.data)
            writer.write(dialog.data_to_send())

    return talk


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (b"\x08\x01", "0", ""),
        (b"\x08\x02", "0", "NOT_SERVING"),
        (b"", "0", "UNKNOWN"),
        (b"\x08\x09", "0", "serving status 9"),
        (b"", "12", "gRPC status 12"),
    ],
)
def test_grpc_wants_serving(status: bytes, code: str, fault: str) -> None:
    assert found(grpc_server(status, code), replace(SETTINGS, kind="grpc")) == fault


def test_grpc_asks_for_the_service() -> None:
    asked: list[bytes] = []
    settings = replace(SETTINGS, kind="grpc", service="shop.Cart")
    assert found(grpc_server(b"\x08\x01", asked=asked), settings) == ""
    assert asked == [b"\x00\x00\x00\x00\x0b\x0a\x09shop.Cart"]


def goaway(last_stream: int, code: int) -> bytes:
    """Return the frame by which a server says that it takes no more calls."""
    frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=code)
    return frame.serialize()


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([goaway(2**31 - 1, 0)], ""),
        ([goaway(2**31 - 1, 0), goaway(1, 0)], ""),
        ([goaway(0, 0)], "the server is shutting down and takes no calls"),
        ([goaway(2**31 - 1, 11)], "no gRPC: the server ended the connection with error code 11"),
        (
            [RstStreamFrame(1, error_code=7).serialize()],
            "no gRPC: the server reset the call with error code 7",
        ),
        ([WindowUpdateFrame(3, window_increment=1).serialize()], "no gRPC: NoSuchStreamError 3"),
    ],
)
def test_a_call_outlives_a_graceful_end(frames: list[bytes], fault: str) -> None:
    answering = grpc_server(b"\x08\x01")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SettingsFrame(0).serialize() + b"".join(frames))
        await answering(reader, writer)

    assert found(talk, replace(SETTINGS, kind="grpc")) == fault


def test_what_a_backend_says_is_shown_short_and_in_one_line() -> None:
    talk = grpc_server(b"", code="\x1b[31m" + "x" * 1000)
    fault = found(talk, replace(SETTINGS, kind="grpc"))
    assert fault == "gRPC status \\x1b[31m" + "x" * 183


def test_grpc_headers_may_hold_any_bytes() -> None:
    talk = grpc_server(b"\x08\x02", extra=b"\xff\xfe")
    assert found(talk, replace(SETTINGS, kind="grpc")) == "NOT_SERVING"


def test_what_speaks_no_http2_is_no_grpc() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await silent(reader, writer)

    assert found(talk, replace(SETTINGS, kind="grpc", timeout_secs=SOON_SECS))
