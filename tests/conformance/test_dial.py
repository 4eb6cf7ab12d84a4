"""Dials that fail, hang or come late, and clients that leave meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from edgeproxy.engine.contract import CloseReason, DialFailure
from tests.conformance.gates import Address, ScriptedGate
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import Rig
from tests.waiting import PAUSE, wait_until


def test_after_a_refused_dial_the_next_backend_serves_the_client(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.refusing_address(), rig.backend.address))
    client = rig.connect()
    client.send(b"hello")
    server = rig.accept()
    assert server.receive(5) == b"hello"
    first, second = rig.gate.tickets
    assert first.calls == ["failed"]
    assert first.failure == DialFailure.REFUSED
    assert second.calls == ["dialed"]


def test_a_client_for_whom_every_dial_fails_is_closed_without_a_byte(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.refusing_address(), rig.refusing_address()))
    client = rig.connect()
    client.send(b"hello")
    assert client.rest() == Pause(b"", reset=False)
    assert [ticket.failure for ticket in rig.gate.tickets] == ["refused", "refused"]


def test_a_long_route_of_refusing_backends_is_followed_to_its_end(rig: Rig) -> None:
    rig.serve(ScriptedGate(*[rig.refusing_address()] * 200, rig.backend.address))
    client, server = rig.connect(), rig.accept()
    client.send(b"at last")
    assert server.receive(7) == b"at last"
    assert len(rig.gate.tickets) == 201


@pytest.mark.parametrize("timeout_secs", [0.3, 1.2])
def test_a_dial_that_hangs_fails_at_its_timeout(rig: Rig, timeout_secs: float) -> None:
    gate = ScriptedGate(rig.silent_backend().address, timeout_secs=timeout_secs)
    rig.serve(gate, connect_timeout_secs=60.0)
    client = rig.connect()
    assert client.rest() == Pause(b"", reset=False)
    ticket = rig.wait_for_end()
    assert ticket.failure == DialFailure.TIMEOUT
    assert ticket.ended_at is not None
    assert timeout_secs <= ticket.ended_at - ticket.given_at


def test_a_dial_that_hangs_does_not_hold_up_others(rig: Rig) -> None:
    rig.prepare(ScriptedGate(rig.backend.address))
    rig.gate.routes["silent"] = [rig.silent_backend().address]
    rig.listen("main")
    rig.listen("silent")
    rig.start()
    waiting = rig.connect("silent")
    client, server = rig.connect(), rig.accept()
    client.send(b"quick")
    assert server.receive(5) == b"quick"
    wait_until(lambda: rig.engine.live() == 2, "both clients are accepted")
    assert {info.state for info in rig.engine.sessions()} == {"dialing", "open"}
    waiting.reset()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (("255.255.255.255", 9), DialFailure.UNREACHABLE),
        (("224.0.0.1", 9), DialFailure.UNREACHABLE),
        (("ff02::1", 9), DialFailure.UNREACHABLE),
        (("127.0.0.1", 0), DialFailure.REFUSED),
        (("fe80::1", 9), None),  # link-local without an interface
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_dial_that_cannot_begin_fails_like_any_other(
    rig: Rig, address: Address, reason: str | None
) -> None:
    rig.serve(ScriptedGate(address, rig.backend.address))
    client, server = rig.connect(), rig.accept()
    client.send(b"served")
    assert server.receive(6) == b"served"
    failure = rig.gate.tickets[0].failure
    assert failure == reason if reason else failure is not None


def test_bytes_sent_before_the_backend_answers_arrive(rig: Rig) -> None:
    rig.backend.fall_silent()
    rig.serve()
    client = rig.connect()
    stream = Stream(1)
    client.send_stream(stream, 50_000)
    wait_until(rig.engine.sessions, "the client is dialing")
    assert rig.session().state == "dialing"
    rig.backend.relent()
    server = rig.accept()
    server.receive_stream(stream, client.sent)
    (ticket,) = rig.gate.tickets
    assert ticket.dialed_at is not None
    server.send(b"late but here")
    assert client.receive(13) == b"late but here"


def test_bytes_sent_during_failed_dials_arrive_at_the_one_that_answers(rig: Rig) -> None:
    silent = rig.silent_backend()
    rig.serve(ScriptedGate(silent.address, silent.address, rig.backend.address, timeout_secs=0.2))
    client = rig.connect()
    client.send(b"one ")
    wait_until(lambda: len(rig.gate.tickets) == 2, "the second attempt")
    client.send(b"two")
    assert rig.accept().receive(7) == b"one two"


def test_a_client_that_resets_while_dialing_is_gone_at_once(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, timeout_secs=60))
    client = rig.connect()
    client.send(b"hello")
    wait_until(rig.engine.sessions, "the client is dialing")
    client.reset()
    outcome = rig.outcome()
    assert outcome[:3] == (CloseReason.CLIENT_GONE, 0, 0)
    assert rig.gate.tickets[0].calls == ["closed"]


def test_a_client_that_leaves_while_dialing_is_not_dialed_for_again(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, rig.backend.address, timeout_secs=0.5))
    client = rig.connect()
    wait_until(rig.engine.sessions, "the client is dialing")
    client.reset()
    assert rig.outcome().reason == CloseReason.CLIENT_GONE
    assert not rig.backend.has_waiting(1.0)
    assert len(rig.gate.tickets) == 1


def test_a_client_that_ended_and_resets_while_dialing_is_gone(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, timeout_secs=10))
    client = rig.connect()
    client.send(b"hello")
    client.end()
    wait_until(rig.engine.sessions, "the client is dialing")
    PAUSE.wait(0.05)  # let the engine see the end first
    client.reset()
    assert rig.outcome().reason == CloseReason.CLIENT_GONE


def test_what_a_backend_says_before_the_engine_hears_of_it_arrives(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        server = rig.accept()
        server.send(b"220 ready")
    assert client.receive(9) == b"220 ready"
    client.send(b"QUIT")
    assert server.receive(4) == b"QUIT"


def test_a_backend_may_speak_and_end_before_the_engine_hears_of_it(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        server = rig.accept()
        server.send(b"421 busy")
        server.close()
    assert client.rest() == Pause(b"421 busy", reset=False)
    client.close()
    assert rig.outcome()[:3] == (CloseReason.FINISHED, 0, 8)


def test_a_client_may_speak_and_end_before_the_engine_hears_of_its_backend(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        server = rig.accept()
        client.send(b"request")
        client.end()
    assert server.rest() == Pause(b"request", reset=False)
    server.send(b"answer")
    server.close()
    assert client.rest() == Pause(b"answer", reset=False)


def test_a_client_may_reset_before_the_engine_hears_of_its_backend(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        server = rig.accept()
        client.reset()
    assert rig.outcome().reason in (CloseReason.CLIENT_GONE, CloseReason.CLIENT_RESET)
    assert server.rest() == Pause(b"", reset=True)


def test_a_backend_may_reset_before_the_engine_hears_of_it(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        rig.accept().reset()
    assert client.rest().data == b""
    ticket = rig.wait_for_end()
    assert ticket.failure == DialFailure.RESET or ticket.outcome is not None


def test_both_sides_may_reset_before_the_engine_hears_of_it(rig: Rig) -> None:
    rig.serve()
    with rig.dial_unheard() as client:
        rig.accept().reset()
        client.reset()
    rig.wait_for_end()


def test_many_clients_may_dial_a_dead_backend_at_once(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, rig.backend.address, timeout_secs=0.5))
    clients = [rig.connect() for _ in range(100)]
    for index, client in enumerate(clients):
        client.send(index.to_bytes(1, "big"))
    assert {rig.accept().receive(1)[0] for _ in clients} == set(range(100))


@pytest.mark.parametrize(
    ("listen_on", "dial_to"),
    [("::1", "::1"), ("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("::", "127.0.0.1")],
)
def test_ipv6_is_served_on_either_side(rig: Rig, listen_on: str, dial_to: str) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no ::1")
    backend = rig.add_backend(dial_to)
    rig.prepare(ScriptedGate(backend.address))
    rig.listen(host=listen_on)
    rig.start()
    client, server = rig.connect(), rig.accept(backend)
    client.send(b"six")
    assert server.receive(3) == b"six"
    server.send(b"SIX")
    assert client.receive(3) == b"SIX"
    assert rig.gate.clients == [client.sock.getsockname()[:2]]


def test_a_listener_on_every_address_serves_ipv4_clients_too(rig: Rig) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no ::1")
    rig.prepare()
    _, port = rig.listen(host="::")
    rig.addresses["main"] = ("127.0.0.1", port)
    rig.start()
    client, server = rig.connect(), rig.accept()
    client.send(b"four")
    assert server.receive(4) == b"four"


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_answer_in_two_writes_does_not_wait_for_an_acknowledgement(rig: Rig) -> None:
    """A backend without TCP_NODELAY writes the second part when the first is acknowledged."""
    rig.serve()
    spoken = threading.Semaphore(0)
    rig.gate.after_opened = lambda: spoken.acquire(timeout=5)
    took_secs = []
    for _ in range(10):
        client = rig.connect()
        client.send(b"?")
        spoken.release()
        server = rig.accept()
        server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        assert server.receive(1) == b"?"
        began_at = time.monotonic()
        server.send(b"header")
        server.send(b"body")
        assert client.receive(10) == b"headerbody"
        took_secs.append(time.monotonic() - began_at)
    assert min(took_secs) < 0.03  # the system delays an acknowledgement by 0.04


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("127.0.0.1", 1 << 40),
        ("127.0.0.1", "80"),
        ("\udcff", 80),
        (None, 80),
        ("127.0.0.1",),
        None,
    ],
    ids=str,
)
def test_what_is_no_address_fails_like_a_dial(rig: Rig, address: Any) -> None:
    rig.serve()
    rig.gate.route = [address]
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert [ticket.failure for ticket in rig.gate.tickets] == [DialFailure.ERROR]
    rig.gate.route = [rig.backend.address]
    client, server = rig.connect(), rig.accept()
    client.send(b"still here")
    assert server.receive(10) == b"still here"
