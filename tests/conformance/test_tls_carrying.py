"""Bytes inside TLS: nothing is held back, lost or reordered, however the records are cut."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edgeproxy.engine.contract import CloseReason, Identified, ListenerSettings, NeedMore, Refuse
from edgeproxy.engine.tls import TlsInfo, TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import SMALL_BUFFER
from tests.conformance.test_preambles import until_newline
from tests.conformance.tls_peers import TlsPeer, client_context
from tests.conformance.tls_rig import NAME, TlsRig, own, running

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V1_2, V1_3], ids=["1.2", "1.3"])
BULK = 16 << 20
MANY = 10_000


@pytest.fixture
def rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def _but_for_finished(client: TlsPeer) -> bytes:
    """Shake hands as far as the client's last flight, and return that."""
    while True:
        flight = client.sock.next_flight()
        if client.tls.version() and client.sock.tls.cipher() and _is_last(client):
            return flight
        client.sock.send_raw(flight)
        client.sock.take_in()


def _is_last(client: TlsPeer) -> bool:
    """TLS 1.3 is over with the client's flight; in 1.2 the server answers once more."""
    try:
        client.tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


# -- right behind the handshake -------------------------------------------------------------


@pytest.mark.parametrize("how", ["together", "byte by byte"])
def test_what_comes_with_the_clients_last_flight_reaches_the_backend(rig: TlsRig, how: str) -> None:
    """And at once: nothing more comes that could wake anybody."""
    rig.serve()
    for _ in range(20):
        client = rig.unshaken(context=client_context(version=V1_3))
        last = _but_for_finished(client) + client.sock.encrypted(b"request")
        for part in [last] if how == "together" else [bytes([each]) for each in last]:
            client.sock.send_raw(part)
        server = rig.accept()
        assert server.receive(7) == b"request"
        server.send(b"answer")
        assert client.receive(6) == b"answer"


@pytest.mark.parametrize("ends_tcp", [False, True], ids=["close_notify", "and FIN"])
@pytest.mark.parametrize("size", [7, 5000, 16384, 40_000])
def test_a_request_and_the_end_may_come_with_the_last_flight(
    rig: TlsRig, size: int, ends_tcp: bool
) -> None:
    rig.serve()
    for index in range(10):
        client = rig.unshaken(context=client_context(version=V1_3))
        last = _but_for_finished(client) + client.sock.encrypted(bytes(size))
        client.sock.send_raw(last + client.sock.farewell())
        if ends_tcp:
            client.sock.end_tcp()
        server = rig.accept()
        assert server.rest() == Pause(bytes(size), reset=False)
        server.send(b"answer")
        server.end()
        assert client.rest() == Pause(b"answer", reset=False)
        assert rig.outcome(index)[:3] == (CloseReason.FINISHED, size, 6)


@VERSIONS
@pytest.mark.parametrize("ends_tcp", [False, True], ids=["close_notify", "and FIN"])
def test_a_request_and_the_end_in_one_segment(
    rig: TlsRig, version: ssl.TLSVersion, ends_tcp: bool
) -> None:
    rig.context = client_context(version=version)
    for size in (1, 100, 16384, 16385, 65536, 70_000):
        client, server = rig.pair()
        assert isinstance(client, TlsPeer)
        client.sock.ends_tcp = ends_tcp
        client.sock.send_raw(client.sock.encrypted(bytes(size)) + client.sock.farewell())
        if ends_tcp:
            client.sock.end_tcp()
        assert server.rest() == Pause(bytes(size), reset=False)
        server.send(b"answer")
        server.end()
        assert client.rest() == Pause(b"answer", reset=False)


@VERSIONS
def test_a_handshake_may_come_byte_by_byte(rig: TlsRig, version: ssl.TLSVersion) -> None:
    rig.serve()
    client = rig.unshaken(context=client_context(version=version))
    while True:
        for byte in client.sock.next_flight():
            client.sock.send_raw(bytes([byte]))
        if client.tls.version() and client.tls.cipher() and _is_last(client):
            break
        client.sock.take_in()
    client.send(b"x")
    assert rig.accept().receive(1) == b"x"


@VERSIONS
def test_the_backend_may_speak_first(rig: TlsRig, version: ssl.TLSVersion) -> None:
    rig.serve()
    client = rig.unshaken(context=client_context(version=version))
    client.sock.shake_hands()
    server = rig.accept()
    server.send(b"220 ready")
    assert client.receive(9) == b"220 ready"


# -- records ----------------------------------------------------------------------------


@VERSIONS
def test_many_tiny_records(rig: TlsRig, version: ssl.TLSVersion) -> None:
    rig.context = client_context(version=version)
    client, server = rig.pair()
    stream = Stream(1)
    said = stream.slice(0, MANY)

    def send() -> None:
        for index in range(MANY):
            client.send(said[index : index + 1])

    sending = rig.run(send)
    server.receive_stream(stream, MANY)
    sending.result()
    for index in range(MANY):
        server.send(said[index : index + 1])
    client.receive_stream(stream, MANY)


@VERSIONS
@pytest.mark.parametrize("cut", [1, 5, 1000, 16_000])
def test_records_may_come_in_pieces(rig: TlsRig, cut: int, version: ssl.TLSVersion) -> None:
    rig.context = client_context(version=version)
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    stream, size = Stream(2), 3 * 16384 + 1 if cut > 100 else 2000
    records = client.sock.encrypted(stream.slice(0, size))

    def send() -> None:
        for at in range(0, len(records), cut):
            client.sock.send_raw(records[at : at + cut])

    sending = rig.run(send)
    server.receive_stream(stream, size)
    sending.result()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
@pytest.mark.parametrize("wants_answer", [False, True])
def test_new_keys_at_any_time(rig: TlsRig, wants_answer: bool) -> None:
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    up, down = Stream(3), Stream(4)
    for size in (1, 100, 20_000, 200_000) * 3:
        if not client.sock.renew_keys(wants_answer):
            pytest.skip("this Python brings its own library")
        client.send_stream(up, size)
        server.receive_stream(up, size)
        client.sock.renew_keys(wants_answer)
        sending = rig.run(server.send_stream, down, size)
        client.receive_stream(down, size)
        sending.result()
    server.end()
    assert client.rest() == Pause(b"", reset=False)
    client.sock.renew_keys(wants_answer=False)
    client.send(b"still there")
    assert server.receive(11) == b"still there"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_new_keys_when_the_backend_has_ended(rig: TlsRig) -> None:
    rig.context = client_context(version=V1_3)
    client, server = rig.pair()
    assert isinstance(client, TlsPeer)
    server.end()
    assert client.rest() == Pause(b"", reset=False)
    stream = Stream(3)
    for _ in range(20):
        if not client.sock.renew_keys(wants_answer=True):
            pytest.skip("this Python brings its own library")
        client.send_stream(stream, 20_000)
        server.receive_stream(stream, 20_000)
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.FINISHED


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_new_keys_again_and_again_hold_up_nothing_that_follows(rig: TlsRig) -> None:
    """An engine stops reading them after a while, and goes on by itself."""
    rig.context = client_context(version=V1_3)
    client, server = rig.pair()
    other, other_server = rig.pair()
    assert isinstance(client, TlsPeer)
    announced = client.sock.key_announcement(20_000)
    if not announced:
        pytest.skip("this Python brings its own library")
    sending = rig.run(client.sock.send_raw, announced + client.sock.encrypted(b"the end"))
    for _ in range(10):
        other.send(b"?")
        assert other_server.receive(1) == b"?"
    assert server.receive(7) == b"the end"
    sending.result()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_new_keys_while_the_peer_does_not_read(rig: TlsRig) -> None:
    """The answer to the request for new keys waits behind what the client does not take."""
    client, server = rig.small_pair()
    assert isinstance(client, TlsPeer)
    up, down = Stream(5), Stream(6)
    server.send_until_blocked(down)
    for _ in range(10):
        if not client.sock.renew_keys(wants_answer=True):
            pytest.skip("this Python brings its own library")
        client.send_stream(up, 1000)
        server.receive_stream(up, 1000)
    client.receive_stream(down, server.sent)
    server.send_stream(down, 5000)
    client.receive_stream(down, 5000)


# -- much ---------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("small", [False, True], ids=["large buffers", "small buffers"])
def test_much_both_ways_at_once(rig: TlsRig, version: ssl.TLSVersion, small: bool) -> None:
    rig.context = client_context(version=version)
    client, server = rig.small_pair() if small else rig.pair()
    size = BULK // 8 if small else BULK
    rig.carry_both_ways(client, server, size)
    client.end()
    server.end()
    assert client.rest() == server.rest() == Pause(b"", reset=False)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, size, size)


# -- preamble, prefix, failover -----------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["together", "before"])
def test_a_preamble_comes_before_the_handshake(rig: TlsRig, together: bool) -> None:
    rig.prepare()
    rig.listen(settings=ListenerSettings(preamble_secs=20, tls=TlsSettings((own(),))))
    rig.start()

    def hear(preamble: object) -> NeedMore | Identified | Refuse:
        known = until_newline(preamble)  # type: ignore[arg-type]
        return (
            known._replace(source=("192.0.2.1", 4711)) if isinstance(known, Identified) else known
        )

    rig.gate.read_preamble = hear
    rig.gate.prefix = b"prefix "
    client = rig.unshaken(context=client_context(version=V1_3))
    if together:
        client.sock.send_raw(b"PROXY\n" + client.sock.next_flight())
    else:
        client.sock.send_raw(b"PROXY\n")
    client.sock.shake_hands()
    client.send(b"request")
    server = rig.accept()
    assert server.receive(14) == b"prefix request"
    server.send(b"answer")
    assert client.receive(6) == b"answer"
    assert rig.gate.clients == [("192.0.2.1", 4711)]
    assert rig.gate.abouts == [TlsInfo(NAME, "", "TLSv1.3", False, b"PROXY")]
    client.end()
    server.end()
    assert rig.outcome()[:3] == (CloseReason.FINISHED, 7, 6)


def test_a_prefix_alone_reaches_a_backend(rig: TlsRig) -> None:
    gate = ScriptedGate(rig.refusing_address(), rig.backend.address)
    gate.prefix = b"prefix"
    rig.serve(gate)
    client, server = rig.connect(), rig.accept()
    assert server.receive(6) == b"prefix"
    client.send(b"request")
    assert server.receive(7) == b"request"


def test_a_request_behind_the_handshake_survives_failing_backends(rig: TlsRig) -> None:
    silent = rig.silent_backend()
    route = (rig.refusing_address(), silent.address, rig.backend.address)
    gate = ScriptedGate(*route, timeout_secs=0.4)
    gate.prefix = b"prefix "
    rig.serve(gate)
    client = rig.unshaken(context=client_context(version=V1_3))
    last = _but_for_finished(client) + client.sock.encrypted(b"request")
    client.sock.send_raw(last + client.sock.farewell())
    server = rig.accept()
    assert server.rest() == Pause(b"prefix request", reset=False)
    server.send(b"answer")
    server.close()
    assert client.rest() == Pause(b"answer", reset=False)
    assert [each.failure for each in gate.tickets] == ["refused", "timeout", None]


@pytest.mark.parametrize("said", [b"", b"request"])
def test_a_client_whose_backends_all_fail_hears_an_end(rig: TlsRig, said: bytes) -> None:
    rig.serve(ScriptedGate(rig.refusing_address()))
    client = rig.shaken()
    if said:
        with suppress(OSError):
            client.send(said)
    rest = client.rest()
    assert rest == Pause(b"", reset=False) or (said and rest.data == b"")


def test_a_flood_before_the_backend_answers_is_stopped(rig: TlsRig) -> None:
    rig.serve_with_small_buffers()
    rig.backend.fall_silent()
    client = rig.connect(buffer=SMALL_BUFFER)
    stream = Stream(9)
    assert client.send_until_blocked(stream, 64 << 20) < 16 << 20
    rig.backend.relent()
    rig.accept().receive_stream(stream, client.sent)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the place of the library's object")
def test_a_client_that_only_asks_for_new_keys_is_stopped(rig: TlsRig) -> None:
    """Every request has an answer, which it does not read: not for ever."""
    client, server = rig.small_pair()
    assert isinstance(client, TlsPeer)
    server.send_until_blocked(Stream(10))
    sent, most = 0, 16 << 20
    client.sock.setblocking(False)
    with suppress(BlockingIOError):
        while sent < most:
            request = client.sock.key_request(1000)
            if not request:
                pytest.skip("this Python brings its own library")
            view = memoryview(request)
            while view:
                taken = client.sock.send_some(view)
                if not taken and not client.writable_within(0.5):
                    raise BlockingIOError
                view, sent = view[taken:], sent + taken
    assert sent < most
    client.reset()
    server.close()
