"""A refused client sees an ordinary end, without a byte and without a reset."""

from __future__ import annotations

from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Stream
from tests.conformance.rig import Rig
from tests.waiting import wait_until


def test_a_refused_client_sees_an_end(rig: Rig) -> None:
    rig.serve(ScriptedGate())
    assert rig.connect().rest() == Pause(b"", reset=False)
    assert rig.engine.live() == 0
    assert rig.gate.tickets == []


def test_a_refused_client_that_has_spoken_sees_an_end(rig: Rig) -> None:
    """Closing a socket with unread data would send a RST."""
    rig.prepare(ScriptedGate())
    rig.listen()
    clients = [rig.connect() for _ in range(20)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    rig.start()
    for client in clients:
        assert client.rest() == Pause(b"", reset=False)


def test_a_refused_client_that_has_said_much_sees_an_end(rig: Rig) -> None:
    rig.prepare(ScriptedGate())
    rig.listen()
    client = rig.connect()
    client.send_until_blocked(Stream(1), limit=1 << 20)
    rig.start()
    assert client.rest() == Pause(b"", reset=False)


def test_a_refused_client_that_never_closes_holds_nothing(rig: Rig) -> None:
    rig.serve(ScriptedGate())
    clients = [rig.connect() for _ in range(50)]
    for client in clients:
        assert client.rest() == Pause(b"", reset=False)
    assert rig.engine.live() == 0
    assert rig.engine.sessions() == []


def test_refusals_go_on_while_others_are_served(rig: Rig) -> None:
    rig.prepare(ScriptedGate(rig.backend.address))
    rig.gate.routes["closed"] = []
    rig.listen("main")
    rig.listen("closed")
    rig.start()
    client, server = rig.connect(), rig.accept()
    for _ in range(20):
        assert rig.connect("closed").rest() == Pause(b"", reset=False)
        client.send(b"?")
        assert server.receive(1) == b"?"
    wait_until(lambda: rig.engine.live() == 1, "only the served one lives")
