"""Clients who are gone before their handshake is over, and how TLS ends afterwards."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.engine.contract import CloseReason, HandshakeFailure
from edgeproxy.engine.tls import TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.tls_certificates import authority, certificate
from tests.conformance.tls_peers import TlsPeer, client_context
from tests.conformance.tls_rig import TlsRig, own, running
from tests.waiting import PAUSE, wait_until

MANY = 300
HANDSHAKES = 1000
V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
VERSIONS = pytest.mark.parametrize("version", [V1_2, V1_3], ids=["1.2", "1.3"])


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def _reasons(rig: TlsRig) -> list[str]:
    return [each[2] for each in rig.gate.departures]


def _serves(rig: TlsRig) -> None:
    client, server = rig.shaken(), rig.accept()
    client.send(b"ping")
    assert server.receive(4) == b"ping"
    client.end()
    server.end()
    assert client.rest() == Pause(b"", reset=False)


# -- before the handshake is over ---------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x03\x00\x00" * 100,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02" + bytes(60),
        os.urandom(1000),
        b"\x17\x03\x03\x00\x10" + bytes(16),
    ],
    ids=["http", "too long", "bad hello", "empty records", "alert", "SSL 2", "noise", "too early"],
)
def test_what_is_no_tls_costs_only_its_client(rig: TlsRig, said: bytes) -> None:
    rig.serve()
    tcp = Peer(rig.tcp())
    try:
        tcp.send(said)
        tcp.end()
        assert len(tcp.rest().data) < 100  # an alert
    except OSError:
        pass
    rig.gate.wait_for(lambda: rig.gate.departures, "it is gone")
    assert _reasons(rig) == [HandshakeFailure.HANDSHAKE_FAILED]
    assert rig.gate.tickets == []
    _serves(rig)


@pytest.mark.parametrize("how", [Peer.end, Peer.reset, Peer.close])
@pytest.mark.parametrize("said", [0, 1, 100, -1])
def test_a_client_may_leave_in_its_handshake(
    rig: TlsRig, said: int, how: Callable[[Peer], None]
) -> None:
    rig.serve()
    hello = rig.unshaken().sock.next_flight()
    tcp = Peer(rig.tcp())
    tcp.send(hello[: said if said >= 0 else len(hello)])
    how(tcp)
    rig.gate.wait_for(lambda: rig.gate.departures, "it is gone")
    assert _reasons(rig) == [HandshakeFailure.CLIENT_GONE]
    assert rig.gate.departures[0][1] == "main"
    _serves(rig)


def _serve_hastily(rig: TlsRig, secs: float) -> None:
    rig.serve_tls(TlsSettings((own(),), handshake_secs=secs))


@pytest.mark.parametrize("said", [0, 1, 100, -1])
def test_a_handshake_that_stops_ends_in_time(rig: TlsRig, said: int) -> None:
    _serve_hastily(rig, 0.5)
    began_at = time.monotonic()
    client = rig.unshaken()
    hello = client.sock.next_flight()
    client.sock.send_raw(hello[: said if said >= 0 else len(hello)])
    rig.gate.wait_for(lambda: rig.gate.departures, "it is gone")
    assert time.monotonic() - began_at > 0.45
    assert _reasons(rig) == [HandshakeFailure.HANDSHAKE_TIMEOUT]
    wait_until(lambda: rig.engine.live() == 0, "nobody is left")


def test_a_handshake_that_drips_ends_in_time_too(rig: TlsRig) -> None:
    _serve_hastily(rig, 0.5)
    client = rig.unshaken()
    try:
        for byte in client.sock.next_flight() * 10:
            client.sock.send_raw(bytes([byte]))
            if rig.gate.departures:
                break
            PAUSE.wait(0.005)
    except OSError:
        pass
    rig.gate.wait_for(lambda: rig.gate.departures, "it is gone")
    assert _reasons(rig) == [HandshakeFailure.HANDSHAKE_TIMEOUT]


def _many_waiting(rig: TlsRig) -> list[Peer]:
    """Return many who never end their handshakes."""
    hello = rig.unshaken().sock.next_flight()
    waiting = [Peer(rig.tcp()) for _ in range(MANY)]
    for index, each in enumerate(waiting):
        each.send(hello[: index % len(hello)])
    return waiting


def test_many_who_never_end_their_handshakes_disturb_nobody(rig: TlsRig) -> None:
    _serve_hastily(rig, 600)
    waiting = _many_waiting(rig)
    for _ in range(10):
        _serves(rig)
    assert not rig.gate.departures
    for each in waiting:
        each.close()


def test_many_who_never_end_their_handshakes_are_all_cut(rig: TlsRig) -> None:
    _serve_hastily(rig, 0.5)
    _many_waiting(rig)
    rig.gate.wait_for(lambda: len(rig.gate.departures) == MANY + 1, "all of them are gone")
    assert set(_reasons(rig)) == {HandshakeFailure.HANDSHAKE_TIMEOUT}
    wait_until(lambda: rig.engine.live() == 0, "nobody is left")


# -- while others act -----------------------------------------------------------------------


def test_handshakes_go_on_when_sessions_are_closed(rig: TlsRig) -> None:
    rig.serve()
    served = rig.shaken()
    server = rig.accept()
    client = rig.unshaken()
    client.sock.send_raw(client.sock.next_flight())
    wait_until(lambda: rig.engine.live() == 2, "it is there")
    rig.engine.close_sessions()
    assert served.rest() == server.rest() == Pause(b"", reset=False)
    client.sock.take_in()
    client.sock.shake_hands()
    other = rig.accept()
    client.send(b"x")
    assert other.receive(1) == b"x"


@pytest.mark.parametrize("how", ["stop_accepting", "unlisten"])
def test_handshakes_go_on_when_their_listener_is_closed(rig: TlsRig, how: str) -> None:
    rig.serve()
    client = rig.unshaken()
    client.sock.send_raw(client.sock.next_flight())
    if how == "unlisten":
        rig.engine.unlisten("main")
    else:
        rig.engine.stop_accepting()
    client.sock.take_in()
    client.sock.shake_hands()
    server = rig.accept()
    client.send(b"x")
    assert server.receive(1) == b"x"
    assert rig.gate.tickets[0].listener == "main"


def test_an_engine_stops_in_the_middle_of_everything(rig: TlsRig) -> None:
    rig.serve()
    clients = [rig.unshaken() for _ in range(50)]
    for index, each in enumerate(clients):
        each.sock.send_raw(each.sock.next_flight()[: 1 + index * 10])
    served, server = rig.shaken(), rig.accept()
    streams = Stream(1), Stream(2)
    sending = [
        rig.run(served.send_stream, streams[0], 1 << 30),
        rig.run(server.send_stream, streams[1], 1 << 30),
    ]
    served.receive_stream(streams[1], 1 << 20)
    server.receive_stream(streams[0], 1 << 20)
    rig.engine.stop()
    for done in sending:
        assert isinstance(done.exception(), OSError)
    assert [reason for *_, reason in rig.gate.departures] == [CloseReason.ABORTED] * 50
    assert rig.outcome().reason == CloseReason.ABORTED
    assert rig.engine.live() == 0


# -- how TLS ends ---------------------------------------------------------------------------


@VERSIONS
def test_an_end_of_the_connection_alone_is_an_end(rig: TlsRig, version: ssl.TLSVersion) -> None:
    """A FIN without close_notify: many clients do that, and want their answer."""
    rig.context = client_context(version=version)
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    client.send(b"request")
    client.sock.end_tcp()
    assert server.rest() == Pause(b"request", reset=False)
    server.send(b"answer")
    server.end()
    assert client.rest() == Pause(b"answer", reset=False)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, 7, 6)


@VERSIONS
@pytest.mark.parametrize("before", [b"", b"said before"])
def test_whoever_breaks_the_rules_ends_only_itself(
    rig: TlsRig, version: ssl.TLSVersion, before: bytes
) -> None:
    rig.context = client_context(version=version)
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    records = client.sock.encrypted(before) if before else b""
    client.sock.send_raw(records + BROKEN_RECORD)
    assert server.rest() == Pause(before, reset=True)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.receive(1)
    assert rig.outcome()[:3] == (CloseReason.TLS_ERROR, len(before), 0)


@VERSIONS
@pytest.mark.parametrize("more", [1, 20_000], ids=["a little", "much"])
def test_whoever_breaks_the_rules_and_goes_on_sending_can_read_why(
    rig: TlsRig, version: ssl.TLSVersion, more: int
) -> None:
    """Its connection ends in order: a reset could take the alert away before it is read."""
    rig.context = client_context(version=version)
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    client.sock.send_raw(BROKEN_RECORD + b"\x17\x03\x03\x40\x00" + bytes(more))
    assert rig.outcome().reason == CloseReason.TLS_ERROR
    assert server.rest() == Pause(b"", reset=True)
    assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    client.sock.send_raw(b"nobody reads this")
    with pytest.raises(ssl.SSLError, match=r"alert bad record mac|decryption failed"):
        client.receive(1)


@VERSIONS
def test_a_client_whose_handshake_fails_can_read_why(rig: TlsRig, version: ssl.TLSVersion) -> None:
    """Also where it has sent more, which nobody has read."""
    rig.serve_tls(TlsSettings((own(),), client_ca_pem=authority("another authority").pem))
    context = client_context(version=version, shows=certificate("client"))
    client = rig.unshaken(context=context)
    client.sock.send_raw(client.sock.next_flight())
    while not (flight := client.sock.next_flight()):
        client.sock.take_in()
    client.sock.send_raw(flight + bytes(20_000))
    rig.gate.wait_for(lambda: rig.gate.departures, "the client is lost")
    client.sock.send_raw(b"nobody reads this")
    if version is V1_2:
        with pytest.raises(ssl.SSLError, match="alert unknown ca"):
            client.sock.shake_hands()
    else:  # to the client, its handshake is over
        with pytest.raises(ssl.SSLError, match="alert unknown ca"):
            client.receive(1)


@VERSIONS
def test_a_client_that_says_its_end_and_resets_has_reset(
    rig: TlsRig, version: ssl.TLSVersion
) -> None:
    rig.context = client_context(version=version)
    client, server = rig.small_pair()
    server.send_until_blocked(Stream(3))
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    client.reset()
    assert rig.outcome().reason == CloseReason.CLIENT_RESET


# -- what is left behind --------------------------------------------------------------------


def test_a_thousand_handshakes_leave_nothing_behind(rig: TlsRig) -> None:
    rig.serve_tls(TlsSettings((own(),)))
    context = client_context()
    grown = []
    for index in range(HANDSHAKES):
        client = rig.unshaken(context=context)
        if index % 4 == 3:
            client.sock.send_raw(client.sock.next_flight()[:50])
            client.reset()
        else:
            client.sock.shake_hands()
            server = rig.accept()
            client.close()
            assert server.rest() == Pause(b"", reset=False)
            server.close()
        rig._opened[:] = [rig.backend]  # what the rig keeps is not the engine's
        if index in (HANDSHAKES // 2, HANDSHAKES - 1):
            wait_until(lambda: rig.engine.live() == 0, "nobody is left")
            grown.append(_resident_bytes())
    assert grown[1] - grown[0] < 4 << 20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
