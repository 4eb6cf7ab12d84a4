"""Starting other processes, which copies every descriptor for a moment, disturbs no session."""

from __future__ import annotations

import random
import subprocess
import threading
from queue import SimpleQueue

import pytest

from edgeproxy.engine.contract import CloseReason
from tests.conformance.gates import Address
from tests.conformance.peers import Pause, Peer, Stream
from tests.conformance.rig import Rig

VISITORS = 4
CHILDREN = 150
MOST_BYTES = 50_000
"""So much fits the buffers on the way, so that one thread can be both ends."""


class PreambleParser:
    """Accepts at the backend and hands each side to the visitor who says its number."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.arrived: list[SimpleQueue[Peer]] = [SimpleQueue() for _ in range(VISITORS)]

    def serve(self, over: threading.Event) -> None:
        while not over.is_set():
            if self._rig.backend.has_waiting(0.05):
                server = self._rig.backend.accept()
                self.arrived[server.receive(1)[0]].put(server)


class Accepted:
    """Comes and goes, and checks every byte and every end on both sides."""

    def __init__(self, rig: Rig, number: int, arrived: SimpleQueue[Peer]) -> None:
        self._rig = rig
        self._number = number
        self._arrived = arrived
        self._random = random.Random(number)
        self._streams = [Stream(VISITORS * each + number) for each in range(6)]
        self.ends: list[tuple[Address, tuple[str, int, int]]] = []
        """Of each visit, the client's address and the outcome that the gate is to hear."""

    def visit_until(self, over: threading.Event) -> None:
        while not over.is_set():
            self._visit()

    def _visit(self) -> None:
        up, down = self._random.sample(self._streams, 2)
        said, heard = (self._random.randint(1, MOST_BYTES) for _ in range(2))
        client = self._rig.connect()
        address = client.sock.getsockname()
        client.send(bytes([self._number]))
        server = self._arrived.get(timeout=20)
        client.send_stream(up, said)
        server.receive_stream(up, said)
        server.send_stream(down, heard)
        client.receive_stream(down, heard)
        reason = CloseReason.FINISHED
        if self._random.random() < 0.5:
            client.end()
            assert server.rest() == Pause(b"", reset=False)
            server.end()
            assert client.rest() == Pause(b"", reset=False)
        elif self._random.random() < 0.5:
            reason = CloseReason.CLIENT_RESET
            client.reset()
            assert server.rest() == Pause(b"", reset=True)
        else:
            reason = CloseReason.BACKEND_RESET
            server.reset()
            assert client.rest() == Pause(b"", reset=True)
        client.close()
        server.close()
        self.ends.append((address, (reason, said + 1, heard)))


@pytest.mark.parametrize("is_shared", [True, False], ids=["vfork", "fork"])
def test_sessions_come_and_go_while_processes_are_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    monkeypatch.setattr(subprocess, "_USE_VFORK", is_shared)
    rig.serve()
    preamble_parser, over, closed = PreambleParser(rig), threading.Event(), threading.Event()
    visitors = [
        Accepted(rig, number, preamble_parser.arrived[number]) for number in range(VISITORS)
    ]
    door = rig.run(preamble_parser.serve, closed)
    visits = [rig.run(accepted.visit_until, over) for accepted in visitors]
    try:
        for _ in range(CHILDREN):
            subprocess.run(["/bin/true"], check=True)
    finally:
        over.set()
        for each in visits:
            each.result()
        closed.set()
        door.result()
    rig.gate.wait_for(lambda: not rig.gate.unended(), "all tickets ended")
    told = [(each.client, each.outcome and each.outcome[:3]) for each in rig.gate.tickets]
    assert sorted(told) == sorted(end for accepted in visitors for end in accepted.ends)
    assert len(told) > CHILDREN / 10
