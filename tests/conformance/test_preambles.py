"""What clients say before the gate decides, and what backends are told before that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeproxy.engine.contract import (
    PREAMBLE_BYTES,
    CloseReason,
    Identified,
    ListenerSettings,
    NeedMore,
    Preamble,
    Refuse,
)
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig
from tests.waiting import wait_until

LONG_SECS = 20.0


def until_newline(preamble: Preamble) -> NeedMore | Identified | Refuse:
    """Want a line, which is not for the backend; it is what the gate is told."""
    line, newline, _ = preamble.received.partition(b"\n")
    if newline:
        return Identified(len(line) + 1, None, line)
    return Refuse("no line") if preamble.is_all else NeedMore(len(preamble.received) + 1)


def serve(rig: Rig, secs: float = LONG_SECS, gate: ScriptedGate | None = None) -> None:
    """Serve clients who have to say a line first."""
    rig.prepare(gate)
    rig.gate.read_preamble = until_newline
    rig.listen(settings=ListenerSettings(preamble_secs=secs))
    rig.start()


def test_the_backend_gets_what_comes_after_the_preamble(rig: Rig) -> None:
    serve(rig)
    client = rig.connect()
    client.send(b"hello\nand more")
    server = rig.accept()
    assert server.receive(8) == b"and more"
    client.send(b" of it")
    assert server.receive(6) == b" of it"
    assert rig.gate.abouts == [b"hello"]


def test_what_is_skipped_can_be_nothing(rig: Rig) -> None:
    serve(rig)
    rig.gate.read_preamble = lambda preamble: (
        Identified() if len(preamble.received) >= 5 else NeedMore(5)
    )
    client = rig.connect()
    client.send(b"hello")
    assert rig.accept().receive(5) == b"hello"


def test_a_preamble_may_come_byte_by_byte(rig: Rig) -> None:
    serve(rig)
    client = rig.connect()
    for number, byte in enumerate(b"hello\n"):
        client.send(bytes([byte]))
        rig.gate.wait_for(lambda n=number: len(rig.gate.preambles) > n, "it is heard")  # type: ignore[misc]
    client.send(b"x")
    assert rig.accept().receive(1) == b"x"
    assert [each.received for each in rig.gate.preambles] == [b"hello\n"[:n] for n in range(1, 7)]


def test_the_gate_is_asked_again_only_when_there_is_as_much_as_it_wanted(rig: Rig) -> None:
    serve(rig)
    rig.gate.read_preamble = lambda preamble: (
        Identified() if len(preamble.received) >= 8 else NeedMore(8)
    )
    client = rig.connect()
    client.send(b"1")
    rig.gate.wait_for(lambda: rig.gate.preambles, "the first byte is heard")
    for byte in b"2345678":
        client.send(bytes([byte]))
    assert rig.accept().receive(8) == b"12345678"
    assert len(rig.gate.preambles[-1].received) == 8
    assert len(rig.gate.preambles) == 2


def test_a_client_is_taken_to_come_from_where_the_gate_says(rig: Rig) -> None:
    serve(rig)
    rig.gate.read_preamble = lambda _preamble: Identified(0, ("192.0.2.1", 4711))
    client = rig.connect()
    client.send(b"x")
    rig.accept()
    assert rig.gate.clients == [("192.0.2.1", 4711)]
    assert rig.session().client[:2] == ("192.0.2.1", 4711)


def test_an_address_of_the_other_family_is_taken_too(rig: Rig) -> None:
    serve(rig)
    rig.gate.read_preamble = lambda _preamble: Identified(0, ("2001:db8::1", 4711))
    client = rig.connect()
    client.send(b"x")
    rig.accept()
    assert rig.gate.clients[0][:2] == ("2001:db8::1", 4711)


def test_a_client_that_says_nothing_is_turned_away_in_time(rig: Rig) -> None:
    serve(rig, secs=0.3)
    client = rig.connect()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.gate.preambles == [Preamble(b"", is_all=True)]
    assert rig.gate.tickets == []


@pytest.mark.parametrize("how", [Peer.end, Peer.reset, Peer.close])
@pytest.mark.parametrize("said", [b"", b"x"])
def test_a_client_that_leaves_is_told_from_one_that_is_slow(
    rig: Rig, said: bytes, how: Callable[[Peer], None]
) -> None:
    serve(rig)
    client = rig.connect()
    if said:
        client.send(said)
    how(client)
    rig.gate.wait_for(
        lambda: rig.gate.preambles and rig.gate.preambles[-1].is_all, "it will send no more"
    )
    assert rig.gate.preambles[-1].has_ended
    assert rig.gate.tickets == []


def test_a_client_that_is_slow_is_turned_away_however_much_it_says(rig: Rig) -> None:
    serve(rig, secs=0.5)
    client = rig.connect()

    def drip() -> None:
        try:
            while True:
                client.send(b"x")
                client.writable_within(0.02)
        except OSError:
            pass

    dripping = rig.run(drip)
    wait_until(lambda: any(each.is_all for each in rig.gate.preambles), "it is over")
    dripping.result()
    assert rig.gate.tickets == []


@pytest.mark.parametrize("how", ["end", "reset", "close"])
def test_a_client_that_leaves_too_early_is_forgotten(rig: Rig, how: str) -> None:
    serve(rig)
    client = rig.connect()
    client.send(b"hel")
    rig.gate.wait_for(lambda: rig.gate.preambles, "it is heard")
    getattr(client, how)()
    rig.gate.wait_for(lambda: rig.gate.preambles[-1].is_all, "the end is heard")
    wait_until(lambda: rig.engine.live() == 0, "it is forgotten")


def test_a_client_that_has_ended_after_its_preamble_is_served(rig: Rig) -> None:
    serve(rig)
    client = rig.connect()
    client.send(b"hello\nthat is all")
    client.end()
    server = rig.accept()
    assert server.rest() == Pause(b"that is all", reset=False)
    server.send(b"answer")
    server.end()
    assert client.rest() == Pause(b"answer", reset=False)
    assert rig.outcome().reason == CloseReason.FINISHED


def test_the_most_that_is_heard_has_to_be_enough(rig: Rig) -> None:
    serve(rig)
    client = rig.connect()
    sending = rig.run(client.send_stream, Stream(1), 4 * PREAMBLE_BYTES)
    rig.gate.read_preamble = lambda preamble: (
        Refuse("") if preamble.is_all else NeedMore(len(preamble.received) + 1)
    )
    wait_until(lambda: any(each.is_all for each in rig.gate.preambles), "it is too much")
    assert len(rig.gate.preambles[-1].received) == PREAMBLE_BYTES
    try:
        sending.result()
    except OSError:
        pass


def test_a_gate_that_fails_while_hearing_costs_one_client(rig: Rig) -> None:
    serve(rig)
    rig.gate.raising = {"preamble_read"}
    client = rig.connect()
    client.send(b"hello\n")
    assert client.rest().data == b""
    rig.gate.raising = set()
    second = rig.connect()
    second.send(b"hello\nx")
    assert rig.accept().receive(1) == b"x"


def test_those_who_are_heard_wait_for_nobody(rig: Rig) -> None:
    serve(rig)
    silent = [rig.connect() for _ in range(200)]
    wait_until(lambda: rig.engine.live() == 200, "all of them are there")
    client = rig.connect()
    client.send(b"\nquick")
    assert rig.accept().receive(5) == b"quick"
    for each in silent:
        each.close()
    wait_until(lambda: rig.engine.live() == 1, "they are gone")


def test_those_who_are_heard_when_the_engine_stops_are_closed(rig: Rig) -> None:
    serve(rig)
    clients = [rig.connect() for _ in range(5)]
    clients[0].send(b"hel")
    wait_until(lambda: rig.engine.live() == 5, "all of them are there")
    rig.engine.stop()
    for client in clients:
        assert client.rest().data == b""


def test_a_backend_is_told_the_prefix_before_anything_else(rig: Rig) -> None:
    serve(rig)
    rig.gate.prefix = b"from 192.0.2.1\n"
    client = rig.connect()
    client.send(b"hello\nquestion")
    server = rig.accept()
    assert server.receive(23) == b"from 192.0.2.1\nquestion"
    server.send(b"answer")
    assert client.receive(6) == b"answer"
    client.end()
    server.end()
    outcome = rig.outcome()
    assert (outcome.bytes_in, outcome.bytes_out) == (8, 6)


def test_a_silent_client_does_not_hold_the_prefix_back(rig: Rig) -> None:
    gate = ScriptedGate(rig.backend.address)
    gate.prefix = b"from 192.0.2.1\n"
    rig.serve(gate)
    rig.connect()
    assert rig.accept().receive(15) == gate.prefix


def test_the_next_backend_is_told_its_own_prefix_and_only_that(rig: Rig) -> None:
    gate = ScriptedGate(rig.refusing_address(), rig.refusing_address(), rig.backend.address)
    gate.prefix = b"prefix\n"
    rig.serve(gate)
    client = rig.connect()
    client.send(b"hello")
    assert rig.accept().receive(12) == b"prefix\nhello"


def test_a_listener_can_be_closed_while_others_go_on(rig: Rig) -> None:
    rig.prepare()
    rig.listen("main")
    rig.listen("other")
    rig.start()
    client, server = rig.connect("other"), rig.accept()
    rig.engine.unlisten("other")
    client.send(b"goes on")
    assert server.receive(7) == b"goes on"
    with pytest.raises(ConnectionRefusedError):
        rig.connect("other")
    second, other = rig.connect("main"), rig.accept()
    second.send(b"too")
    assert other.receive(3) == b"too"


def test_listeners_may_come_and_go_for_ever(rig: Rig) -> None:
    rig.prepare()
    rig.listen("main")
    rig.start()
    for number in range(50):
        rig.listen(f"listener-{number}")
        client, server = rig.connect(f"listener-{number}"), rig.accept()
        client.send(b"x")
        assert server.receive(1) == b"x"
        assert rig.gate.tickets[-1].listener == f"listener-{number}"
        client.close()
        server.close()
        rig.engine.unlisten(f"listener-{number}")
