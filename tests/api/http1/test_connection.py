"""Whatever is sent, a connection costs little, is answered in HTTP, and ends."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.api.http1 import connection, server
from edgeproxy.api.http1.connection import MAX_FIELDS, MAX_HEAD_BYTES
from edgeproxy.api.settings import ApiSettings
from edgeproxy.values import networks
from tests.api.http1.rig import PATIENCE_SECS, Address, App, Pieces, reset, serving
from tests.control.serving import raw, rest_of
from tests.waiting import PAUSE

CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
JSON_TYPE = b"Content-Type: application/json\r\n"
STATUSES = {200, 400, 403, 405, 408, 413, 415, 431}
WAVE = 64 * 1024


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serving(App()) as address:
        yield address


@pytest.fixture(scope="module")
def closed_address() -> Iterator[Address]:
    """An API that does not allow this caller."""
    limits = ApiSettings(timeout_secs=PATIENCE_SECS, allow=networks("192.0.2.0/24"))
    with serving(App(), limits) as address:
        yield address


def flood(address: Address, start: bytes, drop: bytes, most_bytes: int) -> int:
    """Send a start, then drops until the peer ends it; return how many bytes."""
    wave = drop * (WAVE // len(drop))
    sent = 0
    with socket.create_connection(address, 20) as asking:
        try:
            asking.sendall(start)
            while sent < most_bytes:
                asking.sendall(wave)
                sent += len(wave)
        except OSError:
            pass
    return sent


ENDLESS = {
    "empty lines": (b"", b"\r\n"),
    "a target": (b"GET /", b"a"),
    "fields": (b"GET / HTTP/1.1\r\n", b"a:\r\n"),
    "one field": (b"GET / HTTP/1.1\r\na:", b" "),
    "trailers": (CHUNKED + b"\r\n0\r\n", b"a:\r\n"),
    "one trailer": (CHUNKED + b"\r\n0\r\na:", b"a"),
    "a chunk extension": (CHUNKED + b"\r\n1;a=", b"a"),
    "chunk extensions": (CHUNKED + b"\r\n", b"1;aaaaaaaaaaaaa\r\nx\r\n"),
    "small chunks": (CHUNKED + b"\r\n", b"1\r\nx\r\n"),
    "a size of a chunk": (CHUNKED + b"\r\n", b"0"),
    "requests": (b"", b"GET / HTTP/1.1\r\n\r\n"),
    "what follows an answer": (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"a"),
    "what follows a fault": (b"nonsense\r\n\r\n", b"a"),
    "an upgraded connection": (
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"a",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_nothing_is_read_without_end(address: Address, kind: str) -> None:
    most_bytes = 30_000_000  # more than the system's buffers hold
    assert flood(address, *ENDLESS[kind], most_bytes) < most_bytes


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_caller_that_is_not_allowed_is_never_parsed(closed_address: Address, kind: str) -> None:
    start, drop = ENDLESS[kind]
    answer = raw(closed_address, start or drop)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"EDGEPROXY_API_ALLOW" in answer
    assert b"connection: close" in answer
    most_bytes = 30_000_000
    assert flood(closed_address, start, drop, most_bytes) < most_bytes


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 15_000 + b"\r\n",
        b"GET / HTTP/1.1\r\na:" + b" " * 100_000 + b"b\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\r\n" * 50_000 + b"GET / HTTP/1.1\r\n\r\n",
        CHUNKED + b"\r\n0\r\n" + b"a: b\r\n" * 15_000 + b"\r\n",
        CHUNKED + JSON_TYPE + b"\r\n" + b"1\r\n1\r\n" * 20_000 + b"0\r\n\r\n",
    ],
    ids=("fields", "blanks", "target", "empty lines", "trailers", "chunk sizes"),
)
def test_a_head_that_comes_in_one_piece_has_the_same_limit(address: Address, sent: bytes) -> None:
    assert len(sent) > MAX_HEAD_BYTES
    assert raw(address, sent).startswith(b"HTTP/1.1 431 ")


def test_the_limits_are_exact(address: Address) -> None:
    end = b"\r\nConnection: close\r\n\r\n"
    start = b"GET / HTTP/1.1\r\na:"
    fits = start + b"b" * (MAX_HEAD_BYTES - len(start) - len(end)) + end
    assert raw(address, fits).startswith(b"HTTP/1.1 200 ")
    assert raw(address, fits.replace(b"a:", b"aa:")).startswith(b"HTTP/1.1 431 ")
    fields = b"".join(b"a%d: b\r\n" % number for number in range(MAX_FIELDS - 1))
    fits = b"GET / HTTP/1.1\r\n" + fields + end[2:]
    assert raw(address, fits).startswith(b"HTTP/1.1 200 ")
    assert raw(address, fits.replace(b"a1:", b"b: c\r\na1:")).startswith(b"HTTP/1.1 431 ")
    for size, status in ((65_536, 200), (65_537, 413)):
        head = b"POST /x HTTP/1.1\r\nConnection: close\r\n" + JSON_TYPE
        body = bytes(size)
        answer = raw(address, head + b"Content-Length: %d\r\n\r\n" % size + body)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        sent = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + body + b"\r\n0\r\n\r\n"
        assert raw(address, head + sent).startswith(b"HTTP/1.1 %d " % status)


def test_a_length_that_is_too_long_is_refused_before_the_body_comes(address: Address) -> None:
    head = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 65537\r\n\r\n"
    assert raw(address, head).startswith(b"HTTP/1.1 413 ")


def test_who_asks_whether_to_go_on_hears_so(address: Address) -> None:
    head = b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\n" + JSON_TYPE
    with socket.create_connection(address, 20) as asking:
        asking.sendall(head + b"Content-Length: 2\r\nConnection: close\r\n\r\n")
        assert asking.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        asking.sendall(b"{}")
        assert rest_of(asking).endswith(b"\r\n\r\n{}")


def test_one_connection_carries_many_requests(address: Address) -> None:
    with socket.create_connection(address, 20) as asking:
        for number in range(50):
            body = b"%d" % number
            head = CHUNKED + JSON_TYPE + b"\r\n%x\r\n" % len(body)
            asking.sendall(head + body + b"\r\n0\r\na: b\r\n\r\n")
            answer = asking.recv(1 << 16)
            assert answer.endswith(b"\r\n\r\n" + body)
            assert b"connection" not in answer


def test_a_fault_ends_a_connection_only_where_its_request_goes_on() -> None:
    """Those who ask too fast and have no body need no new connection for each answer."""
    with (
        serving(App(), ApiSettings(timeout_secs=PATIENCE_SECS, rate_limit=1)) as address,
        socket.create_connection(address, 20) as asking,
    ):
        for _ in range(20):
            asking.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
            answer = asking.recv(1 << 16)
            assert b"connection: close" not in answer
        assert answer.startswith(b"HTTP/1.1 429 ")
        asking.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        answer = rest_of(asking)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"connection: close" in answer


def test_what_comes_before_an_answer_is_not_answered_and_the_connection_ends() -> None:
    app = App()
    with serving(app) as address:
        answer = raw(address, b"GET / HTTP/1.1\r\n\r\n" * 1000)
        assert answer.count(b"HTTP/1.1 200 ") == 1
        assert b"connection: close" in answer
    assert len(app.asked) == 1


def test_no_body_answers_head(address: Address) -> None:
    asked = b"%s /large HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = raw(address, asked % b"HEAD")
    assert b"content-length: 4000000\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    assert len(raw(address, asked % b"GET")) > 4_000_000


def test_who_sends_no_more_still_gets_an_answer(address: Address) -> None:
    with socket.create_connection(address, 20) as asking:
        asking.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        asking.shutdown(socket.SHUT_WR)
        assert len(rest_of(asking)) > 4_000_000


TOKENS = st.sampled_from(
    [
        *(b"GET", b"POST", b"CONNECT", b" ", b"/", b"/x?a=%2f", b"*", b"http://a/b", b" HTTP/1.1"),
        *(b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b"Host: x"),
        *(b"Content-Length: 2", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"{}", b"1"),
        *(b"Transfer-Encoding: gzip", b"Connection: close", b"Connection: upgrade", b"Upgrade: x"),
        *(b"Expect: 100-continue", b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b";a=b", JSON_TYPE),
        *(b"GET / HTTP/1.1\r\n\r\n", CHUNKED, b"a" * 5000, b"\0", b"\xff\xfe", b"PRI * HTTP/2.0"),
    ]
)
ANSWER = re.compile(
    rb"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z ]+\r\n((?:[a-z-]+: [^\r\n]*\r\n)*)\r\n", re.DOTALL
)


def statuses_of(answers: bytes) -> list[int]:
    """Return the status of each answer in these bytes, which hold nothing else."""
    statuses = []
    while answers:
        found = ANSWER.match(answers)
        assert found, answers[:200]
        answers = answers[found.end() :]
        status = int(found[1])
        if status == 100:
            continue
        length = re.search(rb"content-length: (\d+)\r\n", found[2])
        assert length
        answers = answers[int(length[1]) :]
        statuses.append(status)
    return statuses


@settings(deadline=None, max_examples=150)
@given(st.lists(TOKENS | st.binary(max_size=20), max_size=12), st.integers(0, 200))
def test_whatever_is_sent_the_answers_are_http(
    address: Address, tokens: list[bytes], cut: int
) -> None:
    sent = b"".join(tokens)
    with socket.create_connection(address, 20) as asking:
        asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            asking.sendall(sent[:cut])
            asking.sendall(sent[cut:])
            asking.shutdown(socket.SHUT_WR)
            answers = rest_of(asking)
        except OSError:  # the peer has answered before, and does not wait for all of it
            return
    assert set(statuses_of(answers)) <= STATUSES


SIZES = (
    (70_000,),
    (1_000_000,),
    (65_536,) * 20,
    (1, 65_537, 3, 200_000, 32_768, 0, 99),
    (100,) * 2000,
)
"""Of the pieces of a large answer: each byte comes once, in order, however slowly it is read."""


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


LARGE = (65_536,) * 20
STEPS = 20


@pytest.mark.parametrize("is_fast_enough", [True, False])
def test_who_reads_steadily_has_as_long_as_a_slow_rate_takes(
    monkeypatch: pytest.MonkeyPatch, is_fast_enough: bool
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECS", 1.0)
    monkeypatch.setattr(connection, "LEAST_BYTES_PER_SEC", 1 if is_fast_enough else 1 << 40)
    app = Pieces(LARGE)
    with (
        serving(app, send_buffer_bytes=65_536) as address,
        socket.socket() as asking,
    ):
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        asking.settimeout(20)
        asking.connect(address)
        asking.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        got = read_head(asking)[:0]
        for _ in range(STEPS):
            PAUSE.wait(0.1)  # longer in all than the patience with who reads nothing
            with suppress(OSError):
                got += asking.recv(len(app.whole) // STEPS, socket.MSG_WAITALL)
        with suppress(OSError):
            while is_fast_enough and len(got) < len(app.whole):
                got += asking.recv(65_536)
    assert (got == app.whole) is is_fast_enough


def test_an_answer_is_whole_although_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ENDING_SECS", 20.0)
    app = Pieces(LARGE)
    with ThreadPoolExecutor(1) as reader, socket.socket() as asking:
        with serving(app, send_buffer_bytes=65_536) as address:
            asking.settimeout(20)
            asking.connect(address)
            asking.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            read_head(asking)
            reading = reader.submit(read_slowly, asking, len(app.whole))
        assert reading.result() == app.whole


def test_who_breaks_off_a_large_answer_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Pieces(LARGE), send_buffer_bytes=65_536) as address:
        for _ in range(10):
            with socket.create_connection(address, 20) as asking:
                asking.sendall(b"GET /large HTTP/1.1\r\n\r\n")
                asking.sendall(b"G")  # so that nothing more is read, not even the reset
                reset(asking)
    assert not caplog.records
