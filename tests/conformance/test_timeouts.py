"""Idle sessions and vanished peers are ended in time, and nobody else is."""

from __future__ import annotations

import time

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig
from tests.waiting import PAUSE

IDLE_SECS = 0.6
LATE_SECS = 1.5
"""How much later than its timeout a session may end: engines look about once a second."""


def test_an_idle_session_is_closed_in_time(rig: Rig) -> None:
    rig.serve(idle_timeout_secs=IDLE_SECS)
    client, server = rig.connect(), rig.accept()
    client.send(b"hello")
    assert server.receive(5) == b"hello"
    quiet_since = time.monotonic()
    assert client.rest() == Pause(b"", reset=False)
    assert time.monotonic() - quiet_since >= IDLE_SECS - 0.05
    assert server.rest() == Pause(b"", reset=False)
    assert rig.outcome()[:3] == (CloseReason.IDLE, 5, 0)


def test_a_session_without_any_byte_is_idle(rig: Rig) -> None:
    rig.serve(idle_timeout_secs=IDLE_SECS)
    client, _server = rig.connect(), rig.accept()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.IDLE


def test_a_half_closed_session_may_be_idle(rig: Rig) -> None:
    rig.serve(idle_timeout_secs=IDLE_SECS)
    client, server = rig.connect(), rig.accept()
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().reason == CloseReason.IDLE


def test_traffic_in_one_direction_keeps_a_session_alive(rig: Rig) -> None:
    rig.serve(idle_timeout_secs=IDLE_SECS)
    up, down = rig.pair(), rig.pair()[::-1]
    until = time.monotonic() + IDLE_SECS + LATE_SECS
    while time.monotonic() < until:
        for source, sink in (up, down):
            source.send(b"x")
            assert sink.receive(1) == b"x"
        PAUSE.wait(IDLE_SECS / 4)
    assert rig.engine.live() == 2
    for index, (source, _) in enumerate((up, down)):
        assert source.rest() == Pause(b"", reset=False)
        assert rig.outcome(index).reason == CloseReason.IDLE


def test_without_an_idle_timeout_a_session_stays(rig: Rig) -> None:
    client, server = rig.pair()
    PAUSE.wait(2.0)
    client.send(b"still here")
    assert server.receive(10) == b"still here"


def test_an_idle_session_with_undelivered_bytes_does_not_end_as_if_complete(rig: Rig) -> None:
    rig.serve_with_small_buffers(idle_timeout_secs=IDLE_SECS)
    client, server = rig.small_pair()
    stream = Stream(1)
    client.send_until_blocked(stream)
    assert rig.outcome().reason == CloseReason.IDLE
    assert server.rest_of_stream(stream) is True
    assert server.received < client.sent


def _writer_and_reader(rig: Rig, upward: bool) -> tuple[Peer, Peer]:
    client, server = rig.small_pair()
    return (client, server) if upward else (server, client)


DIRECTIONS = pytest.mark.parametrize(
    "upward", [True, False], ids=["backend vanishes", "client vanishes"]
)


@DIRECTIONS
def test_a_peer_that_vanishes_with_unacknowledged_data_is_given_up(rig: Rig, upward: bool) -> None:
    rig.serve_with_small_buffers(user_timeout_secs=1.0)
    writer, reader = _writer_and_reader(rig, upward)
    writer.send(b"hello")
    assert reader.receive(5) == b"hello"
    reader.vanish()
    sent_at = time.monotonic()
    writer.send(b"anybody there?")
    assert writer.rest() == Pause(b"", reset=True)
    assert time.monotonic() - sent_at >= 0.5
    assert rig.outcome().reason == CloseReason.TIMED_OUT


@DIRECTIONS
def test_a_peer_that_vanishes_while_it_is_not_reading_is_given_up(rig: Rig, upward: bool) -> None:
    rig.serve_with_small_buffers(user_timeout_secs=1.0)
    writer, reader = _writer_and_reader(rig, upward)
    writer.send_until_blocked(Stream(2))
    reader.vanish()
    assert rig.outcome().reason == CloseReason.TIMED_OUT
    assert writer.rest() == Pause(b"", reset=True)


def test_a_peer_that_only_pauses_for_long_is_not_given_up(rig: Rig) -> None:
    rig.serve_with_small_buffers(user_timeout_secs=1.0)
    stream = Stream(3)
    up, down = rig.small_pair(), rig.small_pair()[::-1]
    for writer, _ in (up, down):
        writer.send_until_blocked(stream)
    PAUSE.wait(3.0)
    assert rig.engine.live() == 2
    for writer, reader in (up, down):
        reader.receive_stream(stream, writer.sent)
        writer.send_stream(stream, 1)
        reader.receive_stream(stream, 1)
