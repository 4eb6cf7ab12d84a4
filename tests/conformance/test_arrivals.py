"""A client may begin with its preamble or handshake if the gate lets it in, and ends exactly once.

`ScriptedGate.check` fails if something that was let in ended twice, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgeproxy.engine.contract import (
    CloseReason,
    Enter,
    HandshakeFailure,
    Identified,
    ListenerSettings,
    NeedMore,
    Preamble,
    Refuse,
)
from edgeproxy.engine.session_states import TRANSITIONS, SessionEvent, SessionState
from edgeproxy.engine.tls import TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import DEADLINE_SECS, Pause
from tests.conformance.rig import Rig
from tests.conformance.tls_rig import TlsRig, own, running
from tests.waiting import wait_until

SHORT_SECS = 0.5

TABLE = {(row.state, row.event): row for row in TRANSITIONS}


@pytest.fixture
def tls_rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def serve(rig: Rig, secs: float = DEADLINE_SECS) -> None:
    """Serve clients who have to say something first."""
    rig.prepare()
    rig.listen(settings=ListenerSettings(preamble_secs=secs))
    rig.start()


def serve_both(rig: TlsRig, secs: float = DEADLINE_SECS) -> None:
    """Serve clients who have to say something first, and then to shake hands."""
    rig.prepare()
    rig.gate.read_preamble = lambda _preamble: Identified(1, ("192.0.2.1", 4711), "known")
    settings = ListenerSettings(secs, TlsSettings((own(),), handshake_secs=secs))
    rig.listen(settings=settings)
    rig.start()


def test_a_listener_without_preamble_and_tls_asks_only_for_a_backend(rig: Rig) -> None:
    rig.pair()
    assert rig.gate.arrived_clients == []
    assert rig.gate.opened_clients[0].entry is None


def test_who_is_refused_is_not_heard(rig: Rig) -> None:
    row = TABLE[SessionState.ARRIVAL, SessionEvent.REFUSED]
    serve(rig)
    rig.gate.let_in = lambda _client: Refuse("unwanted")
    client = rig.connect()
    client.send(b"hello")
    assert client.rest() == Pause(b"", reset=False)
    wait_until(lambda: rig.engine.live() == 0, "it holds nothing")
    assert (row.told, row.next_state) == ("arrived", SessionState.CLOSED)
    assert len(rig.gate.arrived_clients) == 1
    assert not (rig.gate.preambles)
    assert not (rig.gate.departures)
    assert not rig.gate.clients


def test_who_is_refused_costs_no_handshake(tls_rig: TlsRig) -> None:
    tls_rig.serve()
    tls_rig.gate.let_in = lambda _client: Refuse("unwanted")
    client = tls_rig.unshaken()
    client.sock.send_raw(client.sock.next_flight())
    assert not client.sock.take_in(), "not one byte of a handshake"
    wait_until(lambda: tls_rig.engine.live() == 0, "it holds nothing")
    assert not tls_rig.gate.departures
    assert not tls_rig.gate.clients
    tls_rig.gate.let_in = lambda _client: Enter("welcome")
    tls_rig.pair()


def test_what_the_gate_has_said_stays_with_the_client(tls_rig: TlsRig) -> None:
    row = TABLE[SessionState.ARRIVAL, SessionEvent.ENTER]
    assert (row.told, row.next_state) == ("arrived", SessionState.PREREAD)
    serve_both(tls_rig)
    tls_rig.gate.let_in = lambda _client: Enter("welcome")
    client = tls_rig.unshaken()
    client.sock.send_raw(b"x")
    client.sock.shake_hands()
    tls_rig.accept()
    assert [each.entry for each in tls_rig.gate.arrived_clients] == [None]
    assert [each.entry for each in tls_rig.gate.read_clients] == ["welcome"]
    (opened,) = tls_rig.gate.opened_clients
    assert (opened.entry, opened.address) == ("welcome", "192.0.2.1")


def test_a_gate_that_fails_when_a_client_arrives_closes_it(rig: Rig) -> None:
    serve(rig)
    rig.gate.raising = {"arrived"}
    assert rig.connect().rest() == Pause(b"", reset=False)
    rig.gate.raising = set()
    client = rig.connect()
    client.send(b"x")
    assert rig.accept().receive(1) == b"x"


def _fail(_preamble: Preamble) -> Refuse:
    raise RuntimeError


@pytest.mark.parametrize(
    ("answer", "is_told"),
    [
        (lambda _preamble: Refuse("unwanted"), False),
        (lambda preamble: NeedMore(len(preamble.received) + 1), True),
        (_fail, True),
    ],
    ids=["refused", "never enough", "fails"],
)
def test_a_client_whose_preamble_is_no_good_ends_once(
    rig: Rig, answer: Callable[[Preamble], NeedMore | Refuse], is_told: bool
) -> None:
    serve(rig)
    rig.gate.read_preamble = answer
    client = rig.connect()
    client.send(b"x")
    client.end()
    assert client.rest() == Pause(b"", reset=False)
    wait_until(lambda: rig.engine.live() == 0, "it is gone")
    reasons = [reason for *_, reason in rig.gate.departures]
    assert reasons == ([CloseReason.ABORTED] if is_told else [])
    assert rig.gate.entries == []


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_whose_handshake_is_no_good_ends_once(tls_rig: TlsRig, leaves: bool) -> None:
    serve_both(tls_rig, SHORT_SECS)
    client = tls_rig.unshaken()
    client.sock.send_raw(b"x")
    if leaves:
        tls_rig.gate.wait_for(lambda: tls_rig.gate.preambles, "its preamble is read")
        client.reset()
    tls_rig.gate.wait_for(lambda: tls_rig.gate.departures, "it is lost")
    ((_, _, reason),) = tls_rig.gate.departures
    failure = HandshakeFailure
    assert reason == (failure.CLIENT_GONE if leaves else failure.HANDSHAKE_TIMEOUT)
    assert tls_rig.gate.entries == []


@pytest.mark.parametrize("state", [SessionState.PREREAD, SessionState.HANDSHAKE])
def test_a_client_that_is_given_up_at_the_end_is_told(tls_rig: TlsRig, state: SessionState) -> None:
    row = TABLE[state, SessionEvent.ABORTED]
    serve_both(tls_rig)
    clients = [tls_rig.unshaken() for _ in range(5)]
    tls_rig.gate.wait_for(lambda: len(tls_rig.gate.arrived_clients) == 5, "all are let in")
    if state is SessionState.HANDSHAKE:
        for client in clients:
            client.sock.send_raw(b"x")
        tls_rig.gate.wait_for(lambda: len(tls_rig.gate.preambles) == 5, "all are heard")
    wait_until(lambda: tls_rig.engine.live() == 5, "all wait")
    tls_rig.engine.stop()
    assert [(reason, row.told) for *_, reason in tls_rig.gate.departures] == [
        (row.reason, "client_lost")
    ] * 5
    assert tls_rig.gate.entries == []


def test_many_that_come_and_go_in_every_way_leave_nothing(tls_rig: TlsRig) -> None:
    serve_both(tls_rig, SHORT_SECS)
    served = 0
    for number in range(40):
        client = tls_rig.unshaken()
        how = number % 5
        if how == 0:
            client.reset()
        elif how == 1:
            client.sock.send_raw(b"x")
            client.reset()
        elif how == 2:
            client.sock.send_raw(b"xno handshake at all")
        elif how == 3:
            client.sock.send_raw(b"x" + client.sock.next_flight()[:20])
        else:
            client.sock.send_raw(b"x")
            client.sock.shake_hands()
            served += 1
    tls_rig.gate.wait_for(lambda: len(tls_rig.gate.clients) == served, "those are served")
    tls_rig.gate.wait_for(lambda: not tls_rig.gate.entries, "nobody is before admission")
    assert len(tls_rig.gate.arrived_clients) == 40


def test_a_refused_client_takes_the_place_of_nobody(rig: Rig) -> None:
    rig.prepare(ScriptedGate(rig.backend.address))
    rig.listen(settings=ListenerSettings(preamble_secs=DEADLINE_SECS))
    rig.listen("plain")
    rig.start()
    rig.gate.let_in = lambda _client: Refuse("unwanted")
    for _ in range(30):
        assert rig.connect().rest() == Pause(b"", reset=False)
    client = rig.connect("plain")
    client.send(b"?")
    assert rig.accept().receive(1) == b"?"
