"""TLS that ends at the proxy, and clients that are slow, odd, or there before it was."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from tests.authority import authority_pem, issued
from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.listeners import Address, Configured, where
from tests.system.pop import BRAZIL, Pop
from tests.system.tls import NAME, context, serial, serve, tls_client
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def slow_clients(pop: Pop, **variables: str) -> list[Peer]:
    """Return clients of a new proxy that do not end their handshakes."""
    pop.backend("sa-1", hard_limit=0)
    proxy = serve(pop, EDGEPROXY_BINDING_TTL_SECS="0", **variables)
    slow = [pop.keep(clients.connect(proxy.address)) for _ in range(300)]
    for number, each in enumerate(slow):
        each.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: number % 12])
    return slow


def test_slow_handshakes_hold_up_no_others(pop: Pop) -> None:
    slow_clients(pop, EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS="60")
    for _ in range(20):
        assert clients.greeting(tls_client(pop)) == "sa-1"
    assert not pop.proxy.seen("client_refused")


def test_slow_handshakes_are_cut(pop: Pop) -> None:
    slow = slow_clients(pop, EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS="0.5")
    clients.wait_until_cut([each.sock for each in slow])
    assert pop.proxy.wait_for("client_refused")["reason"] == "handshake_timeout"


def test_another_setup_timeout_holds_for_handshakes_without_a_restart(pop: Pop) -> None:
    pop.backend("sa-1")
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    variables = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    listener = "127.0.0.1:0=tls:*"
    run = Configured(pop, listener, more="client_setup_timeout_secs = 60\n", **variables)
    before = pop.keep(clients.connect(run.proxy.address))
    before.send(b"\x16")
    run.change(listener, client_setup_timeout_secs=0.5)
    assert_is_cut(pop)
    first = serial(tls_client(pop))
    issued(NAME).put(pop.folder / "pair", "edge")
    wait_until(lambda: serial(tls_client(pop)) != first, "the new certificate")
    assert_is_cut(pop)
    reasons = {each["reason"] for each in run.proxy.seen("client_refused")}
    assert reasons == {"handshake_timeout"}
    before.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # it keeps the time with which it came
        before.sock.recv(1)


def assert_is_cut(pop: Pop) -> None:
    """Expect that a client that does not shake hands is not kept for a minute."""
    assert pop.keep(clients.connect(pop.proxy.address)).rest().data == b""


def test_plain_bytes_end_only_their_connection(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    proxy = serve(pop)
    good = tls_client(pop)
    assert clients.greeting(good) == "sa-1"
    for said in (b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\x16\x03\x01" + b"\xff" * 70_000):
        plain = pop.client()
        with suppress(OSError):
            plain.send(said)
        assert b"sa-1" not in plain.rest().data
    good.send(b"goes on")
    assert good.receive(7) == b"goes on"
    assert backend.total == 1
    assert proxy.wait_for("client_refused")["reason"] == "handshake_failed"


def fused(pop: Pop, address: Address, header: bytes) -> bytes:
    """Return what a client is told whose header comes in one segment with its hello."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(pop).wrap_bio(received, sent, server_hostname=NAME)
    with clients.connect(address).sock as sock:
        while True:
            try:
                return tls.read(5)
            except ssl.SSLWantReadError:
                said, header = header + sent.read(), b""
                sock.sendall(said)
                part = sock.recv(1 << 16)
                assert part, "closed"
                received.write(part)


def test_tls_after_a_proxy_header_in_the_same_segment(pop: Pop) -> None:
    pop.backend("sa-1")
    log: Path = pop.folder / "access.log"
    proxy = serve(pop, EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/8", EDGEPROXY_ACCESS_LOG=str(log))
    header = f"PROXY TCP4 {BRAZIL} 192.0.2.9 7 443\r\n".encode()
    assert fused(pop, proxy.address, header) == b"sa-1\n"
    bare = pop.client()
    bare.send(b"\x16\x03\x01\x02\x00\x01")
    assert bare.rest().data == b""
    assert proxy.wait_for("client_refused")["reason"] == "proxy_malformed"
    proxy.stop()
    ends = {(each["client"], each["end"]) for each in map(json.loads, log.read_text().splitlines())}
    assert (BRAZIL, "proxy_malformed") not in ends
    assert BRAZIL in {client for client, _ in ends}


def test_a_tls_listener_appears_while_the_proxy_runs(pop: Pop) -> None:
    pop.backend("sa-1")
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    variables = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    run = Configured(pop, "127.0.0.1:0=*", **variables)
    assert pop.reached() == "sa-1"
    run.change("127.0.0.1:0=tls:*")
    run.proxy.wait_for("listener_opened", mode="tls:*")
    first = tls_client(pop)
    assert clients.greeting(first) == "sa-1"
    issued(NAME).put(pop.folder / "pair", "edge")
    wait_until(lambda: serial(tls_client(pop)) != serial(first), "the new certificate")
    run.change("127.0.0.1:0=*")
    wait_until(lambda: run.proxy.seen("listener_opened", mode="*"), "the mode of before")
    assert pop.reached() == "sa-1"


def test_a_listener_goes_while_hands_are_shaken(pop: Pop) -> None:
    """Whoever has begun is met as it came, also if the address speaks no TLS any more."""
    pop.backend("sa-1")
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    variables = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    run = Configured(pop, "127.0.0.1:0=tls:*", "127.0.0.2:0=tls:*", **variables)
    other = where(run.proxy, "tls:*")
    begun = []
    for address in (run.proxy.address, other) * 5:
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context(pop).wrap_bio(received, sent, server_hostname=NAME)
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        client = pop.keep(clients.connect(address))
        hello = sent.read()
        client.send(hello[:50])
        begun.append((client, tls, received, sent, hello[50:]))
    run.change("127.0.0.1:0=*")
    run.proxy.wait_for("listener_closed")
    assert pop.reached() == "sa-1"
    for client, tls, received, sent, rest in begun:
        client.send(rest)
        told = b""
        while not told:
            try:
                told = tls.read(5)
            except ssl.SSLWantReadError:
                client.send(sent.read())
                received.write(client.sock.recv(1 << 16))
        assert told == b"sa-1\n"


def test_a_directory_that_is_emptied_keeps_its_certificates(pop: Pop) -> None:
    pop.backend("sa-1")
    folder = pop.folder / "certs"
    issued(NAME).put(folder, "a")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    run = Configured(pop, "127.0.0.1:0=tls:*", EDGEPROXY_TLS_CERT_DIR=str(folder))
    before = serial(tls_client(pop))
    for each in folder.iterdir():
        each.unlink()
    run.proxy.wait_for("certificates_bad")
    run.change("127.0.0.1:0=tls:*", "127.0.0.2:0=tls:myapp")
    where(run.proxy, "tls:myapp")
    assert serial(tls_client(pop)) == before
    folder.rmdir()
    run.proxy.wait_for("certificates_bad", 2)
    assert serial(tls_client(pop)) == before
    issued(NAME).put(folder, "b")
    wait_until(lambda: serial(tls_client(pop)) != before, "the new certificate")
