"""One session with another node: proof first, then frames both ways, in order.

    opening ── handshake ──► proving ── both proofs ──► proved ── JOIN ──► joined
       └─────────────────────────┴──────────────────────────┴────────────────┴──► over

Two nodes may dial each other at once, but use one session. The *chooser*, which is the node with
the smaller id, chooses it by a JOIN on it; so both ends always agree, and there is no moment in
which one has dropped the session that the other keeps. `sessions.transport` makes the choice.

What is allowed in a state is a table; anything else ends the session. A frame waits in a queue with
a limit (`core.cluster.sessions.flow`) on both ends.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from typing import NamedTuple, Protocol

from edgeproxy.cluster.sessions.auth import LIMIT_SECS, Exchange, Identity, Outcome, Peer, Refusal
from edgeproxy.cluster.sessions.quic.link import Link, Uses
from edgeproxy.core.cluster.sessions.flow import Inflow, Outflow
from edgeproxy.errors import WireError
from edgeproxy.log import EventLog
from edgeproxy.wire import session as wire
from edgeproxy.wire.session import Kind

WINDOW_BYTES = 2 << 20
"""What may be under way in each direction. Larger than a frame."""

QUEUE_BYTES = 16 << 20
"""What may wait for a peer, with what is under way: an answer of several 100,000 rows."""

DIAL_SECS = 5.0
"""How long a dial may take, from the first packet to the proof."""

JOIN_SECS = 5.0
DIALLED_PING_SECS = 3.0
ANSWERED_PING_SECS = 15.0
"""Only for the round-trip time: the pings of the end that has dialled keep the session."""

FRAMES_AT_ONCE = 4  # each may hold a thousand rows
BYTES_AT_ONCE = 256 << 10
"""What is dealt with in one turn of the loop, unless a frame is larger."""

_REFUSED = "refused"
_GONE = {
    "": "the other node has closed the session",
    "Idle timeout": "nothing has been heard of it for too long",
    _REFUSED: "the other node refuses this one: its log says why",
}
"""What the end of a connection means. Other texts of a peer are not repeated."""

_LOG = EventLog("cluster")


class State(Enum):
    """How far a session is."""

    OPENING = "opening"
    PROVING = "proving"
    PROVED = "proved"
    JOINED = "joined"
    OVER = "over"


_ALLOWED: dict[State, frozenset[Kind]] = {
    State.OPENING: frozenset(),
    State.PROVING: frozenset({Kind.HELLO, Kind.AUTH}),
    State.PROVED: frozenset({Kind.JOIN}),
    State.JOINED: frozenset({Kind.DATA, Kind.CREDIT}),
    State.OVER: frozenset(),
}


class End(NamedTuple):
    """Why a session is over: in words, and whether a node was refused."""

    why: str
    refusal: Refusal | None = None


class Host(Protocol):
    """What a session tells."""

    def proved(self, session: Session) -> None:
        """The peer has proved itself. The chooser now decides."""

    def joined(self, session: Session) -> None:
        """The peer has chosen this session."""

    def arrived(self, session: Session, frame: bytes) -> None:
        """A frame has come."""

    def over(self, session: Session, end: End) -> None:
        """The session is over, once, in whatever state it was."""


class Session:
    """One session.

    Attributes:
        dialled: Whether this end has dialled.
        peer: Who the other end is, once it has proved that.
        joined_at: In the time of the loop.
    """

    def __init__(
        self, me: Identity, link: Link, host: Host, *, dialled: bool, expected: str | None = None
    ) -> None:
        self.dialled = dialled
        self.peer: Peer | None = None
        self.joined_at = 0.0
        self.link = link
        self.state = State.OPENING
        self.outflow = Outflow(QUEUE_BYTES, WINDOW_BYTES)
        self._me = me
        self._host = host
        self._expected = expected
        self._exchange: Exchange | None = None
        self._received = bytearray()
        self._inflow = Inflow(WINDOW_BYTES)
        self._is_held = False
        self._loop = asyncio.get_running_loop()
        self._dealing: asyncio.Handle | None = None
        self._timer = self._loop.call_later(DIAL_SECS if dialled else LIMIT_SECS, self._too_late)
        link.uses = Uses(self._ready, self._take, self._gone, self._fault)

    @property
    def is_chooser(self) -> bool:
        """Whether this end chooses. Both ends know who the other is by then."""
        assert self.peer is not None
        return self._me.node_id < self.peer.node_id

    def send(self, body: bytes) -> bool:
        """Queue a frame; False if there is no room for it. Raises WireError if it is too long."""
        is_queued = self.outflow.offer(wire.frame(Kind.DATA, body))
        self._pump()
        return is_queued

    def join(self) -> None:
        """Use this session, and tell the other end. Only the chooser does."""
        assert self.is_chooser
        self.link.write(wire.frame(Kind.JOIN))
        self._begin()

    def hold(self, is_held: bool) -> None:
        """Hand no frames on, or go on: they wait here, and then at the other end."""
        self._is_held = is_held
        self._deal_soon()

    def close(self, why: str, refusal: Refusal | None = None) -> None:
        """End the session. The other end learns nothing of a refusal but that there was one."""
        if self.state is not State.OVER:
            self.link.close(_REFUSED if refusal else "")
            self._finish(End(why, refusal))

    def _begin(self) -> None:
        self.state = State.JOINED
        self.joined_at = self._loop.time()
        self._timer.cancel()
        self._keep()

    def _keep(self) -> None:
        self.link.ping()
        secs = DIALLED_PING_SECS if self.dialled else ANSWERED_PING_SECS
        self._timer = self._loop.call_later(secs, self._keep)

    def _ready(self) -> None:
        self.state = State.PROVING
        self._exchange = Exchange(
            self._me,
            self.link.channel,
            os.urandom(wire.NONCE_BYTES),
            dialled=self.dialled,
            expected=self._expected,
        )
        if self.dialled:
            self.link.write(self._exchange.opening())

    def _take(self, data: bytes) -> None:
        self._received += data
        try:
            while self.state is not State.OVER and (start := wire.frame_start(self._received)):
                if start.kind not in _ALLOWED[self.state]:
                    raise WireError("the frame must not come now")
                if len(self._received) < start.size:
                    break
                frame = bytes(memoryview(self._received)[: start.size])
                del self._received[: start.size]
                self._handle(start.kind, frame)
        except WireError as error:
            self._fault(str(error))

    def _handle(self, kind: Kind, frame: bytes) -> None:
        match kind:
            case Kind.DATA:
                if not self._inflow.add(frame):
                    raise WireError("the peer sends more than it was allowed to")
                self._deal_soon()
            case Kind.CREDIT:
                if not self.outflow.credit(wire.decode_credit(wire.body(frame))):
                    raise WireError("the peer has dealt with bytes that were never sent")
                self._pump()
            case Kind.JOIN:
                if self.is_chooser:
                    raise WireError("the peer chooses, but must not")
                self._begin()
                self._host.joined(self)
            case Kind.HELLO | Kind.AUTH:
                self._judge(kind, wire.body(frame))

    def _judge(self, kind: Kind, body: bytes) -> None:
        assert self._exchange is not None
        answer = self._exchange.receive(kind, body)
        if isinstance(answer, Refusal):
            self.close("refused", answer)
        elif isinstance(answer, Outcome):
            self.peer = answer.peer
            self.state = State.PROVED
            self._exchange = None
            self._timer.cancel()
            self._timer = self._loop.call_later(JOIN_SECS, self._too_late)
            self.link.trust()
            self.link.write(answer.reply)
            self._host.proved(self)

    def _pump(self) -> None:
        while self.state is State.JOINED and (frame := self.outflow.take()) is not None:
            self.link.write(frame)

    def _deal_soon(self) -> None:
        if self._dealing is None:
            self._dealing = self._loop.call_soon(self._deal)

    def _deal(self) -> None:
        """Hand some frames on, the others in the next turn of the loop."""
        self._dealing = None
        frames = size = 0
        while self._may_deal() and frames < FRAMES_AT_ONCE and size < BYTES_AT_ONCE:
            frame = self._inflow.take()
            frames, size = frames + 1, size + len(frame)
            try:
                self._host.arrived(self, wire.body(frame))
            except Exception:  # noqa: BLE001
                _LOG.bug("replication_frame_failed")
                self.close("a frame could not be dealt with")
            if self.state is State.OVER:
                return
        credit = self._inflow.due_credit()
        if credit is not None:
            self.link.write(wire.credit(credit))
        if self._may_deal():
            self._deal_soon()

    def _may_deal(self) -> bool:
        return bool(self._inflow) and not self._is_held

    def _too_late(self) -> None:
        if self.dialled and self.state is State.OPENING:
            self.close("there is no answer")
        elif self.peer is None:
            self.close("it does not prove itself", Refusal.LATE)
        else:
            self.close("the other end has not chosen this session")

    def _fault(self, why: str) -> None:
        self.close(why, Refusal.MALFORMED if self.peer is None else None)

    def _gone(self, reason: str) -> None:
        self._finish(End(_GONE.get(reason, "the connection has ended")))

    def _finish(self, end: End) -> None:
        self.state = State.OVER
        self._timer.cancel()
        if self._dealing is not None:
            self._dealing.cancel()
        self._host.over(self, end)
