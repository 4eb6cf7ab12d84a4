"""On both engines, sessions go through the states of `engine/session_states`, as its table says.

Each test brings a client to a state, lets one event happen, and compares what `sessions` lists and
what the gate is told with the row of the table for that state and event. Two rows have no test
here: only a fault of the engine itself ends a session as `bug` after its backend has answered.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeproxy.engine.contract import CloseReason, Identified, ListenerSettings, NeedMore, Refuse
from edgeproxy.engine.session_states import (
    LISTED,
    TRANSITIONS,
    SessionEvent,
    SessionState,
    Transition,
)
from edgeproxy.engine.tls import TlsSettings
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import ScriptedGate, Ticket
from tests.conformance.peers import DEADLINE_SECS, Pause, Peer
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.conformance.tls_peers import TlsPeer
from tests.conformance.tls_rig import TlsRig, own, running
from tests.waiting import wait_until

IDLE_SECS = 0.5

TABLE = {(row.state, row.event): row for row in TRANSITIONS}


@pytest.fixture
def tls_rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


# -- the table itself -----------------------------------------------------------------


def test_a_state_and_an_event_lead_to_one_state() -> None:
    assert len(TABLE) == len(TRANSITIONS)


def test_every_state_is_reached_and_all_but_closed_are_left() -> None:
    left = {row.state for row in TRANSITIONS}
    assert left == set(SessionState) - {SessionState.CLOSED}
    assert {row.next_state for row in TRANSITIONS} | {SessionState.ARRIVAL} == set(SessionState)


def test_every_close_reason_and_event_is_in_the_table() -> None:
    assert {row.event for row in TRANSITIONS} == set(SessionEvent)
    assert {row.reason for row in TRANSITIONS if row.told == "closed"} == set(CloseReason)


def test_a_ticket_ends_exactly_when_its_session_closes_or_its_dial_fails() -> None:
    for row in TRANSITIONS:
        has_ticket = row.state in LISTED
        ends = row.told in ("failed", "closed")
        is_over = row.next_state is SessionState.CLOSED or row.event is SessionEvent.DIAL_FAILED
        assert ends == (has_ticket and is_over), row


# -- both engines ---------------------------------------------------------------------


def test_a_refused_client_is_never_listed(rig: Rig) -> None:
    row = TABLE[SessionState.ADMISSION, SessionEvent.REFUSED]
    rig.serve(ScriptedGate())
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert (row.told, len(rig.gate.clients)) == ("opened", 1)
    assert rig.gate.tickets == []
    _check_state(rig, row)


def test_a_connected_client_is_dialing(rig: Rig) -> None:
    row = TABLE[SessionState.ADMISSION, SessionEvent.CONNECT]
    rig.backend.fall_silent()
    rig.serve()
    client = rig.connect()
    _check_state(rig, row)
    assert (row.told, len(rig.gate.clients)) == ("opened", 1)
    assert rig.gate.tickets[0].calls == []
    client.reset()


def test_a_client_without_a_slot_waits_and_is_never_listed(rig: Rig) -> None:
    waits = TABLE[SessionState.ADMISSION, SessionEvent.NO_SLOT]
    refused = TABLE[SessionState.WAITING, SessionEvent.REFUSED]
    gate = ScriptedGate(rig.backend.address)
    gate.slots = 0
    rig.serve(gate)
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert (waits.told, waits.next_state) == ("opened", SessionState.WAITING)
    assert (refused.told, rig.gate.asked_again_last) == ("asked_again", 1)
    assert rig.gate.tickets == []
    _check_state(rig, refused)


@pytest.mark.usefixtures("patient")
def test_a_client_that_waits_goes_on_to_wait_or_is_connected(rig: Rig) -> None:
    stays = TABLE[SessionState.WAITING, SessionEvent.NO_SLOT]
    row = TABLE[SessionState.WAITING, SessionEvent.CONNECT]
    gate = ScriptedGate(rig.backend.address)
    rig.serve(gate)
    pairs = [rig.pair() for _ in range(2)]
    for client, server in pairs:
        client.end()
        assert server.rest() == Pause(b"", reset=False)
    gate.slots = 1
    rig.connect()
    pairs[0][1].close()  # asked again, and goes on to wait
    rig.outcome(0)
    pairs[1][1].close()
    gate.wait_for(lambda: len(gate.tickets) == 3, "the client that waited")
    rig.accept()
    gate.wait_for(lambda: gate.tickets[2].dialed_at is not None, "its dial")
    assert (stays.told, row.told, gate.asked_again_last) == ("asked_again", "asked_again", 0)
    assert (stays.next_state, row.next_state) == (SessionState.WAITING, SessionState.DIALING)
    assert rig.session().ticket is gate.tickets[2]


def test_a_failed_dial_is_followed_by_the_next(rig: Rig) -> None:
    failed = TABLE[SessionState.DIALING, SessionEvent.DIAL_FAILED]
    dialed = TABLE[SessionState.DIALING, SessionEvent.DIALED]
    rig.prepare()
    rig.gate.route = [rig.refusing_address(), rig.backend.address]
    rig.listen()
    rig.start()
    rig.connect()
    rig.accept()
    rig.gate.wait_for(lambda: len(rig.gate.tickets) == 2, "the second attempt")
    first, second = rig.gate.tickets
    _check_gate_call(rig, failed, first)
    _check_gate_call(rig, dialed, second)
    _check_state(rig, dialed)
    assert rig.session().ticket is second


def test_a_failed_dial_leads_back_to_dialing(rig: Rig) -> None:
    row = TABLE[SessionState.DIALING, SessionEvent.DIAL_FAILED]
    rig.backend.fall_silent()
    rig.prepare()
    rig.gate.route = [rig.refusing_address(), rig.backend.address]
    rig.listen()
    rig.start()
    client = rig.connect()
    rig.gate.wait_for(lambda: len(rig.gate.tickets) == 2, "the second attempt")
    _check_gate_call(rig, row, rig.gate.tickets[0])
    _check_state(rig, row)
    client.reset()


def test_a_client_is_refused_after_its_last_failed_dial(rig: Rig) -> None:
    row = TABLE[SessionState.DIALING, SessionEvent.LAST_DIAL_FAILED]
    rig.prepare()
    rig.gate.route = [rig.refusing_address()]
    rig.listen()
    rig.start()
    assert rig.connect().rest() == Pause(b"", reset=False)
    _check_gate_call(rig, row)
    _check_state(rig, row)


def test_a_client_that_leaves_while_dialing_is_gone(rig: Rig) -> None:
    row = TABLE[SessionState.DIALING, SessionEvent.CLIENT_GONE]
    _dialing_client(rig).reset()
    _check_gate_call(rig, row)
    _check_state(rig, row)


def test_a_session_that_is_closed_while_dialing_is_aborted(rig: Rig) -> None:
    row = TABLE[SessionState.DIALING, SessionEvent.ABORTED]
    client = _dialing_client(rig)
    rig.engine.close_sessions()
    _check_gate_call(rig, row)
    _check_state(rig, row)
    assert client.rest() == Pause(b"", reset=False)


def test_a_session_finishes_when_both_sides_have_ended(rig: Rig) -> None:
    client, server = rig.pair()
    _check_state(rig, TABLE[SessionState.DIALING, SessionEvent.DIALED])
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    half_closed = TABLE[SessionState.OPEN, SessionEvent.SIDE_ENDED]
    _check_state(rig, half_closed)
    assert (half_closed.told, rig.gate.tickets[0].calls) == ("", ["dialed"])
    server.end()
    finished = TABLE[SessionState.HALF_CLOSED, SessionEvent.SIDE_ENDED]
    _check_gate_call(rig, finished)
    _check_state(rig, finished)


@pytest.mark.parametrize("state", [SessionState.OPEN, SessionState.HALF_CLOSED])
@pytest.mark.parametrize(
    "event", [SessionEvent.CLIENT_RESET, SessionEvent.BACKEND_RESET, SessionEvent.ABORTED]
)
def test_what_ends_a_session_whose_backend_has_answered(
    rig: Rig, state: SessionState, event: SessionEvent
) -> None:
    row = TABLE[state, event]
    client, server = rig.pair()
    if state is SessionState.HALF_CLOSED:
        ending, other = (server, client) if event is SessionEvent.CLIENT_RESET else (client, server)
        ending.end()
        assert other.rest() == Pause(b"", reset=False)
        _check_state(rig, TABLE[SessionState.OPEN, SessionEvent.SIDE_ENDED])
    if event is SessionEvent.ABORTED:
        rig.engine.close_sessions()
    else:
        (client if event is SessionEvent.CLIENT_RESET else server).reset()
    _check_gate_call(rig, row)
    _check_state(rig, row)


def test_a_gate_that_fails_when_its_dial_is_answered_ends_the_session(rig: Rig) -> None:
    row = TABLE[SessionState.DIALING, SessionEvent.BUG]
    rig.serve()
    rig.gate.raising = {"dialed"}
    rig.connect()
    _check_gate_call(rig, row)
    _check_state(rig, row)


@pytest.mark.parametrize("state", [SessionState.OPEN, SessionState.HALF_CLOSED])
def test_a_session_that_is_idle_for_too_long_ends(rig: Rig, state: SessionState) -> None:
    row = TABLE[state, SessionEvent.IDLE]
    rig.serve(idle_timeout_secs=IDLE_SECS)
    client, server = rig.pair()
    _bring_to(state, client, server)
    _check_gate_call(rig, row)
    _check_state(rig, row)


@pytest.mark.parametrize("state", [SessionState.OPEN, SessionState.HALF_CLOSED])
def test_a_session_whose_peer_vanishes_with_data_on_the_way_ends(
    rig: Rig, state: SessionState
) -> None:
    row = TABLE[state, SessionEvent.TIMED_OUT]
    rig.serve_with_small_buffers(user_timeout_secs=IDLE_SECS)
    client, server = rig.pair(buffer=SMALL_BUFFER)
    _bring_to(state, client, server)
    client.vanish()
    server.send(b"unacknowledged")
    _check_gate_call(rig, row)
    _check_state(rig, row)


@pytest.mark.parametrize("state", [SessionState.OPEN, SessionState.HALF_CLOSED])
def test_a_client_that_breaks_the_rules_of_tls_ends_its_session(
    tls_rig: TlsRig, state: SessionState
) -> None:
    row = TABLE[state, SessionEvent.TLS_BROKEN]
    client, server = tls_rig.pair()
    assert isinstance(client, TlsPeer)
    if state is SessionState.HALF_CLOSED:
        server.end()
        _check_state(tls_rig, TABLE[SessionState.OPEN, SessionEvent.SIDE_ENDED])
    client.sock.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
    _check_gate_call(tls_rig, row)
    _check_state(tls_rig, row)


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (SessionEvent.MORE_WANTED, NeedMore(2)),
        (SessionEvent.IDENTIFIED, Identified()),
        (SessionEvent.REFUSED, Refuse("unwanted")),
    ],
)
def test_what_the_gate_answers_to_first_bytes(
    rig: Rig, event: SessionEvent, answer: NeedMore | Identified | Refuse
) -> None:
    row = TABLE[SessionState.PREREAD, event]
    rig.prepare()
    rig.gate.read_preamble = lambda _preamble: answer
    rig.listen(settings=ListenerSettings(preamble_secs=DEADLINE_SECS))
    rig.start()
    client = rig.connect()
    client.send(b"x")
    rig.gate.wait_for(lambda: rig.gate.preambles, "the first bytes are read")
    assert row.told == "preamble_read"
    if event is SessionEvent.IDENTIFIED:  # without TLS, its handshake is over at once
        _check_state(rig, TABLE[SessionState.DIALING, SessionEvent.DIALED])
    else:
        _check_state(rig, row)
        assert rig.gate.clients == []
    if event is SessionEvent.REFUSED:
        assert client.rest() == Pause(b"", reset=False)


def test_a_client_whose_handshake_takes_too_long_is_lost(tls_rig: TlsRig) -> None:
    row = TABLE[SessionState.HANDSHAKE, SessionEvent.HANDSHAKE_LATE]
    tls_rig.serve_tls(TlsSettings((own(),), handshake_secs=IDLE_SECS))
    tls_rig.unshaken()
    tls_rig.gate.wait_for(lambda: tls_rig.gate.departures, "the client is lost")
    ((_address, _listener, reason),) = tls_rig.gate.departures
    assert (row.told, row.reason) == ("client_lost", reason)
    _check_state(tls_rig, row)


def test_a_client_that_leaves_in_its_handshake_is_gone(tls_rig: TlsRig) -> None:
    row = TABLE[SessionState.HANDSHAKE, SessionEvent.CLIENT_GONE]
    tls_rig.serve()
    tls_rig.tcp().close()
    tls_rig.gate.wait_for(lambda: tls_rig.gate.departures, "the client is lost")
    ((_address, _listener, reason),) = tls_rig.gate.departures
    assert (row.told, row.reason) == ("client_lost", reason)
    _check_state(tls_rig, row)


def test_a_client_whose_handshake_fails_is_lost(tls_rig: TlsRig) -> None:
    row = TABLE[SessionState.HANDSHAKE, SessionEvent.HANDSHAKE_FAILED]
    tls_rig.serve()
    tcp = tls_rig.tcp()
    tcp.sendall(b"GET / HTTP/1.1\r\n\r\n")
    tls_rig.gate.wait_for(lambda: tls_rig.gate.departures, "the client is lost")
    ((address, listener, reason),) = tls_rig.gate.departures
    assert (address, listener) == (tcp.getsockname(), "main")
    assert (row.told, row.reason) == ("client_lost", reason)
    assert tls_rig.gate.clients == []
    _check_state(tls_rig, row)


def test_a_client_whose_handshake_is_done_is_admitted(tls_rig: TlsRig) -> None:
    done = TABLE[SessionState.HANDSHAKE, SessionEvent.HANDSHAKE_DONE]
    assert (done.next_state, done.told) == (SessionState.ADMISSION, "")
    tls_rig.pair()
    _check_state(tls_rig, TABLE[SessionState.DIALING, SessionEvent.DIALED])
    assert len(tls_rig.gate.clients) == 1
    assert tls_rig.gate.departures == []


def _dialing_client(rig: Rig) -> Peer:
    """Return a client whose backend does not answer the dial."""
    rig.backend.fall_silent()
    rig.serve()
    client = rig.connect()
    _check_state(rig, TABLE[SessionState.ADMISSION, SessionEvent.CONNECT])
    return client


def _bring_to(state: SessionState, client: Peer, server: Peer) -> None:
    """Let the client end its side, if the session is to be half closed."""
    if state is SessionState.HALF_CLOSED:
        client.end()
        assert server.rest() == Pause(b"", reset=False)


def _check_state(rig: Rig, row: Transition) -> None:
    """Wait until the engine lists one session in the next state, or none if that is not listed."""
    expected = [row.next_state.value] if row.next_state in LISTED else []
    wait_until(lambda: [info.state for info in rig.engine.sessions()] == expected, str(row))


def _check_gate_call(rig: Rig, row: Transition, ticket: Ticket | None = None) -> None:
    """Wait until the gate is told what the row says of this ticket, or of the first one."""
    rig.gate.wait_for(lambda: rig.gate.tickets, "a ticket")
    told = ticket or rig.gate.tickets[0]
    field = {"dialed": "dialed_at", "failed": "failure", "closed": "outcome"}[row.told]
    rig.gate.wait_for(lambda: getattr(told, field) is not None, str(row))
    assert told.calls[-1] == row.told
    if told.outcome is not None:
        assert told.outcome.reason == row.reason
