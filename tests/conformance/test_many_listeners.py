"""As many listeners as the system has room for: none is taken and then left unheard."""

from __future__ import annotations

from tests.conformance.peers import Pause
from tests.conformance.rig import Rig

MANY = 1100


def test_every_one_of_very_many_listeners_is_heard(rig: Rig) -> None:
    rig.prepare()
    names = [f"listener-{number}" for number in range(MANY)]
    for name in names:
        rig.listen(name)
    rig.start()
    for name in (names[0], names[1023], names[1024], names[-1]):
        client = rig.connect(name)
        client.send(b"hello")
        assert rig.accept().receive(5) == b"hello"
    assert {ticket.listener for ticket in rig.gate.tickets} == {
        names[0],
        names[1023],
        names[1024],
        names[-1],
    }


def test_the_place_of_a_listener_that_was_closed_is_used_again(rig: Rig) -> None:
    rig.serve()
    for number in range(3 * 16):
        rig.listen(f"listener-{number}")
        client = rig.connect(f"listener-{number}")
        server = rig.accept()
        rig.engine.unlisten(f"listener-{number}")
        client.send(b"x")
        assert server.receive(1) == b"x"
        server.close()
        assert client.rest() == Pause(b"", reset=False)
