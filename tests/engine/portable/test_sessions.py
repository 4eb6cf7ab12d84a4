"""What only the portable engine can meet; all else is in `tests/conformance`."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

from edgeproxy.engine.contract import CloseReason
from edgeproxy.engine.portable.engine import PortableEngine
from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import Pause
from tests.conformance.rig import Rig
from tests.engine.portable.full_epoll import FullEpoll


def test_a_begun_dial_is_closed_with_a_client_that_cannot_be_watched() -> None:
    with closing(Rig("portable", PortableEngine)) as rig:
        begun = socket.create_connection(rig.backend.address)
        server = rig.accept()
        gate = ScriptedGate(rig.backend.address)
        gate.begin = lambda _address: begun.detach()
        rig.prepare(gate)
        sessions: Any = rig.engine._sessions  # type: ignore[attr-defined]
        sessions._epoll = FullEpoll(sessions._epoll)
        rig.listen()
        rig.start()
        rig.connect()
        assert rig.outcome().reason == CloseReason.CLIENT_GONE
        assert server.rest() == Pause(b"", reset=False)
