"""A session of the portable engine: one client, its backend, and a flow of bytes each way.

`relay` carries the bytes of flows, `dialer` connects sessions, and `sessions` begins and ends them.
The states of a session are in `engine/session_states`.
"""

from __future__ import annotations

import socket

from edgeproxy.engine.contract import CloseReason, SocketAddress
from edgeproxy.engine.portable.pipe import Pipe
from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.session_states import SessionState, Side

ENDED_BY = {
    CloseReason.CLIENT_RESET: Side.CLIENT,
    CloseReason.CLIENT_GONE: Side.CLIENT,
    CloseReason.BACKEND_RESET: Side.BACKEND,
}
"""Which peer ended a session, where the reason says so."""
DIALING, OPEN, CLOSED = SessionState.DIALING, SessionState.OPEN, SessionState.CLOSED


class Flow:
    """One direction of a session, from `source` to `sink`.

    Attributes:
        source: Where bytes are read.
        sink: Where they are written.
        reverse: The other flow of the session.
        waiting: Bytes read that the sink has not taken.
        pipe: The borrowed pipe while `piped` bytes are in it.
        blocked: The sink takes nothing until it is writable again.
        read_to_eagain: The source has more than the next short read shows: its end, an error,
            or urgent data.
        done: Nothing will be carried any more.
        source_is_tls: The source may have bytes that no event tells of: it is read until it
            is empty.
        sink_is_tls: The sink may hold bytes that its socket has not taken (`TlsSocket`).
        eof_pending: The end of the source waits for the sink to take it.
        carried: Bytes handed to the sink.
        streak: Full reads in a row, or small moves in a row when `bulk`.
        unacked_since: See `engine/portable/unacked`.
    """

    __slots__ = (
        "blocked",
        "bulk",
        "carried",
        "done",
        "eof_pending",
        "pipe",
        "piped",
        "read_to_eagain",
        "reverse",
        "session",
        "sink",
        "sink_is_tls",
        "source",
        "source_is_tls",
        "streak",
        "unacked_since",
        "waiting",
    )

    session: Session
    source: socket.socket
    sink: socket.socket
    reverse: Flow

    def __init__(self, session: Session) -> None:
        self.session = session
        self.waiting: memoryview | None = None
        self.pipe: Pipe | None = None
        self.piped = 0
        self.blocked = False
        self.read_to_eagain = False
        self.done = False
        self.source_is_tls = False
        self.sink_is_tls = False
        self.eof_pending = False
        self.bulk = False
        self.carried = 0
        self.streak = 0
        self.unacked_since = 0.0

    def has_bytes(self) -> bool:
        """Return whether bytes that were read have not reached the sink's socket."""
        if isinstance(self.sink, TlsSocket) and self.sink.has_unsent:
            return True
        return self.waiting is not None or self.piped > 0


class Session:
    """One client and, once dialed, its backend.

    Attributes:
        client: The client's socket.
        backend: The socket that is connecting or connected, or None between attempts.
        upward: The flow from the client to the backend.
        downward: The flow from the backend to the client.
        ticket: The gate's object for the attempt that is running.
        address: The client's address.
        started_at: When it was accepted.
        active_at: When something last happened to one of its sockets.
        deadline: When the attempt that is running fails.
        began_at: When the dial of the attempt that is running began, or 0 if that was before it;
            then when the answer of its backend did, its first byte, or 0.
        prefix: Bytes for the backend before the first byte of the client.
        server_name: The name that the backend's certificate must match; "" without TLS.
        state: `DIALING`, `OPEN` or `CLOSED`; an open session is half closed if a flow is done.
        reset_by: The side that has reset its connection while bytes before the reset are
            still being carried.
        settled: Everything sent since the last event has been acknowledged.
        broken_since: When a reset was seen that cannot be carried yet.
    """

    __slots__ = (
        "active_at",
        "address",
        "backend",
        "began_at",
        "broken_since",
        "client",
        "deadline",
        "downward",
        "prefix",
        "reset_by",
        "server_name",
        "settled",
        "started_at",
        "state",
        "ticket",
        "upward",
    )

    ticket: object
    deadline: float
    began_at: float

    def __init__(self, client: socket.socket, address: SocketAddress, now: float) -> None:
        self.client = client
        self.backend: socket.socket | None = None
        self.address = address
        self.started_at = now
        self.active_at = now
        self.state: SessionState = DIALING
        self.settled = False
        self.prefix = b""
        self.server_name = ""
        self.reset_by: CloseReason | None = None
        self.broken_since = 0.0
        self.upward = Flow(self)
        self.downward = Flow(self)
        self.upward.reverse = self.downward
        self.downward.reverse = self.upward
        self.upward.source = self.downward.sink = client
        self.upward.source_is_tls = self.downward.sink_is_tls = isinstance(client, TlsSocket)

    def attach(self, backend: socket.socket) -> None:
        """Give the session the socket of its next attempt."""
        self.backend = self.upward.sink = self.downward.source = backend
        self.upward.sink_is_tls = self.downward.source_is_tls = isinstance(backend, TlsSocket)

    def let_go(self) -> None:
        """Break the reference cycles of an ended session, so that it is freed at once."""
        for flow in (self.upward, self.downward):
            del flow.session, flow.reverse

    def side(self, end: socket.socket) -> Side:
        """Return the side of the peer at this socket."""
        return Side.CLIENT if end is self.client else Side.BACKEND

    def reset(self, end: socket.socket) -> CloseReason:
        """Return the reason for a session that the peer at this socket has reset."""
        return CloseReason.CLIENT_RESET if end is self.client else CloseReason.BACKEND_RESET
