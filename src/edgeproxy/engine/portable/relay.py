"""Carries bytes between the two sockets of a session.

A session has two flows, one each way. Sockets are edge-triggered: a flow is pumped when
its source may have bytes or its sink takes bytes again, and it reads until the source is
empty. Back-pressure is not reading: at most one buffer of bytes waits in a flow.

* Half-close: the end of the source becomes the end of the sink, after the last byte.
* Reset: a reset arrives as a reset, after the bytes that came before it. A client's reset
  ends the session at once: nobody is left to hear the backend.
* Bulk: after `BULK_READS` full reads in a row a flow is spliced through a pipe, until it
  gets chatty. Small messages never pay for that.

A session is `finished` exactly once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from edgeproxy.engine.contract import CloseReason, SocketAddress
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.portable.pipe import PIPE_BYTES, Pipe, PipePool
from edgeproxy.engine.portable.tls_socket import TlsSocket

BUFFER_BYTES = 64 * 1024
READS_PER_TURN = 4
"""Full reads before the other sessions get their turn."""
BULK_READS = 8
CHATTY_READS = 8
CHATTY_BYTES = 8 * 1024

_SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Flow:
    """One direction of a session, from `source` to `sink`.

    Attributes:
        source: Where bytes are read.
        sink: Where they are written.
        reverse: The other flow of the session.
        waiting: Bytes read that the sink has not taken.
        pipe: The borrowed pipe while `piped` bytes are in it.
        blocked: The sink takes nothing until it is writable again.
        urged: The source has more to say than the next short read shows: its end, an
            error, or urgent data.
        done: Nothing will be carried any more.
        drains: The source may have bytes that no event tells of: it is read until it is empty.
        fills: The sink may hold bytes that its socket has not taken (`TlsSocket`).
        parting: The end of the source waits for the sink to take it.
        carried: Bytes handed to the sink.
        streak: Full reads in a row, or small moves in a row when `bulk`.
        owing_since: See `engine/portable/unacked`.
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
        dialed_at: When the attempt that is running began.
        prefix: What the backend is told before anything that the client says.
        server_name: Whom the backend has to be, where TLS is spoken with it.
        state: `dialing`, `open` or `closed`.
        reset_by: The side that has reset its connection while bytes before the reset are
            still being carried.
        settled: Everything sent since the last event has been acknowledged.
        broken_since: When a reset was seen that cannot be carried yet.
    """

    __slots__ = (
        "active_at",
        "address",
        "backend",
        "broken_since",
        "client",
        "deadline",
        "dialed_at",
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
    dialed_at: float

    def __init__(self, client: socket.socket, address: SocketAddress, now: float) -> None:
        self.client = client
        self.backend: socket.socket | None = None
        self.address = address
        self.started_at = now
        self.active_at = now
        self.state = "dialing"
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
        """Undo the cycles of an ended session, so that it is freed without a collector."""
        for flow in (self.upward, self.downward):
            del flow.session, flow.reverse

    def side(self, end: socket.socket) -> CloseReason:
        """Return the reason for a session that the peer at this socket has reset."""
        return CloseReason.CLIENT_RESET if end is self.client else CloseReason.BACKEND_RESET


class Relay:
    """Pumps flows on one thread. `finish(session, reason, reset)` is called at a session's end.

    Attributes:
        again: Flows that have more to read and are to be pumped in the next turn.
        ceiling: See `engine.descriptors`.
    """

    def __init__(self, finish: Callable[[Session, CloseReason, bool], None]) -> None:
        self.again: deque[Flow] = deque()
        self.ceiling = ceiling()
        self._finish = finish
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._pipes = PipePool()

    def pump(self, flow: Flow) -> None:
        """Carry what can be carried now."""
        if flow.done or (flow.blocked and not self._unblock(flow)):
            return
        if flow.bulk:
            self._splice(flow)
            return
        buffer = self._buffer
        for _ in range(READS_PER_TURN):
            try:
                size = flow.source.recv_into(buffer)
            except BlockingIOError:
                flow.read_to_eagain = False
                return
            except OSError as error:
                self._source_failed(flow, error)
                return
            if not size:
                self._source_ended(flow)
                return
            if not self._send(flow, buffer[:size]):
                return
            if size < BUFFER_BYTES:
                flow.streak = 0
                if not flow.read_to_eagain and not flow.source_is_tls:
                    return
            elif not flow.sink_is_tls:  # what is to be encrypted has to be read
                flow.streak += 1
                if flow.streak >= BULK_READS:
                    flow.bulk = True
                    flow.streak = 0
                    break
        self.again.append(flow)

    def _send(self, flow: Flow, view: memoryview) -> bool:
        """Hand `view` to the sink; keep what it does not take. Return whether to go on."""
        try:
            sent = flow.sink.send(view)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._sink_failed(flow, error)
            return False
        flow.carried += sent
        if sent == len(view):
            flow.blocked = flow.sink_is_tls and flow.sink.has_unsent  # type: ignore[attr-defined]
            return not flow.blocked
        rest = view[sent:]
        flow.waiting = memoryview(bytes(rest)) if rest.obj is self._buffer.obj else rest
        flow.blocked = True
        return False

    def _unblock(self, flow: Flow) -> bool:
        """Hand over what was waiting. Return whether the sink has taken all of it."""
        flow.blocked = False
        waiting, flow.waiting = flow.waiting, None
        if waiting is not None and not self._send(flow, waiting):
            return False
        if flow.sink_is_tls and not self._flush(flow):
            return False
        if flow.eof_pending:
            flow.eof_pending = False
            self._source_ended(flow)
            return False
        return not flow.piped or self._drain_pipe(flow)

    def _flush(self, flow: Flow) -> bool:
        """Have the sink's socket take what the sink holds. Return whether it has."""
        try:
            flow.blocked = not flow.sink.flush()  # type: ignore[attr-defined]
        except OSError as error:
            self._sink_failed(flow, error)
            return False
        return not flow.blocked

    def _splice(self, flow: Flow) -> None:
        for _ in range(READS_PER_TURN):
            if flow.pipe is None:
                flow.pipe = self._pipes.borrow(self.ceiling)
                if flow.pipe is None:
                    self._leave_bulk(flow)
                    return
            try:
                size = os.splice(
                    flow.source.fileno(), flow.pipe.write_fd, PIPE_BYTES, flags=_SPLICE_FLAGS
                )
            except BlockingIOError:
                if flow.read_to_eagain:  # splice stops before an urgent byte; recv does not
                    self._leave_bulk(flow)
                else:
                    self.return_pipe(flow)
                return
            except OSError as error:
                self._source_failed(flow, error)
                return
            if not size:  # the end, or an urgent byte before it: recv will tell
                self._leave_bulk(flow)
                return
            flow.piped = size
            if not self._drain_pipe(flow):
                return
            flow.streak = flow.streak + 1 if size < CHATTY_BYTES else 0
            if flow.streak >= CHATTY_READS:
                self._leave_bulk(flow)
                return
        self.again.append(flow)

    def _drain_pipe(self, flow: Flow) -> bool:
        """Move the piped bytes to the sink. Return whether the pipe is empty."""
        assert flow.pipe is not None
        while flow.piped:
            try:
                sent = os.splice(
                    flow.pipe.read_fd, flow.sink.fileno(), flow.piped, flags=_SPLICE_FLAGS
                )
            except BlockingIOError:
                flow.blocked = True
                return False
            except OSError as error:
                self._sink_failed(flow, error)
                return False
            flow.piped -= sent
            flow.carried += sent
        return True

    def _leave_bulk(self, flow: Flow) -> None:
        self.return_pipe(flow)
        flow.bulk = False
        flow.streak = 0
        self.again.append(flow)

    def return_pipe(self, flow: Flow) -> None:
        """Give the flow's pipe back to the pool, if it has one."""
        if flow.pipe is not None:
            self._pipes.give_back(flow.pipe, empty=not flow.piped)
            flow.pipe = None

    def _source_ended(self, flow: Flow) -> None:
        session = flow.session
        if (
            flow.sink_is_tls and not session.reset_by
        ):  # a client is not told of an end that is a reset
            try:
                flow.eof_pending = flow.blocked = not flow.sink.say_end()  # type: ignore[attr-defined]
            except OSError:
                pass  # its own flow will find out
            if flow.eof_pending:
                return
        flow.done = True
        self.return_pipe(flow)
        if flow.reverse.done:
            reset_by = session.reset_by
            self._finish(session, reset_by or CloseReason.FINISHED, reset_by is not None)
            return
        try:
            flow.sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the sink is gone; its own flow will find out and say how

    def _source_failed(self, flow: Flow, error: OSError) -> None:
        session = flow.session
        if isinstance(error, TimeoutError):
            reason = CloseReason.TIMED_OUT
        elif error.errno == errno.EPROTO and flow.source_is_tls:
            reason = CloseReason.TLS_ERROR
        else:
            reason = session.reset_by or session.side(flow.source)
        self._finish(session, reason, True)

    def _sink_failed(self, flow: Flow, error: OSError) -> None:
        """Carry what the broken sink had said before it broke, then pass the reset on."""
        flow.done = True
        session = flow.session
        reverse = flow.reverse
        too_late = reverse.done or (reverse.blocked and flow.sink is session.client)
        if too_late or isinstance(error, TimeoutError):
            self._source_failed(reverse, error)
            return
        session.reset_by = session.side(flow.sink)
        self.return_pipe(flow)
        flow.waiting = None
        reverse.read_to_eagain = True
        if not session.broken_since:  # its error has been told: no event will come again
            session.broken_since = session.active_at
        self.again.append(reverse)

    def close(self) -> None:
        """Close the pooled pipes."""
        self._pipes.close()


def reset_on_close(tcp: socket.socket) -> None:
    """Make the coming `close` send a reset instead of an ordinary end."""
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # already gone
