"""A client that comes back at once is not refused because its last connection still counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edgeproxy.engine.contract import CloseReason, DialFailure
from edgeproxy.engine.slot_wait import MAX_WAITING
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Peer
from tests.conformance.rig import Rig
from tests.conformance.test_preambles import serve as serve_with_preamble
from tests.waiting import wait_until

VISITS = 300

FIRST, SECOND, THIRD = "127.0.1.1", "127.0.1.2", "127.0.2.1"
"""Addresses of clients; two of them are of one site where the gate says so."""


def _limited(rig: Rig, slots: int = 1) -> ScriptedGate:
    gate = ScriptedGate(rig.backend.address)
    gate.slots = slots
    return gate


@contextmanager
def _served(rig: Rig, serve: Callable[[Peer], object]) -> Iterator[None]:
    """Let the backend serve one client after the other; fail if it has two at once."""

    def accept_all() -> None:
        for _ in range(VISITS):
            peer = rig.backend.accept()
            assert len(rig.gate.unended()) == 1
            serve(peer)
            peer.close()

    background = rig.run(accept_all)
    yield
    background.result()


def _greet(peer: Peer) -> None:
    peer.send(b"hello")


def _greet_until_the_end(peer: Peer) -> None:
    peer.send(b"hello")
    peer.rest()


def _visit(rig: Rig, ask: Callable[[Peer], object]) -> object:
    client = rig.connect()
    answer = ask(client)
    client.close()
    return answer


def _holder_that_ends(rig: Rig) -> Peer:
    """Let a client hold the only slot and end its side; return its backend, which may follow."""
    holder, server = rig.pair()
    holder.end()
    assert server.rest() == Pause(b"", reset=False)
    return server


@pytest.mark.usefixtures("patient")
def test_a_client_that_is_back_at_once_is_served_when_the_backend_ends_first(rig: Rig) -> None:
    rig.serve(_limited(rig))
    with _served(rig, _greet):
        answers = [_visit(rig, Peer.rest) for _ in range(VISITS)]
    assert answers == [Pause(b"hello", reset=False)] * VISITS


@pytest.mark.usefixtures("patient")
def test_a_client_that_is_back_at_once_is_served_when_it_ends_first(rig: Rig) -> None:
    rig.serve(_limited(rig))
    with _served(rig, _greet_until_the_end):
        answers = [_visit(rig, lambda client: client.first(5)) for _ in range(VISITS)]
    assert answers == [b"hello"] * VISITS


@pytest.mark.usefixtures("patient")
def test_a_client_that_is_back_at_once_is_served_when_it_resets(rig: Rig) -> None:
    rig.serve(_limited(rig))
    with _served(rig, _greet_until_the_end):
        for _ in range(VISITS):
            client = rig.connect()
            assert client.first(5) == b"hello"
            client.reset()


@pytest.mark.usefixtures("patient")
def test_a_preread_client_that_is_back_at_once_is_served(rig: Rig) -> None:
    serve_with_preamble(rig, gate=_limited(rig))

    def speak(client: Peer) -> bytes:
        client.send(b"me\n")
        return client.rest().data

    with _served(rig, _greet):
        answers = [_visit(rig, speak) for _ in range(VISITS)]
    assert answers == [b"hello"] * VISITS


@pytest.mark.usefixtures("patient")
def test_where_nothing_is_ending_a_client_is_refused_and_not_kept(rig: Rig) -> None:
    rig.serve(_limited(rig))
    holder, server = rig.pair()
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert (rig.gate.asked_again_last, len(rig.gate.tickets)) == (1, 1)
    holder.send(b"still")
    assert server.receive(5) == b"still"


@pytest.mark.usefixtures("patient")
def test_others_are_decided_while_a_client_waits(rig: Rig) -> None:
    rig.serve(_limited(rig))
    server = _holder_that_ends(rig)
    waiting = rig.connect()
    wait_until(lambda: len(rig.gate.clients) == 2, "the gate was asked")
    rig.gate.slots = 2
    other = rig.connect()
    rig.gate.wait_for(lambda: len(rig.gate.tickets) >= 2, "somebody was decided")
    assert rig.gate.tickets[1].client == other.sock.getsockname()
    server.close()
    rig.gate.wait_for(lambda: len(rig.gate.tickets) == 3, "the one that waited was decided")
    assert rig.gate.tickets[2].client == waiting.sock.getsockname()
    assert rig.gate.asked_again_last == 0


@pytest.mark.usefixtures("patient")
def test_who_waits_gets_the_first_slot_that_is_free(rig: Rig) -> None:
    rig.serve(_limited(rig))
    server = _holder_that_ends(rig)
    waiting = rig.connect()
    wait_until(lambda: len(rig.gate.clients) == 2, "the gate was asked")
    server.close()
    assert rig.outcome().reason == CloseReason.FINISHED
    waiting.send(b"hello")
    assert rig.accept().receive(5) == b"hello"


def test_a_backend_that_does_not_end_its_side_holds_up_nobody_for_long(rig: Rig) -> None:
    rig.serve(_limited(rig))
    _holder_that_ends(rig)
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert rig.gate.asked_again_last == 1


def _come(rig: Rig, host: str) -> Peer:
    """Connect a client from this address."""
    return Peer(rig.tcp(host=host))


def _crowd(rig: Rig, host: str, waiting: int, decided: int) -> None:
    """Let so many clients come from one address; so many are to wait, the others are decided."""
    live, last = rig.engine.live() + waiting, rig.gate.asked_again_last + decided
    for _ in range(waiting + decided):
        _come(rig, host)
    rig.gate.wait_for(lambda: rig.gate.asked_again_last == last, "those without room")
    wait_until(lambda: rig.engine.live() == live, "the others wait")


@pytest.mark.usefixtures("patient")
def test_one_client_has_no_more_places_than_it_leaves_to_others(rig: Rig) -> None:
    rig.serve(_limited(rig))
    _holder_that_ends(rig)
    _crowd(rig, FIRST, MAX_WAITING // 2, 50)
    _crowd(rig, SECOND, MAX_WAITING // 4, 50)
    _crowd(rig, FIRST, 0, 1)
    assert len(rig.gate.tickets) == 1
    rig.engine.stop()


@pytest.mark.usefixtures("patient")
def test_the_clients_of_one_site_leave_room_to_others(rig: Rig) -> None:
    gate = _limited(rig)
    gate.site_of = lambda address: address.rpartition(".")[0]
    rig.serve(gate)
    _holder_that_ends(rig)
    _crowd(rig, FIRST, MAX_WAITING // 2, 0)
    two_thirds = math.ceil(MAX_WAITING * 2 / 3)
    _crowd(rig, SECOND, two_thirds - MAX_WAITING // 2, 50)
    _crowd(rig, THIRD, 50, 0)
    rig.engine.stop()


@pytest.mark.usefixtures("patient")
def test_who_has_waited_leaves_the_place_to_others(rig: Rig) -> None:
    gate = _limited(rig)
    rig.serve(gate)
    server = _holder_that_ends(rig)
    _crowd(rig, FIRST, MAX_WAITING // 2, 1)
    gate.slots = VISITS
    server.close()
    gate.wait_for(lambda: len(gate.tickets) == 1 + MAX_WAITING // 2, "all that waited")
    gate.slots = 0
    _crowd(rig, FIRST, MAX_WAITING // 2, 1)
    rig.engine.stop()


@pytest.mark.usefixtures("patient")
def test_a_client_that_an_end_does_not_help_does_not_use_it_up(rig: Rig) -> None:
    gate = _limited(rig, slots=2)
    gate.slots_per_client = 1
    rig.serve(gate)
    _come(rig, FIRST)
    rig.accept()
    server = _holder_that_ends(rig)
    for _ in range(20):
        _come(rig, FIRST)  # waits for its own connection only
    gate.wait_for(lambda: len(gate.clients) == 22, "all that are full by themselves")
    others = [_come(rig, host) for host in (SECOND, THIRD)]
    gate.wait_for(lambda: len(gate.clients) == 24, "the others")
    server.close()
    gate.wait_for(lambda: len(gate.tickets) == 3, "the first one that is helped")
    assert gate.tickets[2].client == others[0].sock.getsockname()
    assert gate.asked_again_last == 0
    rig.engine.stop()


@pytest.mark.usefixtures("patient")
def test_who_is_full_by_itself_is_asked_about_when_its_own_connection_has_ended(rig: Rig) -> None:
    gate = _limited(rig, slots=3)
    gate.slots_per_client = 1
    rig.serve(gate)
    _holder_that_ends(rig)
    first, server = _come(rig, FIRST), rig.accept()
    for _ in range(2):
        _come(rig, FIRST)
    gate.wait_for(lambda: len(gate.clients) == 4, "two that are full by themselves")
    for number in range(3):
        other = _come(rig, SECOND)
        rig.accept().close()
        other.close()
        rig.outcome(2 + number)
    first.end()
    server.close()
    gate.wait_for(lambda: gate.askings >= 2, "one that is helped, and one that is not")
    assert (gate.askings, gate.tickets[5].client[0]) == (2, FIRST)
    rig.engine.stop()


@pytest.mark.usefixtures("patient")
def test_who_waits_gets_the_slot_of_a_dial_that_failed(rig: Rig) -> None:
    gate = _limited(rig, slots=2)
    gate.timeout_secs = 0.2
    gate.routes["silent"] = [rig.silent_backend().address]
    rig.prepare(gate)
    rig.listen()
    rig.listen("silent")
    rig.start()
    _holder_that_ends(rig)
    rig.connect("silent")
    gate.wait_for(lambda: len(gate.tickets) == 2, "a dial that nobody answers")
    waiting = rig.connect()
    gate.wait_for(lambda: len(gate.tickets) == 3, "the one that waited")
    assert gate.tickets[2].client == waiting.sock.getsockname()
    assert gate.tickets[1].failure == DialFailure.TIMEOUT


@pytest.mark.usefixtures("patient")
def test_raising_about_an_end_ends_nobody_who_waits(rig: Rig) -> None:
    gate = _limited(rig, slots=2)
    rig.serve(gate)
    servers = [_holder_that_ends(rig) for _ in range(2)]
    waiting = rig.connect()
    gate.wait_for(lambda: len(gate.clients) == 3, "the gate was asked")
    gate.raising = {"frees"}
    servers[0].close()
    assert rig.outcome().reason == CloseReason.FINISHED
    gate.raising = set()
    servers[1].close()
    gate.wait_for(lambda: len(gate.tickets) == 3, "the one that waits")
    assert gate.tickets[2].client == waiting.sock.getsockname()


@pytest.mark.usefixtures("patient")
def test_one_end_helps_a_client_in_every_line(rig: Rig) -> None:
    gate = _limited(rig, slots=3)
    gate.slots_per_client = 1
    rig.serve(gate)
    first = _come(rig, FIRST)
    server = rig.accept()
    first.end()
    assert server.rest() == Pause(b"", reset=False)
    waiting = _come(rig, FIRST)
    gate.wait_for(lambda: len(gate.clients) == 2, "one that is full by itself")
    gate.slots = 1
    other = _come(rig, SECOND)
    gate.wait_for(lambda: len(gate.clients) == 3, "one that finds no slot")
    gate.slots = 2
    server.close()
    gate.wait_for(lambda: len(gate.tickets) == 3, "both")
    clients = [ticket.client for ticket in gate.tickets[1:]]
    assert clients == [waiting.sock.getsockname(), other.sock.getsockname()]


@pytest.mark.usefixtures("patient")
def test_a_client_that_waits_when_the_engine_stops_is_closed(rig: Rig) -> None:
    rig.serve(_limited(rig))
    _holder_that_ends(rig)
    waiting = rig.connect()
    wait_until(lambda: len(rig.gate.clients) == 2, "the gate was asked")
    rig.engine.stop()
    assert waiting.rest().data == b""


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_last", [False, True])
def test_raising_about_a_client_that_waits_closes_it(rig: Rig, is_last: bool) -> None:
    rig.serve(_limited(rig))
    holder, server = rig.pair()
    rig.gate.raising = {"asked_again"}
    if not is_last:
        holder.end()
        assert server.rest() == Pause(b"", reset=False)
    waiting = rig.connect()
    wait_until(lambda: len(rig.gate.clients) == 2, "the gate was asked")
    if not is_last:
        server.close()
    assert waiting.rest() == Pause(b"", reset=False)
    rig.gate.raising = set()
    assert len(rig.gate.tickets) == 1
