"""A probe begins like a client's connection, and a hostile backend gets little of the loop."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import hpack
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from edgeproxy.control.health.connection import MAX_BYTES, READ_BYTES, Turns
from edgeproxy.control.health.probe import probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import PLAIN, Opening, ProbeSettings
from edgeproxy.wire import proxy_v1, proxy_v2
from tests.authority import authority_pem, issued
from tests.ports import free_port

SETTINGS = ProbeSettings(enabled=True, timeout_secs=60.0)
NAME = "backend.internal"
MUCH_BYTES = 1 << 20
"""More than a probe and the kernel's buffer can hold; a flood that is read comes to much more."""


def backend_at(port: int, name: str = "a") -> Backend:
    return Backend(name, "app", "sa", "127.0.0.1", port)


# -- floods ---------------------------------------------------------------------------------


class Flood:
    """A backend that begins with some bytes and then repeats others without end.

    Attributes:
        taken_bytes: How many of them the other end's kernel has taken.
    """

    def __init__(
        self, begin: bytes, repeated: bytes, context: ssl.SSLContext | None = None
    ) -> None:
        self._said = (begin, repeated * (1 + 65536 // len(repeated)))
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.taken_bytes = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        try:
            if self._context is not None:
                client = tls = self._context.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
                tls.do_handshake()
            begin, repeated = self._said
            client.sendall(begin)
            while True:
                client.sendall(repeated)
        except OSError:
            told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
            (self.taken_bytes,) = struct.unpack_from("Q", told, 120)
        client.close()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._listening.close()


def headers(block: bytes) -> bytes:
    return HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()


H2 = SettingsFrame(0).serialize()
EARLY = headers(hpack.Encoder().encode([(":status", "103")]))
OK = headers(b"\x88")
LARGE = hpack.Encoder().encode([(":status", "103"), ("x", "y" * 3000)])

HTTP_FLOODS = {
    "interim answers": (b"", b"HTTP/1.1 100 \r\n\r\n", "interim answers"),
    "long interim answers": (b"", b"HTTP/1.1 103 E\r\n" + b"a: b\r\n" * 99 + b"\r\n", "interim"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a:\r\n", f"{MAX_BYTES} bytes"),
    "one header": (b"HTTP/1.1 200 OK\r\nx: ", b"x", f"{MAX_BYTES} bytes"),
    "a status line": (b"HTTP/1.1 200 ", b"x", f"{MAX_BYTES} bytes"),
    "zeros": (b"", b"\0", "no HTTP"),
    "a body": (b"HTTP/1.1 500 No\r\n\r\n", b"x", "HTTP status 500"),
}
GRPC_FLOODS = {
    "pings": (H2, PingFrame(0, opaque_data=b"12345678").serialize(), "64 frames"),
    "settings": (H2, H2, "64 frames"),
    "window updates": (H2, WindowUpdateFrame(0, window_increment=1).serialize(), "64 frames"),
    "priorities": (H2, PriorityFrame(1, depends_on=3, stream_weight=1).serialize(), "64 frames"),
    "resets": (H2, RstStreamFrame(3).serialize(), "64 frames"),
    "unknown frames": (H2, b"\0\0\0\x77\0\0\0\0\0", "64 frames"),
    "interim answers": (H2, EARLY, "no gRPC"),
    "data": (H2 + OK, DataFrame(1).serialize(), "64 frames"),
    "much data": (H2 + OK, DataFrame(1, b"x" * 16000).serialize(), f"{MAX_BYTES} bytes"),
    "continuations": (
        H2 + HeadersFrame(1, b"\x88").serialize(),
        ContinuationFrame(1, b"").serialize(),
        "no gRPC",
    ),
    "packed headers": (H2 + headers(LARGE), headers(b"\x88" + b"\xbe" * 1000), "Oversized"),
    "no frames": (b"", b"HTTP/1.1 400 Bad Request\r\n", "HTTP/2 frames"),
}
TLS_FLOODS = {
    "change cipher spec": (b"", b"\x14\3\3\0\1\1", "TLS"),
    "alerts": (b"", b"\x15\3\3\0\2\1\0", "TLS"),
    "a handshake message": (
        b"\x16\3\3\x40\0\2\0\xff\xff" + bytes(16380),
        b"\x16\3\3\x40\0" + bytes(16384),
        f"{MAX_BYTES} bytes",
    ),
    "a record": (b"\x17\3\3\x40\0", b"\0", "TLS"),
}
FLOODS = [
    *(pytest.param("http", PLAIN, *case, id=f"http {name}") for name, case in HTTP_FLOODS.items()),
    *(pytest.param("grpc", PLAIN, *case, id=f"grpc {name}") for name, case in GRPC_FLOODS.items()),
    *(
        pytest.param("tcp", Opening(tls_name=NAME), *case, id=f"tls {name}")
        for name, case in TLS_FLOODS.items()
    ),
]


@pytest.mark.parametrize(("kind", "opening", "begin", "repeated", "fault"), FLOODS)
def test_a_flood_is_left_early(
    kind: str, opening: Opening, begin: bytes, repeated: bytes, fault: str
) -> None:
    flood = Flood(begin, repeated)
    found = asyncio.run(probe(backend_at(flood.port), replace(SETTINGS, kind=kind), opening))
    flood.join()
    assert fault in found
    assert "within 60 s" not in found
    assert flood.taken_bytes < MUCH_BYTES


def test_session_tickets_count_too() -> None:
    context = server_context(NAME)
    context.num_tickets = 20_000
    flood = Flood(b"", b"x", context)
    settings = replace(SETTINGS, kind="http")
    found = asyncio.run(probe(backend_at(flood.port), settings, secured()))
    flood.join()
    assert found == f"no answer within {MAX_BYTES} bytes"
    assert flood.taken_bytes < MUCH_BYTES


@pytest.mark.parametrize("command", ["K", "k"])
def test_updates_of_keys_count_too(command: str, tmp_path: Path) -> None:
    """K asks for an update of our keys, too; `openssl s_server` sends one for each line."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    cert, key = issued(NAME).put(tmp_path, "server")
    port = free_port()
    words = f"s_server -tls1_3 -accept 127.0.0.1:{port} -cert {cert} -key {key}"
    with subprocess.Popen(
        [openssl, *words.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        while server.stdout.readline().strip() != b"ACCEPT":
            assert server.poll() is None
        feeding = threading.Thread(target=_feed, args=(server.stdin, command), daemon=True)
        reading = threading.Thread(target=server.stdout.read, daemon=True)
        feeding.start()
        reading.start()
        settings = replace(SETTINGS, kind="http")
        fault = asyncio.run(probe(backend_at(port), settings, secured()))
        server.kill()
        feeding.join(60)
        reading.join(60)
    assert fault in ("no answer within 256 reads", f"no answer within {MAX_BYTES} bytes")


def _feed(stdin: IO[bytes], command: str) -> None:
    """Write the same command until nobody reads."""
    with suppress(OSError):
        while True:
            stdin.write(f"{command}\n".encode() * 100)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_drops_count_too(kind: str) -> None:
    """Each read costs much more than its bytes."""
    begin = b"HTTP/1.1 200 OK\r\nx: " if kind == "http" else H2 + b"\0\x40\0\0\0\0\0\0\1"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await reader.read(1000)
        writer.write(begin)
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0)

    async def run() -> str:
        async with serving(drip) as backend:
            return await probe(backend, replace(SETTINGS, kind=kind))

    assert asyncio.run(run()) in ("no answer within 256 reads", "connection reset by peer")


async def turns_while(task: asyncio.Future[str]) -> int:
    """Return how many turns the loop has until a task is done."""
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


@pytest.mark.parametrize("kind", ["http", "grpc"])
@pytest.mark.parametrize("is_secured", [False, True])
def test_the_loop_turns_between_the_reads_of_a_probe(kind: str, is_secured: bool) -> None:
    """Whatever else runs on the loop, such as the API, has a turn after each read."""
    frame = DataFrame(1, b"x" * 1000).serialize() * 60
    begin, repeated = (b"HTTP/1.1 200 ", b"x") if kind == "http" else (H2 + OK, frame)

    async def run() -> int:
        flood = Flood(begin, repeated, server_context(NAME) if is_secured else None)
        opening = secured() if is_secured else PLAIN
        probing = asyncio.ensure_future(
            probe(backend_at(flood.port), replace(SETTINGS, kind=kind), opening)
        )
        turns = await turns_while(probing)
        assert "bytes" in probing.result() or "frames" in probing.result()
        flood.join()
        return turns

    assert asyncio.run(run()) >= 50_000 // READ_BYTES


def test_of_many_hostile_backends_one_goes_on_in_a_turn() -> None:
    """And a backend that is well is found well meanwhile, before they have had their bytes."""
    ended: list[str] = []
    floods = [Flood(b"HTTP/1.1 200 ", b"x") for _ in range(20)]

    async def run() -> int:
        turns = Turns()

        async def one(backend: Backend) -> str:
            fault = await probe(backend, replace(SETTINGS, kind="http"), PLAIN, turns)
            ended.append(backend.id)
            return fault

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async with serving(answer, "well") as well:
            hostile = [one(backend_at(flood.port, "hostile")) for flood in floods]
            probing = asyncio.gather(*hostile, one(well))
            count = await turns_while(asyncio.ensure_future(_joined(probing)))
            assert probing.result() == [f"no answer within {MAX_BYTES} bytes"] * 20 + [""]
            return count

    assert asyncio.run(run()) >= 20 * MAX_BYTES // READ_BYTES
    assert ended[0] == "well"
    for flood in floods:
        flood.join()


async def _joined(probing: asyncio.Future[list[str]]) -> str:
    return ", ".join(await probing)


@asynccontextmanager
async def serving(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], name: str = "a"
) -> AsyncIterator[Backend]:
    """Give a backend on this loop that talks like this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)  # type: ignore[misc]
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield backend_at(listening.sockets[0].getsockname()[1], name)
    finally:
        listening.close()


# -- what comes before the data -------------------------------------------------------------


def server_context(name: str, *alpn: str) -> ssl.SSLContext:
    """Return the TLS settings of a server with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = issued(name)
    with temporary(pair.chain + pair.key) as path:
        context.load_cert_chain(path)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@contextmanager
def temporary(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def secured(header: bytes = b"", alpn: tuple[str, ...] = ()) -> Opening:
    return Opening(header, NAME, authority_pem(), alpn)


class Listener:
    """A backend that notes with what one connection begins, and answers a request by HTTP.

    Attributes:
        heard: The PROXY header, the server name, the ALPN protocol and the request.
    """

    def __init__(self, header_bytes: int, context: ssl.SSLContext | None) -> None:
        self._header_bytes = header_bytes
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[object] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        client.settimeout(60)
        self.heard.append(client.recv(self._header_bytes, socket.MSG_WAITALL))
        try:
            if self._context is not None:
                self._context.sni_callback = lambda _, name, __: self.heard.append(name)
                client = tls = self._context.wrap_socket(client, server_side=True)
                self.heard.append(tls.selected_alpn_protocol())
            self.heard.append(client.recv(4096))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        except OSError as error:
            self.heard.append(type(error))
        client.close()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._listening.close()


@pytest.mark.parametrize("header", [b"", proxy_v1.UNKNOWN, proxy_v2.LOCAL])
@pytest.mark.parametrize("is_secured", [False, True])
def test_a_header_and_tls_come_first(header: bytes, is_secured: bool) -> None:
    context = server_context(NAME, "h2", "http/1.1") if is_secured else None
    listener = Listener(len(header), context)
    opening = secured(header) if is_secured else Opening(header)
    backend = backend_at(listener.port)
    assert asyncio.run(probe(backend, replace(SETTINGS, kind="http"), opening)) == ""
    listener.join()
    got, *agreed, request = listener.heard
    assert got == header
    assert agreed == ([NAME, "http/1.1"] if is_secured else [])
    host = NAME if is_secured else backend.address
    assert isinstance(request, bytes)
    assert f"\r\nHost: {host}\r\n".encode() in request


@pytest.mark.parametrize(
    ("kind", "offered", "agreed"),
    [
        ("tcp", (), None),
        ("tcp", ("h2", "http/1.1"), "h2"),
        ("tcp", ("http/1.1",), "http/1.1"),
        ("http", ("h2",), "http/1.1"),
        ("grpc", (), "h2"),
    ],
)
def test_each_kind_offers_its_protocols(
    kind: str, offered: tuple[str, ...], agreed: str | None
) -> None:
    listener = Listener(0, server_context(NAME, "h2", "http/1.1"))
    settings = replace(SETTINGS, kind=kind)
    asyncio.run(probe(backend_at(listener.port), settings, secured(alpn=offered)))
    listener.join()
    assert listener.heard[:3] == [b"", NAME, agreed]


@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_an_impostor_is_not_well(kind: str) -> None:
    listener = Listener(0, server_context("somebody.else"))
    settings = replace(SETTINGS, kind=kind)
    fault = asyncio.run(probe(backend_at(listener.port), settings, secured()))
    listener.join()
    assert fault.startswith("TLS: Hostname mismatch")
    stranger = Listener(0, server_context(NAME))
    opening = replace(secured(), ca_pem=issued("other").cert)
    fault = asyncio.run(probe(backend_at(stranger.port), settings, opening))
    stranger.join()
    assert fault.startswith("TLS: ")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"220 mail.example ESMTP\r\n", "TLS: wrong version number"),
        (b"", "TLS: closed the connection in the handshake"),
    ],
)
def test_what_speaks_no_tls_is_not_well(said: bytes, fault: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)

    async def run() -> str:
        async with serving(talk) as backend:
            return await probe(backend, SETTINGS, secured())

    assert asyncio.run(run()) in (fault, "connection reset by peer")


def test_a_host_may_have_a_name_in_the_library() -> None:
    async def run() -> str:
        async with serving(lambda *_: asyncio.sleep(0)) as backend:
            return await probe(replace(backend, wg_ip="localhost"), SETTINGS)

    assert asyncio.run(run()) == ""
