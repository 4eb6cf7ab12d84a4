"""What strangers send to the API costs nothing that grows, and takes nothing from backends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable

import pytest

from tests.system.api import Api, running, serve, serve_with
from tests.system.pop import Pop
from tests.system.proxy import RunningProxy
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

MB = 1_000_000
SENT_BYTES = 20 * MB
"""What a connection may send at most. On each a fault would keep a multiple of that."""
GROWN_BYTES = 12 * MB
CONNECTIONS = 12
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
ATTACKS = {
    "trailers": (CHUNKED + b"0\r\n", b"a:\r\n"),
    "chunk extensions": (CHUNKED, b"1;aaaaaaaaaaaaa\r\nx\r\n"),
    "fields": (HEAD[:-2], b"a:\r\n"),
    "requests": (b"", b"GET /x HTTP/1.1\r\n\r\n"),
    "a body": (HEAD, b"x"),
}
STRANGERS: dict[str, dict[str, str]] = {
    "not allowed": {"EDGEPROXY_API_ALLOW": "192.0.2.0/24"},
    "without the token": {"EDGEPROXY_API_TOKEN": "t0ken"},
    "allowed": {},
}


def flood(address: tuple[str, int], start: bytes, drop: bytes) -> int:
    """Send a start, then drops until the API ends it; return how many bytes were taken."""
    wave = drop * (32_768 // len(drop))
    sent = 0
    with socket.create_connection(address, timeout=20) as tcp:
        try:
            tcp.sendall(start)
            while sent < SENT_BYTES:
                tcp.sendall(wave)
                sent += len(wave)
        except OSError:
            pass
    return sent


@pytest.mark.parametrize("who", STRANGERS)
def test_memory_does_not_follow_what_strangers_send(pop: Pop, who: str) -> None:
    api = serve(pop, **STRANGERS[who])
    for attack in ATTACKS.values():  # what is imported late is imported
        assert flood(api.address, *attack) < SENT_BYTES
    before = pop.proxy.memory_bytes()
    sent = 0
    for attack in ATTACKS.values():
        for _ in range(CONNECTIONS):
            sent += flood(api.address, *attack)
    grown = pop.proxy.memory_bytes() - before
    assert grown < GROWN_BYTES, f"{grown / MB:.1f} MB more after {sent / MB:.1f} MB"
    assert pop.proxy.is_running()


def test_memory_is_bounded_while_they_stay_connected(pop: Pop) -> None:
    """Of each connection a part of one request is kept, and not what came after it."""
    api = serve(pop)
    api.ask("GET", "/health")
    before = pop.proxy.memory_bytes()
    wave = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 8000
    crowd = [socket.create_connection(api.address, timeout=20) for _ in range(40)]
    for tcp in crowd:
        tcp.setblocking(False)
        try:
            tcp.send(wave)
        except OSError:
            pass
    assert api.ask("GET", "/health").status == 200
    assert pop.proxy.memory_bytes() - before < 2 * GROWN_BYTES
    for tcp in crowd:
        tcp.close()


class Crowd:
    """Silent connections from several addresses to one API, opened again when they are closed."""

    def __init__(self, pop: Pop, api: Api, *sources: str) -> None:
        self._pop = pop
        self._api = api
        self._sources = sources
        self._held: list[socket.socket] = []

    def press(self, count: int = 60) -> None:
        """Open so many more connections from each address."""
        for source in self._sources:
            for _ in range(count):
                tcp = socket.create_connection(self._api.address, 20, (source, 0))
                self._held.append(self._pop.keep(tcp))


def test_registered_backends_are_heard_when_others_hold_every_connection(pop: Pop) -> None:
    api = serve_with(pop, 400, EDGEPROXY_API_ALLOW="127.0.0.0/8")
    backend = running(pop, "a")
    assert api.register(backend).status == 201
    crowd = Crowd(pop, api, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    crowd.press(120)
    pop.proxy.wait_for("api_full")
    for _ in range(20):
        assert api.beat("a") == 200
    assert api.ask("GET", "/health").status == 200
    assert pop.reached() == "a"


def outlasts_its_lease(pop: Pop, ttl_secs: float, during: Callable[[], object]) -> bool:
    """Return whether no lease expires in four times its length, in which something happens."""
    end = time.monotonic() + 4 * ttl_secs
    while time.monotonic() < end:
        during()
        PAUSE.wait(0.05)
    return not pop.proxy.seen("lease_expired")


def test_no_lease_expires_for_want_of_room(pop: Pop) -> None:
    """Heartbeats that come from an address that is not known find no room, like all others."""
    api = serve_with(pop, 400, EDGEPROXY_HEARTBEAT_TTL_SECS="1")
    assert api.register(running(pop, "a")).status == 201
    crowd = Crowd(pop, api, "127.0.0.2", "127.0.0.3", "127.0.0.4")
    crowd.press(120)
    pop.proxy.wait_for("api_full")

    def beat_in_vain() -> None:
        crowd.press(1)
        try:
            Api(pop, "127.0.0.8").beat("a")
        except OSError:
            pass

    assert outlasts_its_lease(pop, 1.0, beat_in_vain)
    assert pop.reached() == "a"


def take_descriptors(proxy: RunningProxy) -> tuple[int, int]:
    """Leave a process no descriptor; return the limits that it had."""
    limits = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{proxy.pid}/fd")) + 1
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    return limits


def test_no_lease_expires_for_want_of_descriptors(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="1")
    assert api.register(running(pop, "a")).status == 201
    limits = take_descriptors(pop.proxy)
    # Those that find free numbers below the limit stay; the others wait in the queue.
    waiting = [pop.keep(socket.create_connection(api.address, 20)) for _ in range(40)]
    pop.proxy.wait_for("api_full")
    assert outlasts_its_lease(pop, 1.0, lambda: None)
    resource.prlimit(pop.proxy.pid, resource.RLIMIT_NOFILE, limits)
    for tcp in waiting:
        tcp.close()
    wait_until(lambda: api.beat("a") == 200, "it is heard")
    assert pop.reached() == "a"


def test_a_heartbeat_that_came_in_time_counts_although_the_proxy_stood_still(pop: Pop) -> None:
    """Not for so long that its leases are excused, but over the end of one; others come first."""
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="2")
    assert api.register(running(pop, "a")).status == 201
    registered = time.monotonic()
    wait_until(lambda: time.monotonic() - registered > 1.3, "most of the lease is over")
    pop.proxy.send(signal.SIGSTOP)
    try:
        asking = [pop.keep(socket.create_connection(api.address, 20)) for _ in range(400)]
        for each in asking[:-1]:
            each.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        asking[-1].sendall(b"POST /api/v1/heartbeat/a HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: time.monotonic() - registered > 2.3, "it should have ended")
    finally:
        pop.proxy.send(signal.SIGCONT)
    assert {each.recv(12) for each in asking} == {b"HTTP/1.1 200"}
    assert not pop.proxy.seen("lease_expired")
