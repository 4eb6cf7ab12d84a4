"""Sessions whose two sides do random things, checked against what TCP itself would allow.

Every choice is drawn from one seeded generator and none depends on timing, so a seed always
acts the same; only how far the bytes have come when an action happens may differ.

What each side must have received:

* at any time a prefix of what the other has sent, byte for byte;
* everything, and an ordinary end, if both sides ended in order;
* everything, whenever it sees an ordinary end: a reset must not look like one;
* a reset, if the other side reset its connection without having ended before.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeproxy.engine.contract import CloseReason
from edgeproxy.engine.session_states import Outcome
from tests.conformance.gates import Ticket
from tests.conformance.peers import CHUNK, Backend, Peer, Stream
from tests.conformance.rig import SMALL_BUFFER, Rig
from tests.waiting import PAUSE

SETTLE_SECS = 20.0
MOVES_PER_PUMP = 8

SIZES = ((1, 1), (1, 10), (100, 2000), (CHUNK - 1, CHUNK + 1), (CHUNK, 1 << 20))

ACTIONS = {"send": 40, "stall": 8, "resume": 12, "pause": 10, "end": 4, "reset": 1, "leave": 1}

_ENDS = (
    CloseReason.FINISHED,
    CloseReason.CLIENT_RESET,
    CloseReason.BACKEND_RESET,
    CloseReason.CLIENT_GONE,
)


def seeds(count: int) -> list[int]:
    """Return the seeds to try: so many, or what EDGEPROXY_STORM_SEED or _SEEDS asks for."""
    if one := os.environ.get("EDGEPROXY_STORM_SEED"):
        return [int(one)]
    return list(range(1, int(os.environ.get("EDGEPROXY_STORM_SEEDS", count)) + 1))


@dataclass
class Side:
    """One end of a session: what it has done and seen.

    Attributes:
        unsent: Bytes it wants to send and the kernel has not taken.
        ending: It ends as soon as nothing is unsent.
        ended: It has sent its FIN.
        gone: How it left: `reset`, `left` (closed, whatever was unread) or not yet.
        saw: The end it saw: `end`, `reset`, or none yet.
        broken: Its sending has failed.
    """

    name: str
    says: Stream
    hears: Stream
    peer: Peer | None = None
    unsent: int = 0
    stalled: bool = False
    ending: bool = False
    ended: bool = False
    gone: str = ""
    saw: str = ""
    history: list[str] = field(default_factory=list)
    broken: bool = False

    def act(self, action: str, size: int) -> None:
        """Do one thing; what makes no sense any more is left out."""
        self.history.append(f"{action} {size}" if action == "send" else action)
        if self.gone:
            return
        if action == "send" and not self.ending:
            self.unsent += size
        elif action in ("stall", "resume"):
            self.stalled = action == "stall"
        elif action == "end":
            self.ending = True
        elif action in ("reset", "leave") and self.peer is not None:
            self.gone = action
            (self.peer.reset if action == "reset" else self.peer.close)()

    def pump(self) -> bool:
        """Send and receive what is possible now; return whether anything moved."""
        if self.peer is None or self.gone:
            return False
        sent = self._send()
        received = not self.stalled and not self.saw and self._receive()
        return sent or received

    def _send(self) -> bool:
        peer, moved = self._peer(), False
        try:
            for _ in range(MOVES_PER_PUMP):
                if not self.unsent:
                    break
                taken = peer.sock.send(self.says.slice(peer.sent, min(CHUNK, self.unsent)))
                peer.sent += taken
                self.unsent -= taken
                moved = True
            if self.ending and not self.unsent and not self.ended:
                peer.sock.shutdown(socket.SHUT_WR)
                self.ended = moved = True
        except BlockingIOError:
            pass
        except OSError:
            self.broken, self.unsent, self.ended = True, 0, True
        return moved

    def _receive(self) -> bool:
        peer = self._peer()
        for move in range(MOVES_PER_PUMP):
            try:
                part = peer.sock.recv(CHUNK)
            except BlockingIOError:
                return move > 0
            except OSError:
                self.saw = "reset"
                return True
            if not part:
                # The kernel tells of a reset once, and a write may have been told already.
                self.saw = "reset" if self.broken else "end"
                return True
            assert part == self.hears.slice(peer.received, len(part)), (
                f"{self.name}: wrong bytes at {peer.received}"
            )
            peer.received += len(part)
        return True

    def _peer(self) -> Peer:
        assert self.peer is not None
        return self.peer

    @property
    def sent(self) -> int:
        return self.peer.sent if self.peer is not None else 0

    @property
    def received(self) -> int:
        return self.peer.received if self.peer is not None else 0

    @property
    def over(self) -> bool:
        return bool(self.gone) or (bool(self.saw) and self.ended)


class StormSession:
    """A client, its backend side once there is one, and its ticket."""

    def __init__(self, rig: Rig, slot: str, backend: Backend, number: int) -> None:
        self._backend = backend
        self._tickets_before = len(_tickets_of(rig, slot))
        self._rig, self._slot = rig, slot
        up, down = Stream(2 * number), Stream(2 * number + 1)
        peer = rig.connect(slot, buffer=SMALL_BUFFER if number % 2 else None)
        peer.sock.setblocking(False)
        self.client = Side(f"client {number}", up, down, peer)
        self.server = Side(f"server {number}", down, up)

    @property
    def ticket(self) -> Ticket | None:
        """The ticket of the latest attempt."""
        tickets = _tickets_of(self._rig, self._slot)[self._tickets_before :]
        return tickets[-1] if tickets else None

    def pump(self) -> bool:
        """Move what can be moved on both sides."""
        if self.server.peer is None and self._backend.has_waiting():
            self.server.peer = self._rig.accept(self._backend)
            self.server.peer.sock.setblocking(False)
            return True
        moved = self.client.pump()
        return self.server.pump() or moved

    def wind_down(self) -> None:
        """Let both sides read on and end in order, where they are still there."""
        for side in (self.client, self.server):
            if not side.gone:
                side.stalled, side.ending = False, True

    def has_reached_backend(self) -> bool:
        return self.server.peer is not None

    @property
    def settled(self) -> bool:
        ticket = self.ticket
        if ticket is None or not self.client.over:
            return False
        if self.server.peer is None:
            return ticket.ended_at is not None and not self._backend.has_waiting()
        return self.server.over

    def check(self) -> None:
        """Compare what each side has received with what the other has sent."""
        ticket, server = self.ticket, self.server
        assert ticket is not None
        for side, other in ((self.client, server), (server, self.client)):
            assert side.received <= other.sent, self
            if ticket.dialed_at is not None and side.peer is not None and not side.gone:
                self._check_end(side, other)
        if ticket.dialed_at is None:
            assert self.client.received == 0, self
            assert self.client.gone or server.gone == "reset", self
        if ticket.outcome is not None:
            self._check_outcome(ticket.outcome)

    def _check_end(self, side: Side, other: Side) -> None:
        if side.saw == "end":
            assert side.received == other.sent, f"an ordinary end, too early: {self}"
        if not other.gone:
            assert side.saw == "end", self
        elif other.gone == "reset" and not other.ended:
            assert side.saw == "reset", self

    def _check_outcome(self, outcome: Outcome) -> None:
        client, server = self.client, self.server
        assert outcome.bytes_in <= client.sent, self
        assert outcome.bytes_out <= server.sent, self
        if not client.gone and not server.gone:
            assert outcome[:3] == (CloseReason.FINISHED, client.sent, server.sent), self
        elif not server.gone and client.gone == "reset" and not client.ended:
            assert outcome.reason in (CloseReason.CLIENT_RESET, CloseReason.CLIENT_GONE), self
        elif not client.gone and server.gone == "reset" and not server.ended:
            assert outcome.reason == CloseReason.BACKEND_RESET, self
        else:
            assert outcome.reason in _ENDS, self

    def close(self) -> None:
        """Hang up on both sides."""
        for side in (self.client, self.server):
            if side.peer is not None:
                side.peer.close()

    def __repr__(self) -> str:
        return f"{self.client}\n{self.server}\n{self.ticket}"


def _tickets_of(rig: Rig, slot: str) -> list[Ticket]:
    return [ticket for ticket in rig.gate.tickets if ticket.listener == slot]


class Storm:
    """Runs random sessions on every slot of a rig: listener `slot` leads to `backends[slot]`."""

    def __init__(self, rig: Rig, backends: dict[str, Backend], seed: int) -> None:
        self._rig = rig
        self._backends = backends
        self._random = random.Random(seed)
        self._number = seed * 1000
        self.sessions: dict[str, StormSession] = {}
        self.settled = 0

    def round(self, actions: int) -> None:
        """Open a session on every slot, let both sides act, settle, and check."""
        for slot, backend in self._backends.items():
            self._number += 1
            session = StormSession(self._rig, slot, backend, self._number)
            self.sessions[slot] = session
            if self._random.random() < 0.7:
                self._pump_until(session.has_reached_backend)
        for _ in range(actions):
            session = self._random.choice(list(self.sessions.values()))
            side = self._random.choice((session.client, session.server))
            (action,) = self._random.choices([*ACTIONS], [*ACTIONS.values()])
            size = self._random.randint(*self._random.choice(SIZES))
            side.act(action, size)
            self._pump(self._random.randrange(3))
        for session in self.sessions.values():
            session.wind_down()
        self._pump_until(lambda: all(each.settled for each in self.sessions.values()))
        for session in self.sessions.values():
            session.close()
        self._pump_until(lambda: not self._rig.gate.unended())
        for session in self.sessions.values():
            session.check()
            self.settled += 1

    def _pump(self, times: int) -> bool:
        moved = False
        for _ in range(times):
            for session in self.sessions.values():
                moved = session.pump() or moved
        return moved

    def _pump_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + SETTLE_SECS
        while not condition():
            assert time.monotonic() < end, f"not settled: {list(self.sessions.values())}"
            if not self._pump(1):
                PAUSE.wait(0.001)
