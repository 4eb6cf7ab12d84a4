"""A reset arrives as a reset, and takes no byte with it that could still be delivered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.waiting import PAUSE, wait_until

DIRECTIONS = pytest.mark.parametrize(
    ("upward", "reason"),
    [(True, CloseReason.CLIENT_RESET), (False, CloseReason.BACKEND_RESET)],
    ids=["client resets", "backend resets"],
)


def _leaving_and_staying(rig: Rig, upward: bool, small: bool = False) -> tuple[Peer, Peer]:
    client, server = rig.small_pair() if small else rig.pair()
    return (client, server) if upward else (server, client)


@DIRECTIONS
def test_a_reset_arrives_as_a_reset(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward)
    leaving.send(b"x")
    assert staying.receive(1) == b"x"
    leaving.reset()
    assert staying.rest() == Pause(b"", reset=True)
    assert rig.outcome().reason == reason


@DIRECTIONS
def test_what_was_sent_before_a_reset_reaches_a_live_reader(
    rig: Rig, upward: bool, reason: str
) -> None:
    for index in range(50):
        leaving, staying = _leaving_and_staying(rig, upward)
        leaving.send(b"last words" * 100)
        leaving.reset()
        assert staying.rest() == Pause(b"last words" * 100, reset=True)
        assert rig.outcome(index).reason == reason


@DIRECTIONS
def test_a_reset_in_the_middle_of_a_transfer_leaves_a_prefix(
    rig: Rig, upward: bool, reason: str
) -> None:
    leaving, staying = _leaving_and_staying(rig, upward)
    stream = Stream(1)
    receiving = rig.run(staying.rest_of_stream, stream)
    leaving.send_stream(stream, 20 << 20)
    leaving.reset()
    assert receiving.result() is True
    assert staying.received <= leaving.sent
    assert rig.outcome().reason == reason


@DIRECTIONS
def test_a_reset_by_the_reader_stops_the_writer(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward)
    stream = Stream(2)
    writing = rig.run(staying.send_stream, stream, 1 << 30)
    leaving.receive_stream(stream, 1 << 20)
    leaving.reset()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        writing.result()
    assert rig.outcome().reason == reason


@DIRECTIONS
def test_a_writer_that_is_blocked_may_reset(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward, small=True)
    stream = Stream(3)
    leaving.send_until_blocked(stream)
    leaving.reset()
    assert staying.rest_of_stream(stream) is True
    assert staying.received < leaving.sent
    assert rig.outcome().reason == reason


def test_a_client_that_resets_is_let_go_though_the_backend_never_reads(rig: Rig) -> None:
    client, server = rig.small_pair()
    client.send_until_blocked(Stream(4))
    client.reset()
    assert rig.outcome().reason == CloseReason.CLIENT_RESET
    server.close()


@DIRECTIONS
def test_a_reader_that_has_stopped_may_reset(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward, small=True)
    staying.send_until_blocked(Stream(5))
    leaving.reset()
    assert staying.rest() == Pause(b"", reset=True)
    assert rig.outcome().reason == reason


@DIRECTIONS
def test_a_side_that_has_ended_may_reset_afterwards(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward)
    leaving.send(b"bye")
    leaving.end()
    assert staying.rest() == Pause(b"bye", reset=False)
    leaving.reset()
    assert rig.outcome().reason == reason
    wait_until(lambda: _write_fails(staying), "the other side hears of it")


@DIRECTIONS
def test_the_side_that_has_not_ended_may_reset(rig: Rig, upward: bool, reason: str) -> None:
    leaving, staying = _leaving_and_staying(rig, upward)
    staying.send(b"bye")
    staying.end()
    assert leaving.rest() == Pause(b"bye", reset=False)
    leaving.send(b"no")
    assert staying.receive(2) == b"no"
    leaving.reset()
    assert staying.rest() == Pause(b"", reset=True)
    assert rig.outcome().reason == reason


def _write_fails(peer: Peer) -> bool:
    try:
        peer.send(b"?")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_an_answer_arrives_though_its_sender_never_read_the_question(rig: Rig) -> None:
    """Closing a socket with unread data sends a RST right after the answer."""
    for _ in range(20):
        client, server = rig.pair()
        client.send(b"a question that nobody reads")
        wait_until(server.unread_bytes, "the question is there")
        server.send(b"answer" * 2000)
        server.close()
        assert client.rest().data == b"answer" * 2000
        client.close()


@pytest.mark.parametrize("size", [SMALL_BUFFER * 2, SMALL_BUFFER * 4])
def test_an_answer_before_a_reset_arrives_at_a_slow_reader(rig: Rig, size: int) -> None:
    """More than the client's kernel takes at once: the rest has to wait somewhere."""
    client, server = rig.small_pair()
    stream = Stream(6)
    client.send(b"unread")
    wait_until(server.unread_bytes, "the question is there")
    server.send_stream(stream, size)
    wait_until(lambda: not server.unacknowledged_bytes(), "the engine has the answer")
    server.close()
    PAUSE.wait(0.5)
    while client.received < size:
        client.receive_stream(stream, min(1013, size - client.received))
    client.rest()
    assert rig.outcome()[:3] == (CloseReason.BACKEND_RESET, 6, size)


def test_an_early_answer_arrives_at_a_client_that_is_blocked(rig: Rig) -> None:
    client, server = rig.small_pair()
    client.send_until_blocked(Stream(7))
    server.send(b"413 too large")
    server.close()
    assert client.rest() == Pause(b"413 too large", reset=True)


def test_an_early_answer_arrives_at_a_client_that_is_still_sending(rig: Rig) -> None:
    for _ in range(30):
        client, server = rig.pair()
        sending = rig.run(client.send_stream, Stream(8), 1 << 30)
        server.receive(200_000)
        server.send(b"413 too large")
        server.close()
        assert client.rest().data == b"413 too large"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sending.result()


def test_a_backend_that_resets_at_once_costs_only_its_client(rig: Rig) -> None:
    rig.serve()
    for index in range(20):
        client = rig.connect()
        rig.accept().reset()
        assert client.rest().data == b""
        ticket = rig.wait_for_end(index)
        assert ticket.failure == "reset" or (
            ticket.outcome is not None and ticket.outcome.reason == CloseReason.BACKEND_RESET
        )
        client.close()
    client, server = rig.pair()
    client.send(b"works")
    assert server.receive(5) == b"works"


def test_clients_that_reset_while_they_wait_to_be_accepted_harm_nobody(rig: Rig) -> None:
    rig.prepare(ScriptedGate(rig.backend.address))
    rig.listen()
    for _ in range(10):
        client = rig.connect()
        client.send(b"gone")
        client.reset()
    rig.start()
    client = rig.connect()
    client.send(b"here")
    wait_until(lambda: _last_is_served(rig), "the living client is served")
    assert client.receive(4) == b"HERE"


def _last_is_served(rig: Rig) -> bool:
    """Accept one session more and answer if it is the living client's."""
    server = rig.accept()
    said = server.first(4)
    if said == b"here":
        server.send(b"HERE")
    return said == b"here"


@pytest.mark.parametrize("how", [Peer.close, Peer.reset], ids=["end", "reset"])
def test_a_client_that_leaves_before_it_has_read_what_came_before_a_reset_is_let_go(
    rig: Rig, how: Callable[[Peer], None]
) -> None:
    rig.prepare()
    rig.listen()
    rig.start()
    client, server = rig.connect(buffer=SMALL_BUFFER), rig.accept()
    server.send(bytes(200_000))
    wait_until(lambda: rig.session().bytes_out == 200_000, "the kernel has all of it")
    server.reset()
    rig.outcome()
    assert rig.engine.live() == 1
    how(client)
    wait_until(lambda: rig.engine.live() == 0, "nobody is left", deadline_secs=5)
