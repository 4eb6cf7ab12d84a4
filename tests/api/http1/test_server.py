"""A caller that sends its request too slowly is refused, and loses its connection."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import ExitStack

import pytest

from edgeproxy.api.guard import Guard, Receive, Scope, Send
from edgeproxy.api.http1 import connection
from edgeproxy.api.http1 import server as server_module
from edgeproxy.api.http1.connection_limits import Room
from edgeproxy.api.http1.server import AT_ONCE, Server
from edgeproxy.api.settings import NO_TOKEN, ApiSettings
from edgeproxy.core.backends.leases import Leases
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from tests.api.http1.rig import App, reset, serving
from tests.api.test_guard import guard_of
from tests.control.serving import raw, rest_of
from tests.waiting import wait_until

HASTY = ApiSettings(timeout_secs=0.3)
ASKED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def status_of(answer: bytes) -> bytes:
    """Return the status of an answer, nothing if there is none."""
    return answer[9:12]


def test_a_request_in_time_is_answered() -> None:
    with serving(App()) as address:
        assert raw(address, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200 "
        )


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b"GET /hea", b"408"),
        (b"GET /health HTTP/1.1\r\n", b"408"),
        (b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", b"408"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na:\r\n", b"408"),
    ],
)
def test_a_request_that_comes_too_slowly_is_refused(sent: bytes, status: bytes) -> None:
    with serving(App(), HASTY) as address:
        assert status_of(raw(address, sent)) == status


def test_bytes_that_are_no_request_move_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither empty lines after an answer, nor a request that never ends."""
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECS", 0.3)
    for drop in (b"\r\n", b"a:\r\n"):
        with (
            serving(App(), HASTY) as address,
            socket.create_connection(address, 10) as asking,
        ):
            asking.sendall(ASKED if drop == b"\r\n" else ASKED[:-2])
            if drop == b"\r\n":
                assert asking.recv(1 << 16).startswith(b"HTTP/1.1 200 ")

            def is_cut(asking: socket.socket = asking, drop: bytes = drop) -> bool:
                try:
                    asking.sendall(drop)
                except OSError:
                    return True
                return False

            wait_until(is_cut, "the end")


def test_an_answer_that_is_not_read_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECS", 0.3)
    room_for_one = Room(most=2, ceiling=1 << 16, reserve_ceiling=1 << 16)
    with (
        serving(App(large=40_000_000), HASTY, room_for_one) as address,
        socket.create_connection(address, 10) as asking,
    ):
        asking.sendall(ASKED.replace(b"/health", b"/large"))
        assert asking.recv(9) == b"HTTP/1.1 "
        wait_until(lambda: _is_answered(address), "room for another")
        assert len(rest_of(asking)) < 40_000_000


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /", ASKED[:-2]])
def test_who_sends_no_more_and_reads_nothing_is_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """The answer is small, so it waits in the memory of the process without stopping anything."""
    monkeypatch.setattr(connection, "KEEP_ALIVE_SECS", 0.3)
    room_for_one = Room(most=2, ceiling=1 << 16, reserve_ceiling=1 << 16)
    with (
        serving(App(large=60_000), HASTY, room_for_one, send_buffer_bytes=4096) as address,
        socket.socket() as asking,
    ):
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect(address)
        asking.sendall(ASKED.replace(b"/health", b"/large"))
        assert asking.recv(9) == b"HTTP/1.1 "
        asking.sendall(sent)
        asking.shutdown(socket.SHUT_WR)
        wait_until(lambda: _is_answered(address), "room for another")


def _is_answered(address: tuple[str, int]) -> bool:
    try:
        return raw(address, ASKED.replace(b"Host", b"Connection: close\r\nHost")) != b""
    except OSError:
        return False


def test_those_who_have_asked_hear_the_answer_when_the_server_stops() -> None:
    with serving(App()) as address:
        asking = socket.create_connection(address, 10)
        asking.sendall(ASKED)
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    assert rest_of(asking) == b""
    asking.close()


async def faults_with_one_who_leaves(*, early: bool) -> list[str]:
    """Return the faults of a loop that serves a caller who leaves.

    `early`: with a reset, before it is accepted; else before its answer, which is then reset.
    """
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: faults.append(str(context)))
    has_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        has_asked.set()
        await may_answer.wait()
        await App()(scope, receive, send)

    guard = Guard(app, ApiSettings(), NO_TOKEN, lambda _caller, _now: None)
    server = Server(guard, MissedHeartbeats(Leases(60.0), dict), 20.0, Room(1000, 1 << 16, 1 << 16))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asking = socket.create_connection(listening.getsockname(), 20)
        if early:
            reset(asking)
        await server.serve(listening)
        if not early:
            asking.sendall(ASKED)
            await has_asked.wait()
            asking.close()
            (served,) = server._connections
            while not served._is_last:  # it has read the end
                await asyncio.sleep(0)
            may_answer.set()
            while server._connections:
                await asyncio.sleep(0)
        else:
            with socket.create_connection(listening.getsockname(), 20) as other:
                other.sendall(ASKED)
                await has_asked.wait()  # so the first one was accepted
        await server.close()
    gc.collect()  # a task tells of its fault at its end
    await asyncio.sleep(0)
    return faults


@pytest.mark.parametrize("early", [True, False])
def test_who_leaves_at_once_is_no_fault_and_is_not_kept(early: bool) -> None:
    assert asyncio.run(asyncio.wait_for(faults_with_one_who_leaves(early=early), 10)) == []


async def serve_until_nobody_waits(missed_heartbeats: MissedHeartbeats, count: int) -> bool:
    """Serve so many callers, who were there before the server; return whether it was behind."""
    guard, _ = guard_of(HASTY)
    server = Server(guard, missed_heartbeats, 20.0, Room(1000, 1 << 16, 1 << 16))
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening, ExitStack() as kept:
        for _ in range(count):
            kept.enter_context(socket.create_connection(listening.getsockname(), 20))
        await server.serve(listening)
        was_behind = False
        turns = 0
        while turns < 1000 and not (was_behind and not missed_heartbeats.is_behind):
            await asyncio.sleep(0)
            was_behind = was_behind or missed_heartbeats.is_behind
            turns += 1
        await server.close()
    return was_behind and not missed_heartbeats.is_behind


@pytest.mark.parametrize("count", [AT_ONCE, AT_ONCE + 1, AT_ONCE * 5])
def test_a_server_is_behind_while_callers_wait_and_not_after(count: int) -> None:
    leases = Leases(60.0)
    missed_heartbeats = MissedHeartbeats(leases, dict)
    assert asyncio.run(serve_until_nobody_waits(missed_heartbeats, count))
    leases.register("a", 1000.0)
    missed_heartbeats.excuse(1030.0)
    assert leases.silence("a", 1030.0) == 30.0  # it was behind for a moment only


def test_who_waits_for_long_was_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BEHIND_SECS", 0.0)
    leases = Leases(60.0)
    missed_heartbeats = MissedHeartbeats(leases, dict)
    assert asyncio.run(serve_until_nobody_waits(missed_heartbeats, AT_ONCE * 5))
    leases.register("a", 1000.0)
    missed_heartbeats.excuse(1030.0)
    assert leases.silence("a", 1030.0) == 0.0
