"""The sessions of the portable engine, from the gate's first answer to its last `closed`.

The twin of `native/gate_thread/sessions.pyx`. It follows the table of `engine/session_states`: it
admits clients, lets bytes flow once a backend has answered, ends sessions, and tells the gate.

A session that ends only leaves its flows at once. Its sockets are closed after the turn, so that
the number of a descriptor cannot be used again while events for it are in hand. The gate is told
after that, so that a slot is free only when the backend's connection is gone.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any

from edgeproxy.engine.contract import (
    CloseReason,
    Connect,
    EngineSettings,
    FirstAnswer,
    SessionEnds,
    SessionInfo,
    Wait,
)
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.listener import plain
from edgeproxy.engine.portable.dialer import Dialer, say_prefix
from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.portable.ingress.slot_queue import SlotQueue
from edgeproxy.engine.portable.lingering import Lingering
from edgeproxy.engine.portable.relay import BUFFER_BYTES, Relay, reset_on_close
from edgeproxy.engine.portable.session import CLOSED, DIALING, ENDED_BY, OPEN, Flow, Session
from edgeproxy.engine.portable.tls_socket import TlsSocket
from edgeproxy.engine.session_states import Outcome, SessionState, Side
from edgeproxy.log import EventLog

log = EventLog("engine")

DRAINED_BYTES = BUFFER_BYTES
"""Bytes that are read of a refused client before it is closed. With more, it sees a reset: reading
on while it goes on sending would hold up everybody else."""
DRAINED_BYTES_PER_TURN = 16 * DRAINED_BYTES

_WRITABLE = select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_ENDING = _BROKEN | select.EPOLLRDHUP
_MORE_THAN_BYTES = _ENDING | select.EPOLLPRI
_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET


class Sessions:
    """All sessions of an engine. Used on the gate thread only, except for what lists them.

    `pause` stops accepting where the system has no room, `hurry` has timers checked soon.

    Attributes:
        now: Monotonic seconds of this turn of the loop; the loop sets it.
        flows: The flow whose source has this descriptor.
        ended: Sockets to close after this turn.
        over: Sessions that ended in this turn, why and by whom; the gate is not told yet.
        dialer, relay, lingering: What connects sessions, carries their bytes, and keeps
            clients until the last byte is delivered.
        slot_queue: Clients that wait for a session to end.
    """

    def __init__(
        self,
        settings: EngineSettings,
        gate: GuardedGate,
        epoll: select.epoll,
        pause: Callable[[str], object],
        hurry: Callable[[], object],
    ) -> None:
        """Raises TlsError."""
        self.now = time.monotonic()
        self.flows: dict[int, Flow] = {}
        self.ended: list[socket.socket] = []
        self.over: list[tuple[Session, CloseReason, Side | None]] = []
        self._drained_at, self._drained = self.now, 0
        self._gate = gate
        self._epoll = epoll
        self._pause = pause
        self._hurry = hurry
        self._sessions: set[Session] = set()
        self.dialer = Dialer(
            gate, settings.backend_ca_pem, self._register, self._unregister, self._refuse, pause
        )
        self.relay = Relay(self.finish)
        self.lingering = Lingering()
        self.slot_queue = SlotQueue()

    def __len__(self) -> int:
        return len(self._sessions)

    # -- called from any thread -------------------------------------------------------

    def infos(self) -> list[SessionInfo]:
        """Return what `Engine.sessions` returns."""
        now = time.monotonic()
        return [
            SessionInfo(
                session.ticket,
                session.address,
                _shown_state(session).value,
                session.upward.carried,
                session.downward.carried,
                now - session.started_at,
            )
            for session in self.all()
            if session.state is not CLOSED
        ]

    def carried(self) -> list[tuple[Any, int, int]]:
        """Return what `Engine.carried` returns."""
        return [
            (session.ticket, session.upward.carried, session.downward.carried)
            for session in self.all()
        ]

    def unanswered(self) -> list[tuple[Any, int, bool, float]]:
        """Return what `Engine.unanswered` returns."""
        now = time.monotonic()
        return [
            (
                session.ticket,
                session.address[1],
                session.upward.done or session.downward.done,
                now - session.started_at,
            )
            for session in self.all()
            if session.state is not CLOSED and not session.downward.carried
        ]

    def excuse(self, secs: float) -> None:
        """Let what is timed here take longer by the seconds in which this process stood still."""
        self.dialer.excuse(secs)
        self.lingering.excuse(secs)
        self.slot_queue.excuse(secs)

    def all(self) -> list[Session]:
        """Return the sessions whose end the gate does not know yet."""
        return list(self._sessions)

    # -- called on the gate thread ----------------------------------------------------

    def ends(self, wanted: Container[Any]) -> list[SessionEnds]:
        """Return what `Engine.ends` returns."""
        return [
            SessionEnds(
                session.ticket,
                (plain(session.address[0]), session.address[1]),
                _local_end(session.client),
                _local_end(session.backend),
            )
            for session in self._sessions
            if session.ticket in wanted
        ]

    # -- the beginning ----------------------------------------------------------------

    def admit(self, accepted: Accepted) -> None:
        """Ask the gate for a backend."""
        answer = self._gate.opened(accepted.client, self.now)
        if isinstance(answer, Wait):
            if self.slot_queue.has_room(answer):
                self.slot_queue.add(accepted, answer, self.now)
                self._gate.is_awaited = True
                self._hurry()
                return
            answer = self._gate.asked_again(answer.place, self.now, is_last=True)
        self._follow(accepted, answer)

    def ask_waiting(self) -> None:
        """Ask the gate again about clients for whom a slot may be free now."""
        for accepted, place, is_last in self.slot_queue.to_ask(self._gate.freed, self.now):
            answer = self._gate.asked_again(place, self.now, is_last=is_last)
            if isinstance(answer, Wait):
                self.slot_queue.put_back(answer)
            else:
                self._follow(accepted, answer)
        self._gate.freed.clear()
        self._gate.is_awaited = bool(self.slot_queue)
        if self.slot_queue:
            self._hurry()

    def _follow(self, accepted: Accepted, answer: FirstAnswer) -> None:
        connection = accepted.connection
        if not isinstance(answer, Connect):
            self.turn_away(connection)
            return
        session = Session(connection, accepted.address, accepted.accepted_at)
        session.ticket = answer.ticket
        self._sessions.add(session)
        try:
            self._register(connection, session.upward)
        except OSError as error:
            if answer.preconnected_fd >= 0:
                os.close(answer.preconnected_fd)
            self._pause(str(error.strerror))
            self.finish(session, CloseReason.CLIENT_GONE)
            return
        self.dialer.dial(session, answer, self.now)
        self._hurry()

    def _register(self, tcp: socket.socket, flow: Flow) -> None:
        self._epoll.register(tcp.fileno(), _INTEREST)
        self.flows[tcp.fileno()] = flow

    def _unregister(self, tcp: socket.socket) -> None:
        self.flows.pop(tcp.fileno(), None)

    def _opened(self, session: Session, mask: int) -> None:
        """The backend has answered: let bytes flow."""
        session.state = OPEN
        session.active_at = self.now
        secs = self.now - session.began_at if session.began_at else 0.0
        session.began_at = 0.0
        if not self._gate.dialed(session.ticket, secs, self.now):
            self.finish(session, CloseReason.FAULT, reset=True)
            return
        try:
            say_prefix(session)
        except OSError:
            self.finish(session, CloseReason.BACKEND_RESET, reset=True)
            return
        self.relay.pump(session.upward)
        if mask & ~_WRITABLE or session.server_name:  # its first bytes may be here already
            self.relay.pump(session.downward)

    # -- events -----------------------------------------------------------------------

    def happened(self, flow: Flow, mask: int) -> None:
        """Something happened to the source of `flow`, which is the sink of its reverse."""
        session = flow.session
        if mask & _MORE_THAN_BYTES:
            flow.read_to_eagain = True
            if mask & _ENDING:
                self.slot_queue.ending_at = self.now
        if session.state is DIALING:
            if flow is session.downward:
                if self.dialer.has_answered(session, mask, self.now):
                    self._opened(session, mask)
            elif mask & _BROKEN:
                self.finish(session, CloseReason.CLIENT_GONE, reset=True)
            return
        session.active_at = self.now
        session.settled = False
        if mask & _WRITABLE and flow.reverse.blocked:
            self.relay.pump(flow.reverse)
        if not flow.blocked and not flow.done:
            if mask & ~_WRITABLE or flow.source_is_tls:  # TLS may have to write in order to read
                self.relay.pump(flow)
        elif mask & select.EPOLLERR:
            self._cannot_be_read(flow)

    def _cannot_be_read(self, flow: Flow) -> None:
        """The peer of a source that is not being read has reset its connection."""
        session = flow.session
        if flow.done or flow is session.upward:
            self.finish(session, session.reset_by or session.reset(flow.source), reset=True)
        elif not session.broken_since:
            session.broken_since = self.now

    # -- the end ----------------------------------------------------------------------

    def _refuse(self, session: Session) -> None:
        """Close a client whose last attempt has failed; its ticket has ended already."""
        session.state = CLOSED
        self._sessions.discard(session)
        self.flows.pop(session.client.fileno(), None)
        self.turn_away(session.client)

    def turn_away(self, client: socket.socket) -> None:
        """Close a client without sending a byte.

        Bytes that it has sent are read, to avoid a reset, but not more than `DRAINED_BYTES` of a
        client and about `DRAINED_BYTES_PER_TURN` in a turn.
        """
        if self._drained_at != self.now:
            self._drained_at, self._drained = self.now, 0
        try:
            client.shutdown(socket.SHUT_WR)
            if self._drained < DRAINED_BYTES_PER_TURN:
                self._drained += len(client.recv(DRAINED_BYTES, socket.MSG_TRUNC))
        except OSError:
            pass
        self.ended.append(client)

    def break_off(self, session: Session, reason: CloseReason) -> None:
        """End a session before its peers have. A side that would miss bytes is reset.

        Over TLS, a side whose own bytes were not carried is reset, too, without `close_notify`:
        an orderly end would tell that side that its bytes have arrived.
        """
        if session.state is OPEN:
            for flow in (session.upward, session.downward):
                if not flow.has_bytes() and not _has_bytes(flow.source):
                    continue
                reset_on_close(flow.sink)
                for end in (flow.sink, flow.source):
                    if isinstance(end, TlsSocket):
                        end.say_no_end()
                        reset_on_close(end)
        self.finish(session, reason)

    def finish(
        self,
        session: Session,
        reason: CloseReason,
        reset: bool = False,
        ended_by: Side | None = None,
    ) -> None:
        """End a session. The gate is told when its sockets are closed, after this turn.

        `ended_by` is that of `Outcome`, where the reason does not tell.
        """
        if session.state is CLOSED:
            return
        session.state = CLOSED
        self.over.append((session, reason, ENDED_BY.get(reason, ended_by)))
        self.dialer.forget(session)
        for flow in (session.upward, session.downward):
            flow.done = True
            flow.waiting = None
            self.relay.return_pipe(flow)
        self.flows.pop(session.client.fileno(), None)
        if session.backend is not None:
            if reset:
                reset_on_close(session.backend)
            self.flows.pop(session.backend.fileno(), None)
            self.ended.append(session.backend)
        may_linger = reset and reason is CloseReason.BACKEND_RESET
        if may_linger and self.lingering.add(session.client, self.now):
            self._hurry()
            return
        if reset:
            reset_on_close(session.client)
        else:
            for end in (session.client, session.backend):
                if isinstance(end, TlsSocket):
                    with suppress(OSError):
                        end.say_end()
        self.ended.append(session.client)

    def broke(self, session: Session) -> None:
        """A bug occurred while serving this session: end it, and let the others go on."""
        log.bug("session_failed", client=session.address[0])
        self.finish(session, CloseReason.FAULT, reset=True)

    def close_ended(self) -> None:
        """Close the sockets that ended in this turn, then tell the gate which sessions did."""
        for ended in self.ended:
            ended.close()
        self.ended.clear()
        for session, reason, ended_by in self.over:
            carried = session.upward.carried, session.downward.carried
            secs = self.now - session.started_at
            first_secs = session.began_at - session.started_at if carried[1] else None
            outcome = Outcome(reason, *carried, secs, first_secs, ended_by)
            self._sessions.discard(session)
            self._gate.closed(session.ticket, outcome, self.now)
            session.let_go()
        self.over.clear()

    def abort(self, wanted: Callable[[Any], bool] | None = None) -> None:
        """End the sessions whose ticket is `wanted` (all by default), `ABORTED`."""
        for session in self.all():
            if wanted is None or wanted(session.ticket):
                self.break_off(session, CloseReason.ABORTED)


def _shown_state(session: Session) -> SessionState:
    if session.upward.done or session.downward.done:
        return SessionState.HALF_CLOSED
    return session.state


def _local_end(connection: socket.socket | None) -> tuple[str, int] | None:
    """Return the address of this end of a connection, in plain form; None if there is none."""
    if connection is None or connection.family == socket.AF_UNIX:
        return None
    try:
        host, port = connection.getsockname()[:2]
    except OSError:  # closed
        return None
    return plain(host), port


def _has_bytes(source: socket.socket) -> bool:
    if isinstance(source, TlsSocket) and source.has_unread:
        return True
    try:
        return bool(source.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
