# cython: language_level=3, cdivision=True
"""The native engine: its gate thread, which accepts, asks the gate, dials and reports ends.

One turn of the loop: without the interpreter lock, wait, accept, and collect what happened;
with the lock, once, tell the gate all of it, ends before arrivals, and take its answers; without the
lock again, dial. Under load a turn collects more, and the cost of the lock is shared by more clients.

This thread dials sessions (`gate_thread/sessions`). Then the byte threads carry them
(`byte_thread/loop`), each session on the thread with the fewest. `session.pyx` says which thread
owns what of a session.
"""

import os
import threading

from edgeproxy.engine.commands import Commands
from edgeproxy.engine.contract import PLAIN
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.listener import Listener
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog
from edgeproxy.standstill import LATE_SECS

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from edgeproxy.engine.native.byte_thread.worker cimport (
    BUFFER_BYTES,
    MAX_EVENTS,
    SHORT_TICK_MS,
    TICK_MS,
)
from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.gate_thread.acceptor cimport Acceptor, FIRST_LISTENER
from edgeproxy.engine.native.gate_thread.dialer cimport Dialer
from edgeproxy.engine.native.gate_thread.ingress cimport Ingress
from edgeproxy.engine.native.gate_thread.session_list cimport (
    list_carried,
    list_ends,
    list_sessions,
    list_unanswered,
)
from edgeproxy.engine.native.gate_thread.sessions cimport Sessions
from edgeproxy.engine.native.session cimport Flow, PREREAD, Pool, close_pool, marked, open_pool
from edgeproxy.engine.native.syscalls cimport (
    TIMER,
    WAKEUP,
    arm,
    ask_for_short_slices,
    monotonic,
    open_timer,
    open_wakeup,
    unwake,
    wake,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.context cimport BackendContext, TlsContext

log = EventLog("engine")

cdef class NativeEngine:
    """Implements `engine.contract.Engine`.

    `on_crash` is called on the gate thread if its loop itself fails, which is a bug; the
    engine has then closed everything.
    """

    cdef readonly str kind
    cdef object _gate, _on_crash, _thread, _commands
    cdef Acceptor _acceptor
    cdef Dialer _dialer
    cdef Pool _pool
    cdef Workers _workers
    cdef Ingress _ingress
    cdef Sessions _sessions
    cdef double _now, _next_tick, _armed_for, _next_gate_tick, _judged_at, _late_secs
    cdef char* _buffer
    cdef int _epoll, _wakeup, _timer, _event_count
    cdef bint _stopping, _woken, _may_resume, _closes_idle

    def __init__(self, settings, gate, on_crash):
        self.kind = "native"
        self._gate = gate
        self._on_crash = on_crash
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self._wakeup = open_wakeup(self._epoll)
        self._timer = open_timer(self._epoll)
        if self._epoll < 0 or self._wakeup < 0 or self._timer < 0:
            raise EdgeProxyError(
                f"the engine cannot start: {os.strerror(errno)}; raise the limit of open "
                "files (ulimit -n)"
            )
        self._buffer = <char*>malloc(BUFFER_BYTES)
        if self._buffer == NULL or not open_pool(&self._pool):
            raise MemoryError
        self._acceptor = Acceptor()
        self._acceptor.prepare(&self._pool, self._epoll)
        self._dialer = Dialer()
        self._workers = Workers()
        self._workers.prepare(settings, &self._pool, self._wakeup)
        self._ingress = Ingress()
        self._ingress.prepare(
            gate, self._acceptor, self._workers, &self._pool, self._buffer, self._epoll
        )
        self._sessions = Sessions()
        self._sessions.prepare(
            gate,
            self._acceptor,
            self._dialer,
            self._workers,
            self._ingress,
            &self._pool,
            self._buffer,
        )
        if settings.backend_ca_pem is not None:
            self._sessions.trust(BackendContext(settings.backend_ca_pem))
        self._closes_idle = settings.idle_timeout_secs > 0
        self._now = self._sessions.now = monotonic()
        self._armed_for = -1
        self._late_secs = LATE_SECS
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._commands = Commands(self._wake, self._thread)

    # -- called from any thread -------------------------------------------------------

    def listen(self, name, listening, settings=PLAIN):
        """Accept from this listening socket from now on; the engine owns and closes it."""
        if self._stopping:
            listening.close()
            return
        listener = Listener.prepare(name, listening, settings, TlsContext)
        self.call(lambda: self._acceptor.add(listener))

    def renew(self, name, settings):
        """Speak TLS with new clients of this listener with these settings. Raises TlsError."""
        tls = TlsContext(settings)
        self._commands.ask(lambda: self._acceptor.renew(name, settings, tls))

    def trust(self, backend_ca_pem):
        """Trust backends by these certificates from now on. Raises TlsError."""
        context = BackendContext(backend_ca_pem)
        self._commands.ask(lambda: self._sessions.trust(context))

    def start(self):
        """Start the engine's threads."""
        cdef int highest = ceiling()
        self._acceptor.ceiling = highest
        self._dialer.prepare(self._epoll, highest)
        self._workers.start(highest)
        self._thread.start()

    def call(self, function):
        """Run `function` on the gate thread soon."""
        self._commands.call(function)

    def stop_accepting(self):
        """Accept what has already connected, then close the listeners. Returns when done."""
        self._commands.ask(self._stop_accepting)

    def unlisten(self, name):
        """Accept what has already connected to this listener, then close it. Returns when done."""
        self._commands.ask(lambda: self._unlisten(name))

    def live(self):
        """Return how many clients wait for admission, dial, are served or linger."""
        waiting = self._ingress.count() + self._sessions.slot_queue.count
        return self._sessions.live + waiting + self._workers.lingering()

    def sessions(self):
        """List the live sessions."""
        return list(self._commands.ask_in_slices(self._list_sessions))

    def carried(self):
        """Return every live session's ticket, bytes in and bytes out so far."""
        return list(self._commands.ask_in_slices(self._list_carried))

    def unanswered(self):
        """Return the live sessions whose backend has not sent a byte."""
        return self._commands.ask(lambda: list_unanswered(&self._pool)) or []

    def ends(self, wanted):
        """Return the ends of the live sessions whose ticket is `wanted`."""
        return self._commands.ask(lambda: list_ends(&self._pool, wanted)) or []

    def close_sessions(self, wanted=None):
        """Close the sessions whose ticket is `wanted` (all by default), `ABORTED`."""
        self.call(lambda: self._sessions.close_sessions(wanted))

    def stop(self):
        """Close everything, end all threads and wait for them. Idempotent."""
        if self._thread.ident is None:
            if not self._stopping:
                self._stopping = True
                self._clean_up()
        else:
            self._stopping = True
            self.call(int)
            if self._thread is not threading.current_thread():
                self._thread.join()

    def _wake(self):
        if self._wakeup >= 0:
            wake(self._wakeup)

    def _unlisten(self, name):
        self._acceptor.remove(name, self._now)
        self._sessions.tell_all_opened()

    def _stop_accepting(self):
        self._acceptor.accept_rest(self._now)
        self._sessions.tell_all_opened()

    # -- the loop ---------------------------------------------------------------------

    def _run(self):
        pthread_setname_np(pthread_self(), "gate")
        ask_for_short_slices()
        self._next_tick = monotonic()
        try:
            while not self._stopping:
                with nogil:
                    self._collect()
                self._tell()
                if self._dialer.wanted.first != NULL or self._dialer.short.first != NULL:
                    with nogil:
                        self._dial()
                    self._sessions.tell_dialed()
                if self._sessions.to_carry.first != NULL:
                    with nogil:
                        self._carry()
        except BaseException as error:
            self._stopping = True
            log.bug("engine_crashed", engine=self.kind)
            self._on_crash(error)
        finally:
            self._clean_up()

    cdef void _collect(self) noexcept nogil:
        """Wait; accept; note what happened to dials and which sessions have ended."""
        cdef epoll_event[MAX_EVENTS] events
        cdef Flow* flow
        cdef uint64_t mark
        cdef int count, index, timeout_ms = 0
        if (
            self._dialer.failed.first == NULL
            and self._dialer.gone.first == NULL
            and not self._ingress.is_to_tell()
            and self._acceptor.opened.first == NULL
            and not self._woken
            and self._judged_at == 0
        ):
            timeout_ms = -1
            if (
                self._acceptor.paused
                or self._dialer.dialing.first != NULL
                or self._ingress.is_prereading()
                or self._sessions.slot_queue.count
            ):
                self._hurry()
            if self._armed_for != self._next_tick:
                self._armed_for = self._next_tick
                arm(self._timer, self._next_tick)
        count = self._event_count = epoll_wait(self._epoll, events, MAX_EVENTS, timeout_ms)
        self._now = self._sessions.now = monotonic()
        self._acceptor.undialed = 0
        if self._now - self._next_tick > self._late_secs:
            with gil:
                self._excuse(self._now - self._next_tick)  # before an event moves who is timed
        for index in range(count):
            mark = events[index].data.u64
            if mark == WAKEUP:
                unwake(self._wakeup)
                self._woken = True
            elif mark == TIMER:
                self._armed_for = 0
            elif not mark >> 32:  # no generation: see `session.mark_of`
                self._acceptor.accept(<int>mark - FIRST_LISTENER, self._now)
            else:
                flow = marked(&self._pool, mark)
                if flow == NULL:
                    continue
                if flow.session.state == PREREAD:
                    self._ingress.happened(flow.session, events[index].events)
                else:
                    self._dialer.happened(flow, events[index].events, self._now)

    cdef void _tell(self):
        """Tell the gate everything that happened, and take its answers."""
        if self._sessions.tell_all_closed(self._stopping):
            self._may_resume = True
        self._sessions.tell_dialed()
        self._carry()
        self._sessions.tell_ended_dials()
        self._sessions.tell_all_waiting()
        self._ingress.tell_all_preread(self._now)
        self._sessions.tell_all_opened()
        self._acceptor.tell_pause()
        if self._woken:
            self._woken = self._commands.run_next()
        if self._judged_at == 0:
            # What came until now has to be read first.
            if self._now >= self._next_tick or (self._acceptor.paused and self._may_resume):
                self._judged_at = self._now
        elif 0 <= self._event_count < MAX_EVENTS or self._now - self._judged_at >= TICK_MS / 1000.0:
            if not self._stopping:
                self._tick()
            self._judged_at = 0

    cdef object _excuse(self, double secs):
        """Leave out the seconds in which this process stood still; byte threads do so themselves."""
        self._next_tick = self._now
        self._dialer.excuse(secs)
        self._ingress.excuse(secs)
        self._sessions.slot_queue.excuse(secs)
        try:
            self._gate.stood_still(secs)
        except Exception:
            log.bug("gate_failed", call="stood_still")

    cdef object _tick(self):
        cdef int hurry
        self._may_resume = False
        self._dialer.expire(self._judged_at)
        self._ingress.expire(self._judged_at)
        if self._dialer.short.first == NULL or not self._acceptor.paused:
            self._acceptor.resume(self._now)
        if self._now >= self._next_gate_tick:
            self._next_gate_tick = self._now + TICK_MS / 1000.0
            try:
                self._gate.tick(self._now)
            except Exception:
                log.bug("gate_failed", call="tick")
        self._workers.remind()
        hurry = (
            self._dialer.dialing.first != NULL
            or self._acceptor.paused
            or self._ingress.is_prereading()
        )
        self._next_tick = self._now + (SHORT_TICK_MS if hurry else TICK_MS) / 1000.0

    cdef void _dial(self) noexcept nogil:
        """Begin the dials that the gate asked for."""
        self._now = self._sessions.now = self._dialer.dial()
        if self._dialer.shortage:
            self._acceptor.pause(self._dialer.shortage)
            self._dialer.shortage = 0

    cdef void _carry(self) noexcept nogil:
        """Let bytes flow in the sessions whose backends have answered."""
        if self._closes_idle and self._sessions.to_carry.first != NULL:
            self._hurry()  # its byte thread may have no other reason to wake for the session
        self._sessions.carry()

    cdef inline void _hurry(self) noexcept nogil:
        self._next_tick = min(self._next_tick, self._now + SHORT_TICK_MS / 1000.0)

    def _list_sessions(self, number):
        return list_sessions(&self._pool, number)

    def _list_carried(self, number):
        return list_carried(&self._pool, number)

    def _clean_up(self):
        self._commands.run_all()
        self._acceptor.close()
        with nogil:
            self._workers.stop()
        self._sessions.close_all()
        with nogil:
            self._dial()
        self._tell()
        # The interpreter lock is held throughout: others may use `live` and `call` meanwhile.
        close_pool(&self._pool)
        self._workers.let_go()
        free(self._buffer)
        close(self._epoll)
        close(self._timer)
        close(self._wakeup)
        self._wakeup = -1
