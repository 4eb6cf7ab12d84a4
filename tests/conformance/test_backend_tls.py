"""TLS with backends: who they have to be, and what happens where they are not."""

from __future__ import annotations

import socket
import ssl
import sys
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path

import pytest

from edgeproxy.engine.contract import CloseReason, DialFailure, ListenerSettings
from edgeproxy.engine.tls import TlsError, TlsSettings
from tests.conformance.gates import Address, ScriptedGate
from tests.conformance.peers import DEADLINE_SECS, QUIET_SECS, Backend, Pause, Peer, Stream
from tests.conformance.rig import Rig
from tests.conformance.tls_certificates import OURS, authority, certificate
from tests.conformance.tls_peers import renew_keys

NAME = "backend.internal"
OTHERS = "another authority"


class TlsBackend:
    """A backend that speaks TLS, with a certificate for `name` of that authority."""

    def __init__(self, rig: Rig, folder: Path, name: str = NAME, signed_by: str = OURS) -> None:
        self._rig = rig
        self.plain: Backend = rig.add_backend()
        self.asked: list[str | None] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        signed = certificate(name, signed_by=signed_by)
        file = folder / f"{name}-{signed_by}.pem"
        file.write_bytes(signed.pem + signed.key_pem)
        self.context.load_cert_chain(file)
        self.context.sni_callback = lambda _tls, asked, _context: self.asked.append(asked)

    @property
    def address(self) -> Address:
        return self.plain.address

    def accepting(self, prefix: int = 0) -> Future[tuple[bytes, Peer]]:
        """Accept one, read so many bytes, then shake hands; on a thread of its own."""
        return self._rig.run(self._accept, prefix)

    def pair(self) -> tuple[Peer, Peer]:
        """Return both ends of a new session: the client's and the backend's."""
        accepting = self.accepting()
        client = self._rig.connect()
        return client, accepting.result()[1]

    def _accept(self, prefix: int) -> tuple[bytes, Peer]:
        plain = self._rig.accept(self.plain)
        return plain.receive(prefix), self.shake_hands(plain)

    def shake_hands(self, plain: Peer) -> Peer:
        return self._rig.keep(Peer(self.context.wrap_socket(plain.sock, server_side=True)))


def refuse_unknown_protocols(context: ssl.SSLContext) -> None:
    """Answer every hello as a server does that speaks none of the protocols offered."""
    context.sni_callback = lambda _tls, _asked, _context: 120


@pytest.fixture
def backend(rig: Rig, tmp_path: Path) -> TlsBackend:
    return TlsBackend(rig, tmp_path)


def serve(
    rig: Rig,
    *route: Address,
    prefix: bytes = b"",
    ca: bytes | None = None,
    tls: bool = False,
    alpn: tuple[str, ...] = (),
) -> ScriptedGate:
    """Serve clients whose backends have to be `NAME`."""
    gate = ScriptedGate(*route, timeout_secs=1.5)
    gate.prefix, gate.server_name = prefix, NAME
    rig.prepare(gate, backend_ca_pem=authority(OURS).pem if ca is None else ca)
    settings = TlsSettings((certificate("edge.test").for_names(),), alpn) if tls else None
    rig.listen(settings=ListenerSettings(tls=settings))
    rig.start()
    return gate


def test_bytes_go_both_ways_and_the_name_is_asked_for(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address)
    accepting = backend.accepting()
    client = rig.connect()
    client.send(b"question")
    _, server = accepting.result()
    assert server.receive(8) == b"question"
    server.send(b"answer")
    assert client.receive(6) == b"answer"
    assert backend.asked == [NAME]
    (ticket,) = rig.gate.tickets
    assert ticket.calls == ["dialed"]


def test_a_backend_that_speaks_first_is_heard(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    server.send(b"welcome")
    assert client.receive(7) == b"welcome"


def test_the_prefix_goes_before_the_handshake(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address, prefix=b"from 192.0.2.1\n")
    accepting = backend.accepting(prefix=15)
    client = rig.connect()
    client.send(b"question")
    said, server = accepting.result()
    assert said == b"from 192.0.2.1\n"
    assert server.receive(8) == b"question"


@pytest.mark.parametrize("way", ["up", "down"])
def test_much_arrives_whole(rig: Rig, backend: TlsBackend, way: str) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    source, sink = (client, server) if way == "up" else (server, client)
    stream = Stream(1)
    sending = rig.run(source.send_stream, stream, 20_000_000)
    sink.receive_stream(stream, 20_000_000)
    sending.result()


def test_a_slow_backend_holds_its_client_up_and_loses_nothing(
    rig: Rig, backend: TlsBackend
) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    stream = Stream(2)
    sent = client.send_until_blocked(stream)
    server.receive_stream(stream, sent)
    client.end()
    assert server.rest().data == b""


def test_the_end_of_a_client_is_the_end_for_the_backend(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    client.send(b"that is all")
    client.end()
    assert server.rest() == Pause(b"that is all", reset=False)
    server.send(b"late answer")
    server.end()
    assert client.rest() == Pause(b"late answer", reset=False)
    assert rig.outcome().reason == CloseReason.FINISHED


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_a_backend_may_ask_for_new_keys_when_its_client_has_ended(
    rig: Rig, backend: TlsBackend
) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    client.end()
    assert server.rest().data == b""
    assert isinstance(server.sock, ssl.SSLSocket)
    stream = Stream(5)
    for _ in range(20):
        if not renew_keys(server.sock, wants_answer=True):
            pytest.skip("this Python brings its own library")
        server.send_stream(stream, 20_000)
        client.receive_stream(stream, 20_000)
    server.end()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.FINISHED


@pytest.mark.parametrize(
    ("name", "signed_by", "why"),
    [("somebody.else", OURS, "ostname mismatch"), (NAME, OTHERS, "unable to get local issuer")],
    ids=["name", "authority"],
)
def test_a_backend_that_is_not_who_it_has_to_be_fails_and_the_next_one_serves(
    rig: Rig, backend: TlsBackend, tmp_path: Path, name: str, signed_by: str, why: str
) -> None:
    impostor = TlsBackend(rig, tmp_path, name, signed_by)
    serve(rig, impostor.address, backend.address)
    impostor.accepting()
    accepting = backend.accepting()
    client = rig.connect()
    client.send(b"secret")
    _, server = accepting.result()
    assert server.receive(6) == b"secret"
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE
    assert why in rig.gate.tickets[0].why


def test_a_wildcard_stands_for_a_whole_label(rig: Rig, tmp_path: Path) -> None:
    some = TlsBackend(rig, tmp_path, "back*.internal.test")
    every = TlsBackend(rig, tmp_path, "*.internal.test")
    serve(rig, some.address, every.address).server_name = "backend.internal.test"
    some.accepting()
    accepting = every.accepting()
    client = rig.connect()
    client.send(b"secret")
    _, server = accepting.result()
    assert server.receive(6) == b"secret"
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE


def test_a_backend_with_ciphers_of_yesterday_fails(rig: Rig, backend: TlsBackend) -> None:
    backend.context.maximum_version = ssl.TLSVersion.TLSv1_2
    backend.context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA")
    serve(rig, backend.address)
    backend.accepting()
    assert rig.connect().rest().data == b""
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE


def test_a_backend_without_tls_fails(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, rig.backend.address, backend.address)
    accepting = backend.accepting()
    client = rig.connect()
    plain = rig.accept()
    plain.send(b"220 welcome to something else entirely\r\n")
    client.send(b"secret")
    _, server = accepting.result()
    assert server.receive(6) == b"secret"
    assert b"secret" not in plain.first(10_000)
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE
    assert rig.gate.tickets[0].why


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_backend_that_leaves_the_handshake_fails(rig: Rig, backend: TlsBackend, how: str) -> None:
    serve(rig, rig.backend.address, backend.address)
    accepting = backend.accepting()
    rig.connect()
    plain = rig.accept()
    plain.receive(1)
    getattr(plain, how)()
    accepting.result()
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE


def test_a_backend_that_never_shakes_hands_fails_at_the_timeout(
    rig: Rig, backend: TlsBackend
) -> None:
    serve(rig, rig.backend.address, backend.address)
    accepting = backend.accepting()
    rig.connect()
    rig.accept()
    accepting.result()
    assert rig.gate.tickets[0].failure == DialFailure.TIMEOUT


def test_a_client_that_leaves_meanwhile_ends_the_dial(rig: Rig) -> None:
    serve(rig, rig.backend.address)
    client = rig.connect()
    rig.accept().receive(1)
    client.reset()
    ticket = rig.wait_for_end()
    assert ticket.failure == DialFailure.TIMEOUT or ticket.outcome is not None


def test_a_session_whose_backend_shakes_hands_is_listed(rig: Rig) -> None:
    serve(rig, rig.backend.address)
    client = rig.connect()
    rig.accept().receive(1)
    assert rig.session().state == "dialing"
    assert rig.session().client == client.sock.getsockname()


def test_a_session_that_is_closed_in_its_handshake_ends_in_order(rig: Rig) -> None:
    serve(rig, rig.backend.address)
    client = rig.connect()
    rig.accept().receive(1)
    rig.engine.close_sessions()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.ABORTED


def test_a_session_that_is_closed_when_its_handshake_is_just_over_ends(
    rig: Rig, backend: TlsBackend
) -> None:
    serve(rig, backend.address)
    client = rig.connect()
    plain = rig.accept(backend.plain)
    with rig.gate_thread_held():
        shaking = rig.run(backend.shake_hands, plain)
        if rig.engine.kind == "native":  # whose gate thread does not do it
            shaking.result()
        rig.engine.close_sessions()
    assert client.rest().data == b""  # a reset if the engine has heard of the end before
    assert rig.outcome().reason == CloseReason.ABORTED


def test_a_dial_that_was_begun_before_is_gone_on_with(rig: Rig, backend: TlsBackend) -> None:
    gate = serve(rig, backend.address)
    begun = rig.keep(socket.socket())
    begun.connect(backend.address)
    begun.setblocking(False)
    gate.begin = lambda _address: begun.detach()
    accepting = backend.accepting()
    client = rig.connect()
    client.send(b"warm")
    assert accepting.result()[1].receive(4) == b"warm"


def test_tls_on_both_sides(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address, tls=True)
    accepting = backend.accepting()
    context = ssl.create_default_context(cadata=authority(OURS).pem.decode())
    client = rig.connect()
    spoken = rig.keep(Peer(context.wrap_socket(client.sock, server_hostname="edge.test")))
    _, server = accepting.result()
    stream = Stream(3)
    sending = rig.run(spoken.send_stream, stream, 5_000_000)
    server.receive_stream(stream, 5_000_000)
    sending.result()
    server.send(b"done")
    assert spoken.receive(4) == b"done"


@pytest.mark.parametrize("agreed", ["h2", "http/1.1", ""])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_was_agreed_on_with_the_client_is_offered_to_the_backend(
    rig: Rig, backend: TlsBackend, agreed: str, version: str
) -> None:
    """Also to the next one, and to nobody else's."""
    refusing = rig.add_backend()
    refusing.close()
    serve(rig, refusing.address, backend.address, tls=True, alpn=("h2", "http/1.1"))
    backend.context.set_alpn_protocols(["ftp", "http/1.1", "h2"])
    backend.context.maximum_version = ssl.TLSVersion[version]
    for offers in ((agreed,) if agreed else (), ()):
        accepting = backend.accepting()
        context = ssl.create_default_context(cadata=authority(OURS).pem.decode())
        if offers:
            context.set_alpn_protocols(["spdy/3", *offers])
        plain = rig.connect().sock
        client = rig.keep(Peer(context.wrap_socket(plain, server_hostname="edge.test")))
        server = accepting.result()[1]
        assert isinstance(server.sock, ssl.SSLSocket)
        assert server.sock.selected_alpn_protocol() == (offers[0] if offers else None)
        client.send(b"question")
        assert server.receive(8) == b"question"


def test_a_backend_that_does_not_speak_what_was_agreed_fails_and_the_next_one_serves(
    rig: Rig, backend: TlsBackend, tmp_path: Path
) -> None:
    """As with HAProxy, one that knows nothing of ALPN is taken at its word."""
    other = TlsBackend(rig, tmp_path, signed_by=OURS)
    serve(rig, other.address, backend.address, tls=True, alpn=("h2",))
    refuse_unknown_protocols(other.context)
    other.accepting()
    accepting = backend.accepting()
    context = ssl.create_default_context(cadata=authority(OURS).pem.decode())
    context.set_alpn_protocols(["h2"])
    client = rig.keep(Peer(context.wrap_socket(rig.connect().sock, server_hostname="edge.test")))
    client.send(b"question")
    assert accepting.result()[1].receive(8) == b"question"
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE
    assert "alert no application protocol" in rig.gate.tickets[0].why


def test_a_backend_that_would_miss_bytes_gets_no_end(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address)
    client, server = backend.pair()
    client.send_until_blocked(Stream(4))
    rig.engine.close_sessions()
    rig.wait_for_end()
    setattr(server.sock, "suppress_ragged_eofs", False)  # noqa: B010 — mypy does not know it
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        list(iter(lambda: server.sock.recv(1 << 16), b""))


def test_a_backend_that_hears_an_end_has_everything(rig: Rig, backend: TlsBackend) -> None:
    """Also where it reads again just before its session is closed."""
    serve(rig, backend.address)
    client, server = backend.pair()
    client.send_until_blocked(Stream(4))
    setattr(server.sock, "suppress_ragged_eofs", False)  # noqa: B010 — mypy does not know it
    received = 0
    with rig.gate_thread_held():
        rig.engine.close_sessions()
        server.sock.settimeout(QUIET_SECS)
        with suppress(TimeoutError):  # in the middle of a record
            while True:
                received += len(server.sock.recv(1 << 16))
        server.sock.settimeout(DEADLINE_SECS)
    rig.wait_for_end()
    with suppress(ssl.SSLEOFError, ConnectionResetError):
        while part := server.sock.recv(1 << 16):
            received += len(part)
        assert received == client.sent


def test_sessions_with_tls_end_when_the_engine_stops(rig: Rig, backend: TlsBackend) -> None:
    serve(rig, backend.address, rig.backend.address)
    client, server = backend.pair()
    rig.connect()
    rig.engine.stop()
    assert client.rest().data == b""
    assert server.rest().data == b""


def test_authorities_of_backends_have_to_be_readable(rig: Rig) -> None:
    with pytest.raises(TlsError):
        rig.prepare(backend_ca_pem=b"nonsense")


def test_authorities_of_backends_can_change(rig: Rig, tmp_path: Path) -> None:
    backend = TlsBackend(rig, tmp_path, signed_by=OTHERS)
    serve(rig, backend.address)
    backend.accepting()
    assert rig.connect().rest().data == b""
    assert rig.gate.tickets[0].failure == DialFailure.HANDSHAKE
    with pytest.raises(TlsError):
        rig.engine.trust(b"nonsense")
    rig.engine.trust(authority(OTHERS).pem)
    accepting = backend.accepting()
    client = rig.connect()
    client.send(b"question")
    assert accepting.result()[1].receive(8) == b"question"


@pytest.mark.parametrize("change", ["trust", "renew"])
def test_a_change_of_tls_returns_only_when_it_is_in_force(
    rig: Rig, backend: TlsBackend, change: str
) -> None:
    serve(rig, backend.address, tls=True)
    changes = {
        "trust": lambda: rig.engine.trust(authority(OTHERS).pem),
        "renew": lambda: rig.engine.renew(
            "main", TlsSettings((certificate("edge.test").for_names(),))
        ),
    }
    with rig.gate_thread_held():
        changing = rig.run(changes[change])
        wait([changing], QUIET_SECS)
        assert not changing.done()
    changing.result(DEADLINE_SECS)
