"""A proxy that was stopped for longer than its timeouts blames nobody for that."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conformance.engines import ENGINES
from tests.conformance.peers import Peer
from tests.system import clients, tls
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until
from tests.wire import hellos

pytestmark = pytest.mark.system

TIMEOUT_SECS = 3.0
STOPPED_SECS = TIMEOUT_SECS + 1.0
MANY = 600
"""More than the events that an engine takes at once."""
MANY_SECS = 6.0
SOME = 20


@pytest.fixture(params=[kind for kind, _ in ENGINES])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@contextmanager
def stopped(pop: Pop, secs: float = STOPPED_SECS) -> Iterator[None]:
    """Let the proxy stand still for so long after this has happened."""
    pop.proxy.send(signal.SIGSTOP)
    try:
        yield
        PAUSE.wait(secs)
    finally:
        pop.proxy.send(signal.SIGCONT)


def test_no_client_that_kept_talking_is_idle(pop: Pop, kind: str) -> None:
    pop.backend("sa-1", hard_limit=0)
    proxy = pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_IDLE_TIMEOUT_SECS=str(MANY_SECS))
    talking = [pop.client("127.70.0.1") for _ in range(MANY)]
    assert {clients.greeting(client) for client in talking} == {"sa-1"}

    with stopped(pop, MANY_SECS / 2):
        PAUSE.wait(MANY_SECS / 2)  # their next check is due before they say anything
        for client in talking:
            client.send(b"y")

    assert [client.first(1) for client in talking].count(b"y") == MANY
    for client in talking:
        client.close()
    assert proxy.stop()["refused"] == "0"


def test_a_client_whose_words_are_lost_meanwhile_is_not_idle(pop: Pop, kind: str) -> None:
    pop.backend("sa-1")
    pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_IDLE_TIMEOUT_SECS=str(TIMEOUT_SECS))
    client, _ = pop.holder()
    with stopped(pop):
        pass
    PAUSE.wait(TIMEOUT_SECS / 3)  # the network sends them again
    client.send(b"again")
    assert client.first(5) == b"again"


def test_a_client_that_is_silent_for_long_after_that_is_idle(pop: Pop, kind: str) -> None:
    pop.backend("sa-1")
    pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_IDLE_TIMEOUT_SECS=str(TIMEOUT_SECS))
    client, _ = pop.holder()
    with stopped(pop):
        pass
    assert client.rest() == (b"", False)


def test_no_handshake_that_came_in_time_is_late(pop: Pop, kind: str) -> None:
    pop.backend("sa-1", hard_limit=0)
    tls.serve(pop, EDGEPROXY_ENGINE=kind, EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS=str(TIMEOUT_SECS))
    shaking = [_tls(pop) for _ in range(SOME)]

    with stopped(pop):
        for each in shaking:
            with suppress(ssl.SSLWantReadError):
                each.do_handshake()

    for each in shaking:
        each.settimeout(20)
        each.do_handshake()
    assert {clients.greeting(Peer(each)) for each in shaking} == {"sa-1"}


def _tls(pop: Pop) -> ssl.SSLSocket:
    peer = pop.keep(clients.connect(pop.proxy.address))
    wrapped = tls.context(pop).wrap_socket(
        peer.sock, server_hostname=tls.NAME, do_handshake_on_connect=False
    )
    wrapped.setblocking(False)
    pop.keep(wrapped)
    return wrapped


def test_no_first_bytes_that_came_in_time_are_late(pop: Pop, kind: str) -> None:
    pop.backend("sa-1", hard_limit=0)
    pop.serve(
        EDGEPROXY_ENGINE=kind,
        EDGEPROXY_LISTENERS="127.0.0.1:0=sni",
        EDGEPROXY_ROUTES="*=myapp",
        EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS=str(TIMEOUT_SECS),
    )
    hello = hellos.from_openssl("www.example.com")
    waiting = [pop.client() for _ in range(SOME)]
    for client in waiting:
        client.send(hello[:10])

    with stopped(pop):
        for client in waiting:
            client.send(hello[10:100])

    for client in waiting:
        client.send(hello[100:])
    assert {clients.greeting(client) for client in waiting} == {"sa-1"}


def test_no_backend_that_answered_in_time_has_failed(pop: Pop, kind: str) -> None:
    silent = pop.manual_backend("sa-1")
    silent.fall_silent()
    proxy = pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_CONNECT_TIMEOUT_SECS=str(TIMEOUT_SECS))
    client = pop.client()
    wait_until(lambda: _is_dialed(silent.port), "the dial")

    with stopped(pop):
        silent.relent()

    client.send(b"hello")
    assert pop.keep(silent.accept()).receive(5) == b"hello"
    assert not proxy.seen("dial_failed")


def _is_dialed(port: int) -> bool:
    """Return whether a SYN to this port is unanswered."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2:4] == [f"0100007F:{port:04X}", "02"] for line in lines)


def test_no_session_is_cut_by_a_drain_that_stood_still(pop: Pop, kind: str) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_SHUTDOWN_TIMEOUT_SECS=str(TIMEOUT_SECS))
    client, _ = pop.holder()
    proxy.send(signal.SIGTERM)
    proxy.wait_for("draining")
    with stopped(pop):
        client.end()
    assert client.rest() == (b"", False)
    assert proxy.last_words()["cut"] == "0"


def test_no_probe_that_was_answered_in_time_has_failed(pop: Pop) -> None:
    manual = pop.manual_backend("sa-1")
    proxy = pop.serve(
        EDGEPROXY_HEALTH_CHECK_ENABLED="true",
        EDGEPROXY_HEALTH_CHECK_TYPE="http",
        EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS="0.1",
        EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS=str(TIMEOUT_SECS),
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    probe = pop.keep(manual.accept())
    assert probe.receive(4) == b"GET "
    with stopped(pop):
        probe.send(answer)
    following = pop.keep(manual.accept())
    assert following.receive(4) == b"GET "
    following.send(answer)
    assert pop.keep(manual.accept()).receive(4) == b"GET "
    assert not proxy.seen("backend_down")
