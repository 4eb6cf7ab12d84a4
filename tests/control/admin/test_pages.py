"""Pages over real sockets: whoever asks badly is told so, whoever does not ask holds up nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from edgeproxy.control.admin.acceptor import MAX_AT_ONCE, MAX_OF_ONE, CallerLimits
from edgeproxy.control.admin.pages import HttpPages, Request, Response
from tests.control.serving import get, raw, rest_of, served

Address = tuple[str, int]
LARGE = b"0123456789abcdef" * 500_000


async def hello(asked: Request) -> Response:
    return Response(f"hello {asked.query.get('name', '')}".encode())


async def large(_asked: Request) -> Response:
    return Response(LARGE)


@pytest.fixture
def address() -> Iterator[Address]:
    with served(HttpPages({"/hello": hello, "/large": large}, {"/act": hello})) as where:
        yield where


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /hello HTTP/1.1", 200, "hello "),
        ("GET /hello?name=a%20b HTTP/1.1", 200, "hello a b"),
        ("GET http://x/hello?name=c HTTP/1.1", 200, "hello c"),
        ("GET //hello HTTP/1.1", 404, "not found; the paths are: /act /hello /large\n"),
        ("POST /hello HTTP/1.1", 405, "allowed is GET or HEAD\n"),
        ("GET /act HTTP/1.1", 405, "allowed is POST\n"),
        ("HEAD /hello HTTP/1.1", 200, ""),
    ],
)
def test_answers(address: Address, request_line: str, status: int, body: str) -> None:
    head, _, got = raw(address, f"{request_line}\r\nHost: x\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert got.decode() == body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01" * 100, 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 500_000, 431),
    ],
)
def test_a_request_that_is_none_is_answered_and_not_logged(
    address: Address, caplog: pytest.LogCaptureFixture, request_: bytes, status: int
) -> None:
    assert raw(address, request_).startswith(f"HTTP/1.1 {status} ".encode())
    assert not caplog.records
    assert get(address, "/hello") == b"hello "


def test_a_large_page_arrives_whole(address: Address) -> None:
    assert get(address, "/large") == LARGE


def test_those_who_do_not_ask_make_room_for_those_who_do(address: Address) -> None:
    with ExitStack() as held:
        idle = [
            held.enter_context(socket.create_connection(address, 10)) for _ in range(MAX_OF_ONE * 2)
        ]
        assert get(address, "/hello") == b"hello "
        assert rest_of(idle[0]) == b"", "the oldest made room"
        idle[-1].sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(idle[-1]).endswith(b"hello ")


def test_those_who_do_not_read_make_room_for_those_who_do(address: Address) -> None:
    """Right from the start: a newcomer waits for room, and its answer does not fail."""
    with ExitStack() as held:
        for _ in range(MAX_OF_ONE + 16):
            deaf = held.enter_context(socket.create_connection(address, 10))
            deaf.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert get(address, "/hello") == b"hello "
        assert get(address, "/large") == LARGE


def test_those_who_read_slowly_are_not_cut_off_while_there_is_room(address: Address) -> None:
    with ExitStack() as held:
        reading = [
            held.enter_context(socket.create_connection(address, 10)) for _ in range(MAX_OF_ONE - 4)
        ]
        for each in reading:
            each.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        for each in reading:
            assert get(address, "/hello") == b"hello "
            assert rest_of(each).endswith(LARGE)


def test_who_is_not_allowed_is_told_so_and_not_read() -> None:
    limits = CallerLimits((ip_network("192.0.2.0/24"),), setting="EDGEPROXY_METRICS_ALLOW")
    with served(HttpPages({"/hello": hello}, limits=limits)) as where:
        answer = raw(where, b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"EDGEPROXY_METRICS_ALLOW" in answer
        with socket.create_connection(where, 10) as silent:
            assert rest_of(silent).startswith(b"HTTP/1.1 403 "), "before any request"


def test_strangers_take_no_room_from_others(caplog: pytest.LogCaptureFixture) -> None:
    limits = CallerLimits((ip_network("127.0.0.1"),), setting="X")
    with served(HttpPages({"/hello": hello}, limits=limits)) as where, ExitStack() as held:
        for _ in range(MAX_AT_ONCE * 2):
            stranger = held.enter_context(socket.socket())
            stranger.bind(("127.0.0.2", 0))
            stranger.connect(where)
        assert get(where, "/hello") == b"hello "
        told = [each for each in caplog.records if each.getMessage() == "page_refused"]
        assert len(told) == 1, "once a minute, not for each"


def test_descriptors_from_the_ceiling_on_are_left_to_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served(HttpPages({"/hello": hello}, limits=CallerLimits(ceiling=4))) as where:
        with socket.create_connection(where, 10) as refused:
            assert _is_over(refused)
        assert [each.getMessage() for each in caplog.records] == ["page_refused"]


def _is_over(opened: socket.socket) -> bool:
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:
        return True
