"""Dials that somebody else has begun: the engine goes on with their sockets and owns them."""

from __future__ import annotations

import socket

import pytest

from edgeproxy.engine.contract import CloseReason, DialFailure
from tests.conformance.gates import Address, ScriptedGate
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig


class Begun:
    """Begins connections for a gate to give out."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.waiting: list[socket.socket] = []

    def begin(self, address: Address) -> None:
        """Begin one, which may be under way still."""
        begun = self._rig.keep(socket.socket())
        begun.setblocking(False)
        begun.connect_ex(address)
        self.waiting.append(begun)

    def take(self, _address: Address) -> int:
        """Give the oldest out, or -1."""
        return self.waiting.pop(0).detach() if self.waiting else -1


def serve(rig: Rig, *route: Address, timeout_secs: float = 5.0) -> Begun:
    """Serve with a gate that gives out begun connections as long as there are any."""
    begun = Begun(rig)
    gate = ScriptedGate(*route, timeout_secs=timeout_secs)
    gate.begin = begun.take
    rig.serve(gate)
    return begun


def begun_and_accepted(rig: Rig, begun: Begun) -> Peer:
    """Begin a connection and return the backend's end of it."""
    begun.begin(rig.backend.address)
    return rig.accept()


def test_a_client_goes_on_with_the_connection_that_was_there(rig: Rig) -> None:
    begun = serve(rig, rig.backend.address)
    server = begun_and_accepted(rig, begun)
    client = rig.connect()
    client.send(b"question")
    assert server.receive(8) == b"question"
    server.send(b"answer")
    assert client.receive(6) == b"answer"
    (ticket,) = rig.gate.tickets
    assert ticket.calls == ["dialed"]


def test_what_the_backend_has_said_already_comes_first(rig: Rig) -> None:
    begun = serve(rig, rig.backend.address)
    server = begun_and_accepted(rig, begun)
    server.send(b"welcome, ")
    client = rig.connect()
    assert client.receive(9) == b"welcome, "
    server.send(b"friend")
    assert client.receive(6) == b"friend"


def test_half_close_and_much_data_are_carried_as_always(rig: Rig) -> None:
    begun = serve(rig, rig.backend.address)
    server = begun_and_accepted(rig, begun)
    client, stream = rig.connect(), Stream(1)
    sending = rig.run(client.send_stream, stream, 5_000_000)
    server.receive_stream(stream, 5_000_000)
    sending.result()
    client.end()
    assert server.rest() == Pause(b"", reset=False)
    server.send(b"late")
    server.end()
    assert client.rest() == Pause(b"late", reset=False)
    assert rig.outcome().reason == CloseReason.FINISHED


def test_one_that_is_under_way_still_is_waited_for(rig: Rig) -> None:
    backend = rig.silent_backend()
    begun = serve(rig, backend.address)
    begun.begin(backend.address)
    client = rig.connect()
    client.send(b"patient")
    rig.gate.wait_for(lambda: rig.gate.tickets, "a ticket")
    backend.relent()
    assert rig.accept(backend).receive(7) == b"patient"


def test_one_that_never_comes_about_fails_at_the_timeout(rig: Rig) -> None:
    silent = rig.silent_backend()
    begun = serve(rig, silent.address, rig.backend.address, timeout_secs=0.3)
    begun.begin(silent.address)
    client, server = rig.connect(), rig.accept()
    client.send(b"second")
    assert server.receive(6) == b"second"
    assert rig.gate.tickets[0].failure == DialFailure.TIMEOUT


@pytest.mark.parametrize("how", ["refused", "reset"])
def test_one_that_has_failed_meanwhile_is_a_failed_dial(rig: Rig, how: str) -> None:
    begun = serve(rig, rig.backend.address, rig.backend.address)
    if how == "refused":
        begun.begin(rig.refusing_address())
    else:
        begun_and_accepted(rig, begun).reset()
    begun_and_accepted(rig, begun)
    client = rig.connect()
    client.end()
    assert rig.wait_for_end().failure == how
    rig.gate.wait_for(lambda: len(rig.gate.tickets) == 2, "the next attempt")


def test_one_that_its_backend_ends_is_an_ordinary_session(rig: Rig) -> None:
    begun = serve(rig, rig.backend.address)
    server = begun_and_accepted(rig, begun)
    server.send(b"no time")
    server.end()
    client = rig.connect()
    assert client.receive(7) == b"no time"
    client.end()
    assert client.rest() == Pause(b"", reset=False)
    assert rig.outcome().bytes_out == 7


def test_one_whose_client_leaves_at_once_is_closed(rig: Rig) -> None:
    begun = serve(rig, rig.backend.address)
    servers = [begun_and_accepted(rig, begun) for _ in range(20)]
    for _ in servers:
        rig.connect().reset()
    for server in servers:
        server.rest()
    for number in range(20):
        rig.wait_for_end(number)


def test_its_address_need_not_be_one(rig: Rig) -> None:
    begun = serve(rig, ("elsewhere", 1))
    server = begun_and_accepted(rig, begun)
    rig.connect().send(b"here")
    assert server.receive(4) == b"here"


def test_those_that_wait_for_their_turn_are_closed_when_the_engine_stops(rig: Rig) -> None:
    silent = rig.silent_backend()
    begun = serve(rig, silent.address)
    for _ in range(10):
        begun.begin(silent.address)
        rig.connect()
    rig.gate.wait_for(lambda: len(rig.gate.tickets) == 10, "all of them dialing")
    rig.engine.stop()
