"""The portable engine: pure Python, one thread for accepting, deciding and relaying.

It is used where the native engine is not built, and by whoever wants to read how an
engine works. One turn of the loop: wait for events, carry bytes, run what other threads
asked for, look at timers, and last of all close the sockets that ended, so that a
descriptor's number cannot be given to somebody else while events for it are in hand.

Sockets are registered once, edge-triggered, and never again. Out of descriptors, nobody
is turned away: accepting pauses and dials wait until something is closed.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edgeproxy.engine.contract import (
    PLAIN,
    CloseReason,
    EngineSettings,
    Gate,
    ListenerSettings,
    Outcome,
    Refuse,
    SessionInfo,
    SocketAddress,
)
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.acceptor import Acceptor, local_address_of
from edgeproxy.engine.portable.dialer import Dialer, say_prefix
from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.portable.ingress.ingress import Ingress
from edgeproxy.engine.portable.lingering import Lingering
from edgeproxy.engine.portable.relay import BUFFER_BYTES, Flow, Relay, Session, reset_on_close
from edgeproxy.engine.portable.timeouts import SHORT_TICK_SECS, Timeouts
from edgeproxy.engine.portable.tls_context import BackendTls
from edgeproxy.engine.portable.tls_socket import TlsContext, TlsSocket
from edgeproxy.engine.tls import TlsSettings
from edgeproxy.log import EventLog

log = EventLog("engine")

MAX_EVENTS = 512

_READABLE = select.EPOLLIN
_WRITABLE = select.EPOLLOUT
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_MORE_THAN_BYTES = _BROKEN | select.EPOLLRDHUP | select.EPOLLPRI
_INTEREST = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET


class PortableEngine:
    """Implements `engine.contract.Engine`.

    `on_crash` is called on the gate thread if the loop itself fails, which is a bug; the
    engine has then closed everything.
    """

    kind = "portable"

    def __init__(
        self,
        settings: EngineSettings,
        gate: Gate,
        on_crash: Callable[[BaseException], object],
    ) -> None:
        self._gate = GuardedGate(gate)
        self._on_crash = on_crash
        self._epoll = select.epoll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, _READABLE)
        self._lock = threading.Lock()  # of the wake-up descriptor, which others write to
        self._commands: deque[Callable[[], object]] = deque()
        self._ended: list[socket.socket] = []
        self._acceptor = Acceptor(self._epoll, self._accepted)
        self._dialer = Dialer(
            self._gate,
            settings.backend_ca_pem,
            self._register,
            self._unregister,
            self._refuse,
            self._acceptor.pause,
        )
        self._ingress = Ingress(
            self._epoll,
            self._gate,
            self._admit,
            self._turn_away,
            self._ended.append,
            self._acceptor.pause,
        )
        self._relay = Relay(self._finish)
        self._timeouts = Timeouts(settings, self._break_off, self._finish)
        self._flows: dict[int, Flow] = {}
        self._sessions: set[Session] = set()
        self._lingering = Lingering()
        self._over: list[tuple[Session, CloseReason]] = []
        self._now = time.monotonic()
        self._next_tick = 0.0
        self._next_look = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    # -- called from any thread -------------------------------------------------------

    def listen(
        self, name: str, listening: socket.socket, settings: ListenerSettings = PLAIN
    ) -> None:
        """Accept from this listening socket from now on; the engine owns and closes it."""
        if self._stopping:
            listening.close()
            return

        try:
            context = TlsContext(settings.tls) if settings.tls else None
        except BaseException:
            listening.close()
            raise

        def listen() -> None:
            self._ingress.know(name, settings, context)
            self._acceptor.add(name, listening)

        self.call(listen)

    def renew(self, name: str, settings: TlsSettings) -> None:
        """Meet the new clients of this listener so from now on. Raises TlsError."""
        context = TlsContext(settings)
        self._call_and_wait(lambda: self._ingress.renew(name, settings, context))

    def trust(self, backend_ca_pem: bytes) -> None:
        """Have backends be trusted by these from now on. Raises TlsError."""
        tls = BackendTls(backend_ca_pem)
        self.call(lambda: self._dialer.speak(tls))

    def start(self) -> None:
        """Start the engine's thread."""
        self._acceptor.ceiling = self._relay.ceiling = self._dialer.ceiling = ceiling()
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` on the gate thread soon."""
        with self._lock:
            self._commands.append(function)
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def stop_accepting(self) -> None:
        """Accept what has already connected, then close the listeners. Returns when done."""
        self._call_and_wait(self._acceptor.close)

    def unlisten(self, name: str) -> None:
        """Accept what has already connected to this listener, then close it. Returns when done."""
        self._call_and_wait(lambda: self._acceptor.remove(name))

    def _call_and_wait(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            try:
                function()
            finally:
                done.set()

        self.call(run)
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    def live(self) -> int:
        """How many clients are being heard, dialing or being served."""
        return len(self._sessions) + len(self._lingering) + len(self._ingress)

    def sessions(self) -> list[SessionInfo]:
        """List the live sessions."""
        now = time.monotonic()
        return [
            SessionInfo(
                session.ticket,
                session.address,
                "half_closed" if session.upward.done or session.downward.done else session.state,
                session.upward.carried,
                session.downward.carried,
                now - session.started_at,
            )
            for session in list(self._sessions)
            if session.state != "closed"
        ]

    def carried(self) -> list[tuple[Any, int, int]]:
        """Return every live session's ticket, bytes in and bytes out so far."""
        return [
            (session.ticket, session.upward.carried, session.downward.carried)
            for session in list(self._sessions)
        ]

    def close_sessions(self, wanted: Callable[[Any], bool] | None = None) -> None:
        """Close the sessions whose ticket is `wanted` (all by default), `ABORTED`."""

        def close() -> None:
            for session in list(self._sessions):
                if wanted is None or wanted(session.ticket):
                    self._break_off(session, CloseReason.ABORTED)

        self.call(close)

    def stop(self) -> None:
        """Close everything, end the thread and wait for it. Idempotent."""
        if self._thread.ident is None:
            if not self._stopping:
                self._stopping = True
                self._clean_up()
        else:
            self._stopping = True
            self.call(lambda: None)
            if self._thread is not threading.current_thread():
                self._thread.join()

    # -- the loop ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:  # noqa: BLE001
            log.bug("engine_crashed", engine=self.kind)
            self._on_crash(error)
        finally:
            self._clean_up()

    def _turn(self) -> None:
        events = self._epoll.poll(self._wait_secs(), MAX_EVENTS)
        self._now = time.monotonic()
        flows = self._flows
        for descriptor, mask in events:
            flow = flows.get(descriptor)
            if flow is not None:
                try:
                    self._happened(flow, mask)
                except Exception:  # noqa: BLE001
                    self._broke(flow.session)
            elif descriptor == self._wakeup:
                os.eventfd_read(self._wakeup)
            elif not self._ingress.happened(descriptor, mask, self._now):
                self._acceptor.accept(descriptor)
        for _ in range(len(self._relay.again)):
            flow = self._relay.again.popleft()
            try:
                self._relay.pump(flow)
            except Exception:  # noqa: BLE001
                self._broke(flow.session)
        self._run_commands()
        if self._now >= self._next_tick:
            self._tick()
        if self._ended or self._over:
            self._close_ended()

    def _run_commands(self) -> None:
        while self._commands:
            try:
                self._commands.popleft()()
            except Exception:  # noqa: BLE001
                log.bug("engine_command_failed")

    def _wait_secs(self) -> float:
        if self._relay.again or self._commands:
            return 0.0
        return max(0.0, self._next_tick - time.monotonic())

    def _happened(self, flow: Flow, mask: int) -> None:
        """Something happened to the source of `flow`, which is the sink of its reverse."""
        session = flow.session
        if mask & _MORE_THAN_BYTES:
            flow.read_to_eagain = True
        if session.state == "dialing":
            if flow is session.downward:
                if self._dialer.has_answered(session, mask, self._now):
                    self._opened(session, mask)
            elif mask & _BROKEN:
                self._finish(session, CloseReason.CLIENT_GONE, reset=True)
            return
        session.active_at = self._now
        session.settled = False
        if mask & _WRITABLE and flow.reverse.blocked:
            self._relay.pump(flow.reverse)
        if not flow.blocked and not flow.done:
            if mask & ~_WRITABLE or flow.source_is_tls:  # which may have to write in order to read
                self._relay.pump(flow)
        elif mask & select.EPOLLERR:
            self._cannot_be_read(flow)

    def _cannot_be_read(self, flow: Flow) -> None:
        """The peer of a source that is not being read has reset its connection."""
        session = flow.session
        if flow.done or flow is session.upward:
            self._finish(session, session.reset_by or session.side(flow.source), reset=True)
        elif not session.broken_since:
            session.broken_since = self._now

    def _tick(self) -> None:
        now = self._now
        self._dialer.expire(now)
        self._ingress.expire(now)
        self._dialer.dial_waiting(now)
        self._lingering.look(now)
        if not self._dialer.is_short:
            self._acceptor.resume(self._now)
        if now >= self._next_look:
            self._next_look = now + self._timeouts.pause_secs
            self._timeouts.look_at(list(self._sessions), now)
            self._gate.tick(now)
        hurry = self._dialer or self._lingering or self._ingress or self._acceptor.paused
        self._next_tick = now + (SHORT_TICK_SECS if hurry else self._timeouts.pause_secs)

    def _hurry(self) -> None:
        """Look at timers soon."""
        self._next_tick = min(self._next_tick, self._now + SHORT_TICK_SECS)

    # -- one client, from accept to dialed --------------------------------------------

    def _accepted(self, client: socket.socket, address: SocketAddress, listener: str) -> None:
        """A client has connected; called by the acceptor."""
        self._ingress.receive(Accepted(client, address, listener, self._now), self._now)
        if self._ingress:
            self._hurry()

    def _admit(self, accepted: Accepted) -> None:
        """Ask the gate for a backend."""
        client, address, listener = accepted.client, accepted.address, accepted.listener
        local = local_address_of(client) if self._ingress.tells_local(listener) else None
        answer = self._gate.opened(address, listener, self._now, accepted.about, local)
        if isinstance(answer, Refuse):
            self._turn_away(client)
            return
        session = Session(client, address, accepted.accepted_at)
        session.ticket = answer.ticket
        self._sessions.add(session)
        try:
            self._register(client, session.upward)
        except OSError as error:
            if answer.preconnected_fd >= 0:
                os.close(answer.preconnected_fd)
            self._acceptor.pause(str(error.strerror))
            self._finish(session, CloseReason.CLIENT_GONE)
            return
        self._dialer.dial(session, answer, self._now)
        self._hurry()

    def _register(self, tcp: socket.socket, flow: Flow) -> None:
        self._epoll.register(tcp.fileno(), _INTEREST)
        self._flows[tcp.fileno()] = flow

    def _unregister(self, tcp: socket.socket) -> None:
        self._flows.pop(tcp.fileno(), None)

    def _opened(self, session: Session, mask: int) -> None:
        """The backend has answered: let bytes flow."""
        session.state = "open"
        session.active_at = self._now
        secs = self._now - session.dialed_at if session.dialed_at else 0.0
        if not self._gate.dialed(session.ticket, secs, self._now):
            self._finish(session, CloseReason.FAULT, reset=True)
            return
        try:
            say_prefix(session)
        except OSError:
            self._finish(session, CloseReason.BACKEND_RESET, reset=True)
            return
        self._relay.pump(session.upward)
        if mask & ~_WRITABLE or session.server_name:  # its first words may be here already
            self._relay.pump(session.downward)

    # -- the end ----------------------------------------------------------------------

    def _refuse(self, session: Session) -> None:
        """Close a client whose last attempt has failed; its ticket has ended already."""
        session.state = "closed"
        self._sessions.discard(session)
        self._flows.pop(session.client.fileno(), None)
        self._turn_away(session.client)

    def _turn_away(self, client: socket.socket) -> None:
        """Close a client without a byte, and without a reset for what it has said."""
        try:
            client.shutdown(socket.SHUT_WR)
            client.recv(BUFFER_BYTES)
        except OSError:
            pass
        self._ended.append(client)

    def _break_off(self, session: Session, reason: CloseReason) -> None:
        """End a session that has not come to its end. A side that would miss bytes is reset.

        So is one whose own bytes nobody has taken, over TLS: no word of an end goes before that.
        """
        if session.state == "open":
            for flow in (session.upward, session.downward):
                if not flow.has_bytes() and not _has_bytes(flow.source):
                    continue
                reset_on_close(flow.sink)
                for end in (flow.sink, flow.source):
                    if isinstance(end, TlsSocket):
                        end.say_no_end()
                        reset_on_close(end)
        self._finish(session, reason)

    def _finish(self, session: Session, reason: CloseReason, reset: bool = False) -> None:
        """End a session. The gate is told when its sockets are closed, after this turn."""
        if session.state == "closed":
            return
        session.state = "closed"
        self._over.append((session, reason))
        self._dialer.forget(session)
        for flow in (session.upward, session.downward):
            flow.done = True
            flow.waiting = None
            self._relay.return_pipe(flow)
        self._flows.pop(session.client.fileno(), None)
        if session.backend is not None:
            if reset:
                reset_on_close(session.backend)
            self._flows.pop(session.backend.fileno(), None)
            self._ended.append(session.backend)
        heard_out = reset and reason is CloseReason.BACKEND_RESET
        if heard_out and self._lingering.add(session.client, self._now):
            self._hurry()
            return
        if reset:
            reset_on_close(session.client)
        else:
            for end in (session.client, session.backend):
                if isinstance(end, TlsSocket):
                    with suppress(OSError):
                        end.say_end()
        self._ended.append(session.client)

    def _broke(self, session: Session) -> None:
        """A bug was met while serving this session: it ends, the others go on."""
        log.bug("session_failed", client=session.address[0])
        self._finish(session, CloseReason.FAULT, reset=True)

    def _close_ended(self) -> None:
        """Close the sockets that ended in this turn, then tell the gate which sessions did.

        In this order, so that a slot is free only when the backend's connection is gone.
        """
        for ended in self._ended:
            ended.close()
        self._ended.clear()
        for session, reason in self._over:
            carried = session.upward.carried, session.downward.carried
            outcome = Outcome(reason, *carried, self._now - session.started_at)
            self._sessions.discard(session)
            self._gate.closed(session.ticket, outcome, self._now)
            session.let_go()
        self._over.clear()
        if self._dialer.is_short:
            self._dialer.dial_waiting(self._now)
        elif self._acceptor.paused:
            self._acceptor.resume(self._now)

    def _clean_up(self) -> None:
        self._run_commands()
        self._acceptor.close(serve_waiting=False)
        self._ingress.close()
        for session in list(self._sessions):
            self._break_off(session, CloseReason.ABORTED)
        self._lingering.close()
        self._close_ended()
        self._relay.close()
        self._epoll.close()
        with self._lock:
            os.close(self._wakeup)
            self._wakeup = -1


def _has_bytes(source: socket.socket) -> bool:
    if isinstance(source, TlsSocket) and source.has_unread:
        return True
    try:
        return bool(source.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
