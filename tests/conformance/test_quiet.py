"""An engine that has nothing to do uses no processor time, whatever its sessions are like."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import Rig
from tests.waiting import PAUSE, wait_until

LOOK_SECS = 0.3
SHARE = 0.2
"""A busy loop would use all of one processor; timers and this process itself use little."""

DIRECTIONS = pytest.mark.parametrize("upward", [True, False], ids=["upward", "downward"])


def _busy_shares() -> Iterator[float]:
    for _ in range(3):
        began = time.process_time()
        PAUSE.wait(LOOK_SECS)
        yield (time.process_time() - began) / LOOK_SECS


def _assert_quiet() -> None:
    shares = []
    for share in _busy_shares():
        shares.append(share)
        if share < SHARE:
            return
    raise AssertionError(f"busy: {shares}")


def test_without_clients(rig: Rig) -> None:
    rig.serve()
    _assert_quiet()


def test_with_many_idle_sessions(rig: Rig) -> None:
    for _ in range(200):
        client, server = rig.pair()
        client.send(b"x")
        assert server.receive(1) == b"x"
    _assert_quiet()


@DIRECTIONS
def test_with_a_blocked_direction(rig: Rig, upward: bool) -> None:
    client, server = rig.small_pair()
    (client if upward else server).send_until_blocked(Stream(1))
    _assert_quiet()


def test_with_both_directions_blocked(rig: Rig) -> None:
    client, server = rig.small_pair()
    client.send_until_blocked(Stream(2))
    server.send_until_blocked(Stream(3))
    _assert_quiet()


@DIRECTIONS
def test_with_a_half_closed_session(rig: Rig, upward: bool) -> None:
    client, server = rig.pair()
    ending, other = (client, server) if upward else (server, client)
    ending.end()
    assert other.rest() == Pause(b"", reset=False)
    _assert_quiet()


@DIRECTIONS
def test_with_an_end_behind_a_blocked_direction(rig: Rig, upward: bool) -> None:
    client, server = rig.small_pair()
    ending = client if upward else server
    ending.send_until_blocked(Stream(4))
    ending.end()
    _assert_quiet()


def test_with_both_directions_blocked_and_ended(rig: Rig) -> None:
    client, server = rig.small_pair()
    client.send_until_blocked(Stream(5))
    server.send_until_blocked(Stream(6))
    client.end()
    server.end()
    _assert_quiet()


@DIRECTIONS
def test_with_a_side_that_has_hung_up_behind_a_blocked_direction(rig: Rig, upward: bool) -> None:
    """Both ways of that socket are over, which epoll reports without being asked."""
    client, server = rig.small_pair()
    writer, reader = (client, server) if upward else (server, client)
    writer.send_until_blocked(Stream(7))
    reader.end()
    assert writer.rest() == Pause(b"", reset=False)
    writer.end()
    _assert_quiet()


@DIRECTIONS
def test_with_a_writer_that_has_left_behind_a_blocked_direction(rig: Rig, upward: bool) -> None:
    client, server = rig.small_pair()
    writer = client if upward else server
    writer.send_until_blocked(Stream(8))
    writer.close()
    _assert_quiet()


def test_while_a_client_that_has_spoken_waits_for_a_dial(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, timeout_secs=10))
    client = rig.connect()
    client.send(b"x" * 10_000)
    wait_until(rig.engine.sessions, "the client is dialing")
    _assert_quiet()
    client.reset()


def test_while_a_client_that_has_ended_waits_for_a_dial(rig: Rig) -> None:
    rig.serve(ScriptedGate(rig.silent_backend().address, timeout_secs=10))
    client = rig.connect()
    client.send(b"request")
    client.end()
    wait_until(rig.engine.sessions, "the client is dialing")
    _assert_quiet()
    client.reset()


def test_after_a_backend_has_reset_behind_a_client_that_does_not_read(rig: Rig) -> None:
    client, server = rig.small_pair()
    server.send_until_blocked(Stream(9))
    server.reset()
    _assert_quiet()
    client.close()


def test_after_the_listeners_are_closed(rig: Rig) -> None:
    rig.pair()
    rig.engine.stop_accepting()
    _assert_quiet()
