"""Pages over real sockets: whoever asks badly is told so, whoever does not ask holds up nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from edgeproxy.control.admin.pages import MAX_AT_ONCE, HttpPages, Request, Response
from tests.control.serving import get, raw, rest_of, served
from tests.waiting import wait_until

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
            held.enter_context(socket.create_connection(address, 10))
            for _ in range(MAX_AT_ONCE * 2)
        ]
        assert get(address, "/hello") == b"hello "
        assert rest_of(idle[0]) == b"", "the oldest made room"
        idle[-1].sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert rest_of(idle[-1]).endswith(b"hello ")


def test_those_who_have_asked_are_not_cut_off(address: Address) -> None:
    with ExitStack() as held:
        reading = [
            held.enter_context(socket.create_connection(address, 10)) for _ in range(MAX_AT_ONCE)
        ]
        for each in reading:
            each.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = [each.recv(4) for each in reading]
        assert begun == [b"HTTP"] * MAX_AT_ONCE
        assert not _is_answered(address), "one too many"
        for each in reading:
            assert rest_of(each).endswith(LARGE)
        wait_until(lambda: _is_answered(address), "room for others")


def _is_answered(address: Address) -> bool:
    try:
        return get(address, "/hello") == b"hello "
    except OSError:
        return False
