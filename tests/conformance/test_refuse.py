"""A refused client sees an ordinary end, without a byte and without a reset."""

from __future__ import annotations

from edgeproxy.engine.portable.unacked import is_gone, undelivered_bytes
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause, Peer, Stream
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


def _wait_until_arrived(client: Peer) -> None:
    wait_until(lambda: not undelivered_bytes(client.sock), "what it sent waits to be read")


def test_a_refused_client_is_not_read_to_its_end(rig: Rig) -> None:
    """Whoever goes on sending would keep all others waiting."""
    rig.prepare(ScriptedGate())
    rig.listen(buffer=1 << 20)
    client = rig.connect()
    client.send_until_blocked(Stream(1), limit=100_000)
    _wait_until_arrived(client)
    rig.start()
    wait_until(lambda: is_gone(client.sock), "it is reset for what was not read")


def test_refused_clients_of_one_turn_are_not_all_read(rig: Rig) -> None:
    """Each of them alone would see an ordinary end."""
    rig.prepare(ScriptedGate())
    rig.listen(buffer=1 << 20)
    clients = [rig.connect() for _ in range(40)]
    for client in clients:
        client.send_until_blocked(Stream(1), limit=50_000)
        _wait_until_arrived(client)
    rig.start()
    rig.connect().rest()
    wait_until(lambda: rig.engine.live() == 0, "all are refused")
    wait_until(lambda: any(is_gone(each.sock) for each in clients), "some are reset")
    assert sum(not is_gone(each.sock) for each in clients) >= 16


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
