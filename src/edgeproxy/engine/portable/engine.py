"""The portable engine: pure Python, one thread for accepting, deciding and relaying.

It is used where the native engine is not built, and it is the one to read first. One turn of the
loop: wait for events, carry bytes, close the sockets that ended (`sessions`), take in clients, run
what other threads asked for, check timers, and close again what ended meanwhile. So what has ended
is told to the gate before who has come is decided.

Sockets are registered once, edge-triggered, and never again. Out of descriptors, the engine
refuses no client: accepting pauses, and dials wait until something is closed.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Container, Iterable
from typing import Any

from edgeproxy.engine.commands import Commands
from edgeproxy.engine.contract import (
    PLAIN,
    EngineSettings,
    Gate,
    ListenerSettings,
    SessionEnds,
    SessionInfo,
)
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.listener import Listener
from edgeproxy.engine.portable.acceptor import Acceptor
from edgeproxy.engine.portable.ingress.accepted import Accepted, Next
from edgeproxy.engine.portable.ingress.ingress import Ingress
from edgeproxy.engine.portable.sessions import Sessions
from edgeproxy.engine.portable.timeouts import SHORT_TICK_SECS, Timeouts
from edgeproxy.engine.portable.tls_context import BackendTls
from edgeproxy.engine.portable.tls_socket import TlsContext
from edgeproxy.engine.tls import TlsSettings
from edgeproxy.log import EventLog
from edgeproxy.standstill import LATE_SECS, WATCH_SECS

log = EventLog("engine")

MAX_EVENTS = 512


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
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._lock = threading.Lock()  # guards the wake-up descriptor, to which other threads write
        self._now = time.monotonic()
        self._next_tick = self._now
        self._judged_at = 0.0
        self._next_sweep = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._commands = Commands(self._wake, self._thread)
        self._acceptor = Acceptor(self._epoll)
        self._sessions = Sessions(
            settings, self._gate, self._epoll, self._acceptor.pause, self._hurry
        )
        self._dialer = self._sessions.dialer
        self._relay = self._sessions.relay
        self._lingering = self._sessions.lingering
        self._ingress = Ingress(self._epoll, self._gate, self._acceptor)
        self._timeouts = Timeouts(settings, self._sessions.break_off, self._sessions.finish)

    # -- called from any thread -------------------------------------------------------

    def listen(
        self, name: str, listening: socket.socket, settings: ListenerSettings = PLAIN
    ) -> None:
        """Accept from this listening socket from now on; the engine owns and closes it."""
        if self._stopping:
            listening.close()
            return
        listener = Listener.prepare(name, listening, settings, TlsContext)
        self.call(lambda: self._acceptor.add(listener))

    def renew(self, name: str, settings: TlsSettings) -> None:
        """Speak TLS with new clients of this listener with these settings. Raises TlsError."""
        context = TlsContext(settings)
        self._commands.ask(lambda: self._acceptor.renew(name, settings, context))

    def trust(self, backend_ca_pem: bytes) -> None:
        """Trust backends by these certificates from now on. Raises TlsError."""
        tls = BackendTls(backend_ca_pem)
        self._commands.ask(lambda: self._dialer.speak(tls))

    def start(self) -> None:
        """Start the engine's thread."""
        self._acceptor.ceiling = self._relay.ceiling = self._dialer.ceiling = ceiling()
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` on the gate thread soon."""
        self._commands.call(function)

    def stop_accepting(self) -> None:
        """Accept what has already connected, then close the listeners. Returns when done."""
        self._commands.ask(lambda: self._receive(self._acceptor.accept_rest(self._now)))

    def unlisten(self, name: str) -> None:
        """Accept what has already connected to this listener, then close it. Returns when done."""
        self._commands.ask(lambda: self._receive(self._acceptor.remove(name, self._now)))

    def live(self) -> int:
        """Return how many clients wait for admission, dial, are served or linger."""
        waiting = len(self._ingress) + len(self._sessions.slot_queue)
        return len(self._sessions) + len(self._lingering) + waiting

    def sessions(self) -> list[SessionInfo]:
        """List the live sessions."""
        return self._sessions.infos()

    def carried(self) -> list[tuple[Any, int, int]]:
        """Return every live session's ticket, bytes in and bytes out so far."""
        return self._sessions.carried()

    def unanswered(self) -> list[tuple[Any, int, bool, float]]:
        """Return the live sessions whose backend has not sent a byte."""
        return self._sessions.unanswered()

    def ends(self, wanted: Container[Any]) -> list[SessionEnds]:
        """Return the ends of the live sessions whose ticket is `wanted`."""
        return self._commands.ask(lambda: self._sessions.ends(wanted)) or []

    def close_sessions(self, wanted: Callable[[Any], bool] | None = None) -> None:
        """Close the sessions whose ticket is `wanted` (all by default), `ABORTED`."""
        self.call(lambda: self._sessions.abort(wanted))

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

    def _wake(self) -> None:
        with self._lock:
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    # -- the loop ---------------------------------------------------------------------

    def _run(self) -> None:
        self._next_tick = time.monotonic()
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
        has_all = len(events) < MAX_EVENTS
        sessions = self._sessions
        self._now = sessions.now = time.monotonic()
        if self._now - self._next_tick > LATE_SECS:
            self._excuse(self._now - self._next_tick)
        entering, accepting = self._carry(events)
        if sessions.ended or sessions.over:
            self._close_ended()
        if sessions.slot_queue:
            if has_all:
                sessions.slot_queue.hear_out()
            sessions.ask_waiting()
        for descriptor, mask in entering:
            self._go_on(*self._ingress.happened(descriptor, mask, self._now))
        for descriptor in accepting:
            self._receive(self._acceptor.accept(descriptor, self._now))
        self._commands.run_next()
        if not self._judged_at:
            if self._now >= self._next_tick:  # what came until now has to be read first
                self._judged_at = self._now
        elif has_all or self._now - self._judged_at >= WATCH_SECS:
            self._tick(self._judged_at)
            self._judged_at = 0.0
        if sessions.ended or sessions.over:
            self._close_ended()

    def _carry(self, events: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[int]]:
        """Handle the events of sessions; return those of clients that enter, and of listeners.

        Who an event of these is about is decided before any descriptor is closed.
        """
        sessions = self._sessions
        flows = sessions.flows
        entering: list[tuple[int, int]] = []
        accepting: list[int] = []
        for descriptor, mask in events:
            flow = flows.get(descriptor)
            if flow is not None:
                try:
                    sessions.happened(flow, mask)
                except Exception:  # noqa: BLE001
                    sessions.broke(flow.session)
            elif descriptor == self._wakeup:
                os.eventfd_read(self._wakeup)
            elif descriptor in self._ingress:
                entering.append((descriptor, mask))
            else:
                accepting.append(descriptor)
        for _ in range(len(self._relay.again)):
            flow = self._relay.again.popleft()
            try:
                self._relay.pump(flow)
            except Exception:  # noqa: BLE001
                sessions.broke(flow.session)
        return entering, accepting

    def _wait_secs(self) -> float:
        if self._relay.again or self._commands.pending or self._judged_at:
            return 0.0
        return max(0.0, self._next_tick - time.monotonic())

    def _excuse(self, secs: float) -> None:
        """Leave out the seconds in which this process stood still."""
        self._next_tick = self._now
        self._sessions.excuse(secs)
        self._ingress.excuse(secs)
        self._timeouts.excuse(self._sessions.all(), secs, self._now)
        self._gate.stood_still(secs)

    def _tick(self, judged_at: float) -> None:
        """Judge deadlines up to `judged_at`: everything that came before it has been read."""
        now = self._now
        self._dialer.expire(judged_at, now)
        for late, step in self._ingress.expire(judged_at, now):
            self._go_on(late, step)
        self._dialer.dial_waiting(now)
        self._lingering.sweep(now)
        if not self._dialer.is_short:
            self._acceptor.resume(now)
        if now >= self._next_sweep:
            self._next_sweep = now + self._timeouts.pause_secs
            self._timeouts.sweep(self._sessions.all(), judged_at)
            self._gate.tick(now)
        waits = self._dialer or self._ingress or self._sessions.slot_queue
        hurry = waits or self._lingering or self._acceptor.paused
        self._next_tick = now + (SHORT_TICK_SECS if hurry else self._timeouts.pause_secs)

    def _hurry(self) -> None:
        """Look at timers soon."""
        self._next_tick = min(self._next_tick, self._now + SHORT_TICK_SECS)

    def _receive(self, arriving: Iterable[Accepted]) -> None:
        """Take in the clients that have connected."""
        for accepted in arriving:
            self._go_on(accepted, self._ingress.receive(accepted, self._now))
        if self._ingress:
            self._hurry()

    def _go_on(self, accepted: Accepted, step: Next) -> None:
        """Do what comes next for a client before admission."""
        if step is Next.ADMIT:
            self._sessions.admit(accepted)
        elif step is Next.TURN_AWAY:
            self._sessions.turn_away(accepted.connection)
        elif step is Next.CLOSE:
            self._sessions.ended.append(accepted.connection)

    def _close_ended(self) -> None:
        """Close what ended in this turn, and use the descriptors that this gives back."""
        self._sessions.close_ended()
        if self._dialer.is_short:
            self._dialer.dial_waiting(self._now)
        elif self._acceptor.paused:
            self._acceptor.resume(self._now)

    def _clean_up(self) -> None:
        self._commands.run_all()
        self._acceptor.close()
        for accepted, step in self._ingress.close(self._now):
            self._go_on(accepted, step)
        for accepted in self._sessions.slot_queue.give_up_all():
            self._sessions.turn_away(accepted.connection)
        self._sessions.abort()
        self._lingering.close()
        self._close_ended()
        self._relay.close()
        self._epoll.close()
        with self._lock:
            os.close(self._wakeup)
            self._wakeup = -1
