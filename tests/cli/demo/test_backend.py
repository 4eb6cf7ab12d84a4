"""The sample backend: tells who it is, to every kind of client, and ends with its owner."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cli.demo import backend
from edgeproxy.cli.demo.backend import LINE_BYTES, MAX_INSTALMENTS, numbered_lines

DEADLINE_SECS = 20


class Running:
    """A sample backend in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(backend.__file__), "sa-node-1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECS)

    def get(self, path: str) -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.headers["X-Backend"], response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.process.communicate(timeout=DEADLINE_SECS)  # closes stdin, so that it ends
    assert running.process.returncode == 0


@given(count=st.integers(0, 5 * MAX_INSTALMENTS))
def test_lines_are_numbered_and_of_one_length(count: int) -> None:
    instalments = list(numbered_lines("eu-node-2", count))
    lines = b"".join(instalments).splitlines(keepends=True)
    assert all(len(line) == LINE_BYTES for line in lines)
    assert [line.split() for line in lines] == [
        f"eu-node-2 line {number} of {count}".encode().split() for number in range(1, count + 1)
    ]


def test_many_lines_come_in_few_instalments() -> None:
    assert len(list(numbered_lines("eu-node-2", 300_000))) == MAX_INSTALMENTS


def test_it_answers_every_line_of_a_plain_client(running: Running) -> None:
    with running.connect() as client, client.makefile("rwb", 0) as stream:
        for line in (b"hello\n", b"\n", b"who are you?\r\n"):
            stream.write(line)
            assert stream.readline() == b"sa-node-1: " + line.strip() + b"\n"


def test_it_tells_its_id_over_http(running: Running) -> None:
    assert running.get("/") == (200, "sa-node-1", b"sa-node-1\n")


def test_it_sends_numbered_lines_over_http(running: Running) -> None:
    expected = b"".join(numbered_lines("sa-node-1", 1234))
    assert running.get("/lines/1234") == (200, "sa-node-1", expected)
    assert running.get("/lines/0/1") == (200, "sa-node-1", b"")


@pytest.mark.parametrize("path", ["/favicon.ico", "/lines", "/lines/x", "/lines/1/-1"])
def test_other_paths_are_not_found(running: Running, path: str) -> None:
    assert running.get(path)[0] == 404


def test_a_client_that_leaves_early_harms_nobody(running: Running) -> None:
    with running.connect() as client:
        client.sendall(b"GET /lines/1000000 HTTP/1.0\r\n\r\n")
        client.recv(100)
    assert running.get("/")[0] == 200
