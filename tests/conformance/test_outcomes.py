"""What an engine tells of a session that has ended: who ended it, and when the answer began."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edgeproxy.engine.contract import CloseReason
from edgeproxy.engine.session_states import Side
from tests.conformance.engines import MakeEngine
from tests.conformance.peers import DEADLINE_SECS, Peer
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.conformance.tls_peers import TlsPeer
from tests.conformance.tls_rig import TlsRig, running
from tests.waiting import wait_until

TIMEOUT_SECS = 0.5


@pytest.fixture
def tls_rig(engine: tuple[str, MakeEngine]) -> Iterator[TlsRig]:
    yield from running(engine)


def finish(first: Peer, second: Peer) -> None:
    """End both sides in this order."""
    first.end()
    assert second.rest().data == b""
    second.end()
    assert first.rest().data == b""


@pytest.mark.parametrize("side", Side)
def test_a_session_that_finished_was_ended_by_who_ended_first(rig: Rig, side: Side) -> None:
    client, server = rig.pair()
    finish(*((client, server) if side is Side.CLIENT else (server, client)))
    outcome = rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.FINISHED, side)


@pytest.mark.parametrize("side", Side)
def test_a_tls_session_that_finished_was_ended_by_who_ended_first(
    tls_rig: TlsRig, side: Side
) -> None:
    client, server = tls_rig.pair()
    finish(*((client, server) if side is Side.CLIENT else (server, client)))
    outcome = tls_rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.FINISHED, side)


@pytest.mark.parametrize("side", Side)
def test_a_reset_is_of_the_side_that_was_reset(rig: Rig, side: Side) -> None:
    client, server = rig.pair()
    (client if side is Side.CLIENT else server).reset()
    assert rig.outcome().ended_by is side


@pytest.mark.parametrize("side", Side)
def test_a_session_is_ended_by_the_peer_that_has_vanished(rig: Rig, side: Side) -> None:
    rig.serve_with_small_buffers(user_timeout_secs=TIMEOUT_SECS)
    client, server = rig.pair(buffer=SMALL_BUFFER)
    vanishing, other = (client, server) if side is Side.CLIENT else (server, client)
    vanishing.vanish()
    other.send(b"unacknowledged")
    outcome = rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.TIMED_OUT, side)


def test_who_breaks_the_rules_of_tls_has_ended_the_session(tls_rig: TlsRig) -> None:
    client, _ = tls_rig.pair()
    assert isinstance(client, TlsPeer)
    client.sock.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
    outcome = tls_rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.TLS_ERROR, Side.CLIENT)


def test_a_session_that_the_proxy_ends_is_ended_by_no_peer(rig: Rig) -> None:
    rig.pair()
    rig.engine.close_sessions()
    outcome = rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.ABORTED, None)


def test_a_client_that_leaves_while_its_backend_is_dialed_has_ended_it(rig: Rig) -> None:
    rig.backend.fall_silent()
    rig.serve()
    client = rig.connect()
    rig.gate.wait_for(lambda: rig.gate.tickets, "its backend is dialed")
    client.reset()
    outcome = rig.outcome()
    assert (outcome.reason, outcome.ended_by) == (CloseReason.CLIENT_GONE, Side.CLIENT)
    assert outcome.first_byte_secs is None


def _pause() -> None:
    until = time.monotonic() + 0.1
    wait_until(lambda: time.monotonic() >= until, "a moment has passed")


def first_byte_between(rig: Rig, client: Peer, server: Peer, before: float) -> None:
    """Let the backend answer after the client has asked, and check when that is said to be.

    `before` is a time before the client connected.
    """
    accepted = time.monotonic()  # or before that
    client.send(b"question")
    assert server.receive(8) == b"question"
    _pause()  # so that an engine that notes another moment is found out
    answered = time.monotonic()
    server.send(b"answer")
    assert client.receive(6) == b"answer"
    received = time.monotonic()
    _pause()
    server.send(b"and more")
    assert client.receive(8) == b"and more"
    finish(client, server)
    first_secs = rig.outcome().first_byte_secs
    assert first_secs is not None
    assert answered - accepted <= first_secs <= received - before


def test_the_first_byte_is_that_of_the_backend(rig: Rig) -> None:
    rig.serve()
    before = time.monotonic()
    first_byte_between(rig, *rig.pair(), before)


def test_the_first_byte_over_tls_is_that_of_the_backend(tls_rig: TlsRig) -> None:
    tls_rig.serve()
    before = time.monotonic()
    first_byte_between(tls_rig, *tls_rig.pair(), before)


def test_the_first_byte_of_a_backend_that_speaks_first(rig: Rig) -> None:
    rig.serve()
    before = time.monotonic()
    client = rig.connect()
    server = rig.accept()
    server.send(b"220 ready")
    assert client.receive(9) == b"220 ready"
    received = time.monotonic()
    finish(server, client)
    first_secs = rig.outcome().first_byte_secs
    assert first_secs is not None
    assert 0 < first_secs <= received - before


def test_without_an_answer_there_is_no_first_byte(rig: Rig) -> None:
    client, server = rig.pair()
    client.send(b"question")
    assert server.receive(8) == b"question"
    finish(client, server)
    outcome = rig.outcome()
    assert (outcome.bytes_out, outcome.first_byte_secs) == (0, None)


def test_a_first_byte_that_waits_for_room_is_not_there_yet(rig: Rig) -> None:
    """Bytes count when the client's socket takes them: here at once, the rest much later."""
    rig.serve_with_small_buffers()
    client, server = rig.pair(buffer=SMALL_BUFFER)
    sending = rig.run(server.send, bytes(1 << 20))
    received = client.receive(1 << 20)
    assert len(received) == 1 << 20
    sending.result(DEADLINE_SECS)
    finish(client, server)
    outcome = rig.outcome()
    assert outcome.first_byte_secs is not None
    assert outcome.first_byte_secs <= outcome.secs
