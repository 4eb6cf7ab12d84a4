"""A FIN is carried in its direction only, after every byte before it."""

from __future__ import annotations

import socket

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig
from tests.waiting import wait_until

DIRECTIONS = pytest.mark.parametrize("upward", [True, False], ids=["client ends", "backend ends"])

LONG = 10 << 20


def _ending_and_other(rig: Rig, upward: bool, small: bool = False) -> tuple[Peer, Peer]:
    client, server = rig.small_pair() if small else rig.pair()
    return (client, server) if upward else (server, client)


def _assert_finished(rig: Rig, ending: Peer, other: Peer, upward: bool) -> None:
    counts = (ending.sent, other.sent) if upward else (other.sent, ending.sent)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, *counts)


@DIRECTIONS
def test_the_other_side_goes_on_sending_after_a_fin(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward)
    request, answer = Stream(1), Stream(2)
    ending.send_stream(request, 1000)
    ending.end()
    assert other.rest_of_stream(request) is False
    assert other.received == 1000
    sending = rig.run(other.send_stream, answer, LONG)
    ending.receive_stream(answer, LONG)
    sending.result()
    other.close()
    assert ending.rest() == Pause(b"", reset=False)
    _assert_finished(rig, ending, other, upward)


@DIRECTIONS
def test_a_fin_without_data_arrives(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward)
    ending.end()
    assert other.rest() == Pause(b"", reset=False)
    other.send(b"still here")
    assert ending.receive(10) == b"still here"
    other.end()
    assert ending.rest() == Pause(b"", reset=False)


@DIRECTIONS
def test_a_fin_in_the_same_segment_as_data_arrives_after_it(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward)
    ending.send(b"last words", socket.MSG_MORE)
    ending.end()
    assert other.rest() == Pause(b"last words", reset=False)


@DIRECTIONS
def test_a_fin_arrives_after_a_long_transfer(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward)
    stream = Stream(3)

    def send() -> None:
        ending.send_stream(stream, LONG)
        ending.end()

    sending = rig.run(send)
    assert other.rest_of_stream(stream) is False
    sending.result()
    assert other.received == LONG


def test_both_sides_may_end_at_once(rig: Rig) -> None:
    client, server = rig.pair()
    client.send(b"bye", socket.MSG_MORE)
    server.send(b"farewell", socket.MSG_MORE)
    client.end()
    server.end()
    assert server.rest() == Pause(b"bye", reset=False)
    assert client.rest() == Pause(b"farewell", reset=False)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, 3, 8)


@DIRECTIONS
def test_a_fin_passes_while_the_other_direction_is_blocked(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward, small=True)
    flood = Stream(4)
    other.send_until_blocked(flood)
    ending.send(b"enough")
    ending.end()
    assert other.rest() == Pause(b"enough", reset=False)
    ending.sent = 6
    other.end()
    assert ending.rest_of_stream(flood) is False
    assert ending.received == other.sent
    _assert_finished(rig, ending, other, upward)


@DIRECTIONS
def test_a_fin_behind_a_blocked_direction_arrives_after_its_bytes(rig: Rig, upward: bool) -> None:
    ending, other = _ending_and_other(rig, upward, small=True)
    flood = Stream(5)
    ending.send_until_blocked(flood)
    ending.end()
    other.send(b"meanwhile")
    assert ending.receive(9) == b"meanwhile"
    assert other.rest_of_stream(flood) is False
    assert other.received == ending.sent
    other.send(b"and after")
    assert ending.receive(9) == b"and after"
    other.sent = 18
    other.end()
    assert ending.rest() == Pause(b"", reset=False)
    _assert_finished(rig, ending, other, upward)


def test_both_directions_may_be_blocked_and_ended(rig: Rig) -> None:
    client, server = rig.small_pair()
    up, down = Stream(6), Stream(7)
    client.send_until_blocked(up)
    server.send_until_blocked(down)
    client.end()
    server.end()
    assert server.rest_of_stream(up) is False
    assert client.rest_of_stream(down) is False
    assert rig.outcome()[:3] == (CloseReason.FINISHED, client.sent, server.sent)
    assert (server.received, client.received) == (client.sent, server.sent)


def test_a_client_may_ask_and_end_at_once(rig: Rig) -> None:
    rig.serve()
    client = rig.connect()
    client.send(b"request", socket.MSG_MORE)
    client.end()
    server = rig.accept()
    assert server.rest() == Pause(b"request", reset=False)
    server.send(b"answer")
    server.close()
    assert client.rest() == Pause(b"answer", reset=False)
    assert rig.outcome()[:3] == (CloseReason.FINISHED, 7, 6)


def test_a_fin_that_came_before_the_backend_answered_is_carried(rig: Rig) -> None:
    silent = rig.silent_backend()
    rig.serve(ScriptedGate(silent.address, rig.backend.address, timeout_secs=0.5))
    client = rig.connect()
    client.send(b"request", socket.MSG_MORE)
    client.end()
    server = rig.accept()
    assert rig.gate.tickets[0].failure == "timeout"
    assert server.rest() == Pause(b"request", reset=False)
    server.send(b"answer")
    server.close()
    assert client.rest() == Pause(b"answer", reset=False)
    assert rig.outcome(1)[:3] == (CloseReason.FINISHED, 7, 6)


def test_a_fin_without_data_that_came_before_the_backend_answered_is_carried(rig: Rig) -> None:
    silent = rig.silent_backend()
    rig.serve(ScriptedGate(silent.address, rig.backend.address, timeout_secs=0.5))
    client = rig.connect()
    client.end()
    server = rig.accept()
    assert server.rest() == Pause(b"", reset=False)
    server.send(b"hello")
    server.close()
    assert client.rest() == Pause(b"hello", reset=False)


def test_a_half_closed_session_is_listed_as_such(rig: Rig) -> None:
    client, server = rig.pair()
    wait_until(lambda: rig.session().state == "open", "the session is open")
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    wait_until(lambda: rig.session().state == "half_closed", "the session is half closed")
