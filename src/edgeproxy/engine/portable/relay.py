"""Carries bytes between the two sockets of a session.

A session has two flows, one each way. Sockets are edge-triggered: a flow is pumped when
its source may have bytes or its sink takes bytes again, and it reads until the source is
empty. Back-pressure is not reading: at most one buffer of bytes waits in a flow.

* Half-close: the end of the source becomes the end of the sink, after the last byte.
* Reset: a reset arrives as a reset, after the bytes that came before it. A client's reset
  ends the session at once: no client is left to read what the backend sends.
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

from edgeproxy.engine.contract import CloseReason
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.portable.pipe import PIPE_BYTES, PipePool
from edgeproxy.engine.portable.session import Flow, Session
from edgeproxy.engine.session_states import Side

BUFFER_BYTES = 64 * 1024
READS_PER_TURN = 4
"""Full reads before the other sessions get their turn."""
BULK_READS = 8
CHATTY_READS = 8
CHATTY_BYTES = 8 * 1024

_SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Relay:
    """Pumps flows on one thread. `finish` is called at a session's end (`Sessions.finish`).

    Attributes:
        again: Flows that have more to read and are to be pumped in the next turn.
        ceiling: See `engine.descriptors`.
    """

    def __init__(self, finish: Callable[[Session, CloseReason, bool, Side | None], None]) -> None:
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
            elif not flow.sink_is_tls:  # bytes to encrypt have to be read
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
        if not flow.carried and sent and flow is flow.session.downward:
            flow.session.began_at = flow.session.active_at
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
        ):  # after a reset, close_notify would say that the data is complete
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
            reason = reset_by or CloseReason.FINISHED
            self._finish(session, reason, reset_by is not None, session.side(flow.sink))
            return
        try:
            flow.sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the sink is gone; its own flow will find out and say how

    def _source_failed(self, flow: Flow, error: OSError) -> None:
        session = flow.session
        if isinstance(error, InterruptedError):  # of TLS: nothing for the session yet
            self.again.append(flow)
            return
        if isinstance(error, TimeoutError):
            reason = CloseReason.TIMED_OUT
        elif error.errno == errno.EPROTO and flow.source_is_tls:
            reason = CloseReason.TLS_ERROR
        else:
            reason = session.reset_by or session.reset(flow.source)
        self._finish(session, reason, True, session.side(flow.source))
        if reason is CloseReason.TLS_ERROR:
            flow.source.part()  # type: ignore[attr-defined]

    def _sink_failed(self, flow: Flow, error: OSError) -> None:
        """Carry what the broken sink had sent before it broke, then pass the reset on."""
        flow.done = True
        session = flow.session
        reverse = flow.reverse
        too_late = reverse.done or (reverse.blocked and flow.sink is session.client)
        if too_late or isinstance(error, TimeoutError):
            self._source_failed(reverse, error)
            return
        session.reset_by = session.reset(flow.sink)
        self.return_pipe(flow)
        flow.waiting = None
        reverse.read_to_eagain = True
        if not session.broken_since:  # `send` has raised the error: no event reports it again
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
