"""The gate is given one client, from its first bytes to its admission, in plain form."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.engine.contract import (
    Client,
    HandshakeFailure,
    Identified,
    ListenerSettings,
    NeedMore,
    Preamble,
    Refuse,
)
from edgeproxy.engine.sockets import open_unix_listener
from edgeproxy.engine.tls import TlsInfo, TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.peers import Peer
from tests.conformance.rig import Rig
from tests.conformance.tls_rig import NAME, TlsRig, own, running

LONG_SECS = 20.0
SOURCE = ("192.0.2.1", 4711)


@pytest.fixture
def tls_rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def opened(rig: Rig) -> Client:
    """Return the only client that the gate was asked about."""
    rig.gate.wait_for(lambda: rig.gate.opened_clients, "the gate is asked")
    (client,) = rig.gate.opened_clients
    return client


def serve(rig: Rig, host: str, settings: ListenerSettings) -> tuple[str, int]:
    rig.prepare()
    address = rig.listen(host=host, settings=settings)
    rig.start()
    return address


def test_an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_address(rig: Rig) -> None:
    _, port = serve(rig, "::", ListenerSettings(tells_local=True))
    rig.addresses["main"] = ("127.0.0.1", port)
    client = rig.connect()
    rig.accept()
    host, source_port = client.sock.getsockname()
    assert opened(rig) == Client(host, source_port, "main", None, (host, port))
    assert rig.session().client[:2] == (f"::ffff:{host}", source_port)


def test_an_ipv6_client_has_an_address_and_a_port(rig: Rig) -> None:
    _, port = serve(rig, "::1", ListenerSettings(tells_local=True))
    client = rig.connect()
    rig.accept()
    address = client.sock.getsockname()
    assert opened(rig) == Client("::1", address[1], "main", None, ("::1", port))
    assert rig.session().client == address


def test_the_end_on_this_host_is_given_only_where_it_is_wanted(rig: Rig) -> None:
    serve(rig, "127.0.0.1", ListenerSettings())
    rig.connect()
    assert opened(rig).local is None


@pytest.mark.parametrize("is_bound", [False, True], ids=["unbound", "bound"])
def test_a_client_of_a_unix_socket_counts_as_of_this_host(
    rig: Rig, tmp_path: Path, is_bound: bool
) -> None:
    rig.prepare()
    listening = open_unix_listener(tmp_path / "listener")
    rig.engine.listen("unix", listening, ListenerSettings(tells_local=True))
    rig.start()
    sock = rig.keep(socket.socket(socket.AF_UNIX))
    if is_bound:
        sock.bind(str(tmp_path / "client"))
    sock.connect(str(tmp_path / "listener"))
    server = rig.accept()
    sock.sendall(b"x")
    assert server.receive(1) == b"x"
    assert opened(rig) == Client("127.0.0.1", 0, "unix", None, ("127.0.0.1", 0))


def after_three_bytes(preamble: Preamble) -> NeedMore | Identified | Refuse:
    """Want three bytes, one by one."""
    if len(preamble.received) < 3:
        return NeedMore(len(preamble.received) + 1)
    return Identified(3, SOURCE, "about")


def test_a_preamble_replaces_address_and_port_and_nothing_else(rig: Rig) -> None:
    rig.prepare()
    rig.gate.read_preamble = after_three_bytes
    address = rig.listen(settings=ListenerSettings(preamble_secs=LONG_SECS, tells_local=True))
    rig.start()
    peer = rig.connect()
    read = rig.gate.read_clients
    for number in range(3):
        peer.send(b"x")
        rig.gate.wait_for(lambda n=number: len(read) > n, "it is read")  # type: ignore[misc]
    host, port = peer.sock.getsockname()
    entry = read[0].entry
    assert read == [Client(host, port, "main", None, address, entry)] * 3
    assert read[0] is read[2]
    assert opened(rig) == Client(*SOURCE, "main", "about", address, entry)


def test_the_handshake_adds_what_was_agreed_on(tls_rig: TlsRig) -> None:
    tls_rig.prepare()
    tls_rig.gate.read_preamble = after_three_bytes
    tls = TlsSettings((own(),))
    tls_rig.listen(settings=ListenerSettings(preamble_secs=LONG_SECS, tls=tls))
    tls_rig.start()
    client = tls_rig.unshaken()
    client.sock.send_raw(b"xxx")
    client.sock.shake_hands()
    told = opened(tls_rig)
    assert told[:3] == (*SOURCE, "main")
    assert isinstance(told.about, TlsInfo)
    assert (told.about.server_name, told.about.about) == (NAME, "about")


def test_a_client_that_is_lost_has_the_address_of_its_preamble(tls_rig: TlsRig) -> None:
    tls_rig.prepare()
    tls_rig.gate.read_preamble = after_three_bytes
    tls = TlsSettings((own(),))
    tls_rig.listen(settings=ListenerSettings(preamble_secs=LONG_SECS, tls=tls))
    tls_rig.start()
    peer = Peer(tls_rig.tcp())
    peer.send(b"xxxno TLS at all")
    tls_rig.gate.wait_for(lambda: tls_rig.gate.departures, "the client is lost")
    assert tls_rig.gate.departures == [(SOURCE, "main", HandshakeFailure.HANDSHAKE_FAILED)]
    assert tls_rig.gate.opened_clients == []


def test_a_header_without_a_source_leaves_the_client_as_it_connected(rig: Rig) -> None:
    rig.prepare()
    rig.gate.read_preamble = lambda _preamble: Identified(1, None, "about")
    rig.listen(settings=ListenerSettings(preamble_secs=LONG_SECS))
    rig.start()
    client = rig.connect()
    client.send(b"x")
    host, port = client.sock.getsockname()
    told = opened(rig)
    entry = rig.gate.read_clients[0].entry
    assert told == Client(host, port, "main", "about", entry=entry)
