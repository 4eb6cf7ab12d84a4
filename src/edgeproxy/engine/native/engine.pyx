# cython: language_level=3, cdivision=True
"""The native engine: its gate thread, which accepts, asks, dials and learns of every end.

One turn of the loop: without the interpreter lock, wait, accept, and collect what happened;
with the lock, once, tell the gate all of it and take its answers; without the lock again,
dial. What the gate is told grows under load by itself, and its cost falls.

A gate must not raise. If it does, the client concerned is closed and everybody else is
served on, as `engine/guarded_gate` has it for the other engine.

Sessions are dialed by this thread and then carried by the byte threads (`byte_thread/loop`), each by
the one that has the fewest. Who owns what of a session is said in `session.pyx`.
"""

import os
import threading
from collections import deque

from edgeproxy.engine.contract import (
    PLAIN,
    CloseReason,
    Connect,
    Outcome,
    Refuse,
)
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.dial import failure
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ECONNRESET, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from edgeproxy.engine.native.gate_thread.acceptor cimport (
    Acceptor,
    FIRST_LISTENER,
    MAX_LISTENERS,
    address_of,
    local_address_of,
)
from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.gate_thread.dialer cimport Dialer, set_address
from edgeproxy.engine.native.gate_thread.first_bytes cimport carry_first, say_prefix
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
from edgeproxy.engine.native.gate_thread.ingress cimport Ingress
from edgeproxy.engine.native.byte_thread.relay cimport keep
from edgeproxy.engine.native.gate_thread.session_list cimport list_carried, list_sessions
from edgeproxy.engine.native.session cimport (
    ABORTED,
    CLOSED,
    DIALING,
    FAULT,
    Flow,
    HANDSHAKE_TIMEOUT,
    PREREAD,
    Queue,
    NO_REASON,
    Pool,
    Session,
    push,
    capacity,
    close_pool,
    marked,
    open_pool,
    release,
    session_at,
    take_first,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport end_tls, tls_say_end
from edgeproxy.engine.native.tls.context cimport BackendContext, TlsContext
from edgeproxy.engine.native.byte_thread.worker cimport (
    BUFFER_BYTES,
    MAX_EVENTS,
    SHORT_TICK_MS,
    TICK_MS,
)

log = EventLog("engine")

REASONS = (
    None,
    CloseReason.FINISHED,
    CloseReason.CLIENT_RESET,
    CloseReason.BACKEND_RESET,
    CloseReason.CLIENT_GONE,
    CloseReason.IDLE,
    CloseReason.TIMED_OUT,
    CloseReason.ABORTED,
    CloseReason.FAULT,
    CloseReason.TLS_ERROR,
)

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
    cdef BackendContext _backend_context
    cdef long _live
    cdef Queue _to_carry, _closed
    cdef double _now, _next_tick, _armed_for, _next_gate_tick
    cdef char* _buffer
    cdef int _epoll, _wakeup, _timer
    cdef bint _stopping, _woken, _may_resume, _looks_for_idle

    def __init__(self, settings, gate, on_crash):
        self.kind = "native"
        self._gate = gate
        self._on_crash = on_crash
        self._commands = deque()
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self._wakeup = open_wakeup(self._epoll)
        self._timer = open_timer(self._epoll)
        if self._epoll < 0 or self._wakeup < 0 or self._timer < 0:
            raise EdgeProxyError(
                f"the engine cannot be made: {os.strerror(errno)}; raise the limit of open "
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
        if settings.backend_ca_pem is not None:
            self._backend_context = BackendContext(settings.backend_ca_pem)
        self._ingress = Ingress()
        self._ingress.prepare(
            gate, self._acceptor, self._workers, &self._pool, self._buffer, self._epoll
        )
        self._looks_for_idle = settings.idle_timeout_secs > 0
        self._now = monotonic()
        self._armed_for = -1
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    # -- called from any thread -------------------------------------------------------

    def listen(self, name, listening, settings=PLAIN):
        """Accept from this listening socket from now on; the engine owns and closes it."""
        if self._stopping:
            listening.close()
            return
        try:
            tls = TlsContext(settings.tls) if settings.tls else None
        except BaseException:
            listening.close()
            raise
        self.call(lambda: self._listen(name, listening, settings, tls))

    def renew(self, name, settings):
        """Meet the new clients of this listener so from now on. Raises TlsError."""
        tls = TlsContext(settings)
        self._ask(lambda: self._acceptor.renew(name, settings, tls))

    def trust(self, backend_ca_pem):
        """Have backends be trusted by these from now on. Raises TlsError."""
        context = BackendContext(backend_ca_pem)
        self.call(lambda: self._trust(context))

    def start(self):
        """Start the engine's threads."""
        cdef int highest = ceiling()
        self._acceptor.ceiling = highest
        self._dialer.prepare(self._epoll, highest)
        self._workers.start(highest)
        self._thread.start()

    def call(self, function):
        """Run `function` on the gate thread soon."""
        self._commands.append(function)
        if self._wakeup >= 0:
            wake(self._wakeup)

    def stop_accepting(self):
        """Accept what has already connected, then close the listeners. Returns when done."""
        self._ask(self._stop_accepting)

    def unlisten(self, name):
        """Accept what has already connected to this listener, then close it. Returns when done."""
        self._ask(lambda: self._unlisten(name))

    def live(self):
        """How many clients are being heard, dialing or being served."""
        return self._live + self._ingress.count() + self._workers.lingering()

    def sessions(self):
        """List the live sessions."""
        return self._ask(self._list_sessions) or []

    def carried(self):
        """Return every live session's ticket, bytes in and bytes out so far."""
        return self._ask(self._list_carried) or []

    def close_sessions(self, wanted=None):
        """Close the sessions whose ticket is `wanted` (all by default), `ABORTED`."""
        self.call(lambda: self._close_sessions(wanted))

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

    def _ask(self, function):
        """Run `function` on the gate thread and return what it returns; None if stopped."""
        if self._thread is threading.current_thread():
            return function()
        answer = []
        done = threading.Event()

        def run():
            try:
                answer.append(function())
            finally:
                done.set()

        self.call(run)
        while self._thread.is_alive() and not done.wait(0.1):
            pass
        return answer[0] if answer else None

    def _listen(self, name, listening, settings, tls):
        if self._stopping:
            listening.close()
        else:
            self._acceptor.add(name, listening, settings, tls)

    def _trust(self, context):
        self._backend_context = context

    def _unlisten(self, name):
        self._acceptor.remove(name, self._now)
        self._tell_all_opened()

    def _stop_accepting(self):
        self._acceptor.accept_rest(self._now)
        self._tell_all_opened()

    # -- the loop ---------------------------------------------------------------------

    def _run(self):
        pthread_setname_np(pthread_self(), "gate")
        ask_for_short_slices()
        try:
            while not self._stopping:
                with nogil:
                    self._collect()
                self._tell()
                if self._dialer.wanted.first != NULL or self._dialer.short.first != NULL:
                    with nogil:
                        self._dial()
                    self._tell_dialed()
                if self._to_carry.first != NULL:
                    with nogil:
                        self._carry()
        except BaseException as error:
            self._stopping = True
            log.bug("engine_crashed", engine=self.kind)
            self._on_crash(error)
        finally:
            self._clean_up()

    cdef void _collect(self) noexcept nogil:
        """Wait; accept; note what happened to those who are dialing and who has ended."""
        cdef epoll_event[MAX_EVENTS] events
        cdef Flow* flow
        cdef uint64_t mark
        cdef int count, index, timeout_ms = 0
        if (
            self._dialer.failed.first == NULL
            and self._dialer.gone.first == NULL
            and not self._ingress.is_to_tell()
            and self._acceptor.opened.first == NULL
        ):
            timeout_ms = -1
            if (
                self._acceptor.paused
                or self._dialer.dialing.first != NULL
                or self._ingress.hears_anybody()
            ):
                self._hurry()
            if self._armed_for != self._next_tick:
                self._armed_for = self._next_tick
                arm(self._timer, self._next_tick)
        count = epoll_wait(self._epoll, events, MAX_EVENTS, timeout_ms)
        self._now = monotonic()
        self._acceptor.undialed = 0
        for index in range(count):
            mark = events[index].data.u64
            if mark == WAKEUP:
                unwake(self._wakeup)
                self._woken = True
            elif mark == TIMER:
                self._armed_for = 0
            elif mark < FIRST_LISTENER + MAX_LISTENERS:
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
        self._tell_all_closed()
        self._tell_dialed()
        self._carry()
        while self._dialer.gone.first != NULL:
            self._tell_closed(take_first(&self._dialer.gone))
        while self._dialer.failed.first != NULL:
            self._tell_failed(take_first(&self._dialer.failed))
        self._ingress.tell_all_heard(self._now)
        self._tell_all_opened()
        self._acceptor.tell_pause()
        if self._woken:
            self._woken = False
            self._run_commands()
        is_due = self._now >= self._next_tick or (self._acceptor.paused and self._may_resume)
        if is_due and not self._stopping:
            self._tick()

    cdef object _tell_all_closed(self):
        """Tell who has ended at the byte threads, or shaken hands there."""
        cdef Session* session
        cdef Queue ended = self._workers.take_ended()
        if ended.first == NULL:
            return
        self._may_resume = True
        if self._closed.first == NULL:
            self._closed = ended
        else:  # telling them had been interrupted
            self._closed.last.next = ended.first
            self._closed.last = ended.last
        while self._closed.first != NULL:
            session = take_first(&self._closed)
            if session.ticket == NULL:
                self._ingress.tell_met(session, self._now, self._stopping)
            elif session.meets_backend:
                self._tell_backend_met(session)
            else:
                self._tell_closed(session)

    cdef object _run_commands(self):
        while self._commands:
            try:
                self._commands.popleft()()
            except Exception:
                log.bug("engine_command_failed")

    cdef object _tick(self):
        cdef int hurry
        self._may_resume = False
        self._dialer.expire(self._now)
        self._ingress.expire(self._now)
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
            or self._ingress.hears_anybody()
        )
        self._next_tick = self._now + (SHORT_TICK_MS if hurry else TICK_MS) / 1000.0

    cdef void _dial(self) noexcept nogil:
        """Begin the dials that the gate asked for."""
        self._now = self._dialer.dial()
        if self._dialer.shortage:
            self._acceptor.pause(self._dialer.shortage)
            self._dialer.shortage = 0

    cdef inline void _hurry(self) noexcept nogil:
        self._next_tick = min(self._next_tick, self._now + SHORT_TICK_MS / 1000.0)

    # -- what the gate is told ------------------------------------------------------------

    cdef object _tell_all_opened(self):
        """Take in who was accepted, and ask about all who are known."""
        cdef Session* session
        self._ingress.receive_all(self._now)
        while self._ingress.known.first != NULL:
            session = take_first(&self._ingress.known)
            self._tell_opened(session, self._ingress.about_of(session))
        while self._ingress.unwanted.first != NULL:
            self._turn_away(take_first(&self._ingress.unwanted))

    cdef object _tell_opened(self, Session* session, about):
        name = self._acceptor.name_of(session.listener)
        try:
            client, local = address_of(&session.client_address), None
            if self._acceptor.settings_of(session.listener).tells_local:
                local = local_address_of(session.client)
            answer = self._gate.opened(client, name, self._now, about, local)
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="opened")
            connects = False
        if not connects:
            self._turn_away(session)
            return
        self._live += 1
        self._follow(session, answer)

    cdef object _tell_failed(self, Session* session):
        cdef const char* why
        if session.state == CLOSED:
            self._tell_closed(session)
            return
        try:
            why = session.backend_tls.verify_error
            answer = self._gate.failed(
                <object>session.ticket,
                failure(session.code),
                self._now,
                (<bytes>why).decode("ascii", "replace") if why != NULL else "",
            )
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="failed")
            connects = False
        if connects:
            self._follow(session, answer)
        else:
            self._let_go(session)
            self._turn_away(session)

    cdef object _tell_dialed(self):
        """Tell who has answered, and let their bytes flow."""
        cdef Session* session
        while self._dialer.dialed.first != NULL:
            session = take_first(&self._dialer.dialed)
            if session.backend_tls.tls != NULL:
                self._meet_backend(session)
            else:
                self._tell_one_dialed(session)

    cdef object _tell_one_dialed(self, Session* session):
        try:
            secs = session.active_at - session.dialed_at if session.dialed_at else 0.0
            self._gate.dialed(<object>session.ticket, secs, self._now)
            push(&self._to_carry, session)
        except Exception:
            log.bug("gate_failed", call="dialed")
            self._dialer.abandon(session, FAULT)

    cdef void _meet_backend(self, Session* session) noexcept nogil:
        """Shake hands with a backend that has answered, after it was told who its client is."""
        if say_prefix(session, 0) != NO_REASON:
            self._dialer.give_up(session, ECONNRESET)
            return
        session.backend_tls.socket = session.backend
        session.meets_backend = True
        self._workers.meet(session)

    cdef object _tell_backend_met(self, Session* session):
        """A handshake with a backend is over."""
        cdef uint8_t reason = session.reason
        self._workers.take_back(session)
        session.worker = -1
        session.state = DIALING
        session.reason = NO_REASON
        session.meets_backend = False
        if session.is_unwanted or self._stopping:
            self._dialer.end(session, ABORTED)
        elif reason == NO_REASON:
            self._tell_one_dialed(session)
        else:
            self._dialer.give_up(session, ETIMEDOUT if reason == HANDSHAKE_TIMEOUT else EPROTO)

    cdef void _carry(self) noexcept nogil:
        """Let the bytes of those who have been answered flow."""
        if self._looks_for_idle and self._to_carry.first != NULL:
            self._hurry()  # its thread may have no other reason to learn of it
        cdef Session* session
        cdef uint8_t reason
        while self._to_carry.first != NULL:
            session = take_first(&self._to_carry)
            reason = carry_first(session, self._buffer)
            if reason == NO_REASON:
                self._workers.give(session)
            else:
                self._dialer.abandon(session, reason)

    cdef object _tell_closed(self, Session* session):
        if session.worker >= 0:
            self._workers.take_back(session)
        else:
            if session.client_tls.tls != NULL:
                if session.reason == ABORTED:
                    tls_say_end(&session.client_tls)
                end_tls(&session.client_tls)
            close(session.client)
        try:
            outcome = Outcome(
                REASONS[session.reason],
                session.upward.carried,
                session.downward.carried,
                self._now - session.started_at,
            )
            self._gate.closed(<object>session.ticket, outcome, self._now)
        except Exception:
            log.bug("gate_failed", call="closed")
        finally:
            self._let_go(session)
            release(&self._pool, session)

    cdef object _follow(self, Session* session, answer):
        """Note where the gate wants this session to be dialed."""
        ticket = answer.ticket
        Py_INCREF(ticket)
        if session.ticket != NULL:
            Py_DECREF(<object>session.ticket)
        session.ticket = <PyObject*>ticket
        end_tls(&session.backend_tls)  # that of an attempt before
        session.due_at = self._now
        try:
            session.preconnected_fd = answer.preconnected_fd
            session.due_at += answer.timeout_secs
            host, port = answer.address
            dialable = session.preconnected_fd >= 0 or set_address(
                &session.backend_address, host.encode(), port
            )
            self._note_prefix(session, answer.prefix)
            if answer.server_name:
                dialable = dialable and self._begin_backend_tls(session, answer.server_name)
        except (AttributeError, OverflowError, TypeError, ValueError):
            dialable = False
        if dialable:
            push(&self._dialer.wanted, session)
        else:
            if session.preconnected_fd >= 0:
                close(session.preconnected_fd)
                session.preconnected_fd = -1
            session.code = 0
            push(&self._dialer.failed, session)

    cdef bint _begin_backend_tls(self, Session* session, name) except -1:
        """Prepare TLS with the backend of a session. Return whether that can be."""
        encoded = name.encode("ascii")
        if self._backend_context is None:
            return False
        return self._backend_context.begin(&session.backend_tls, -1, encoded)

    cdef object _note_prefix(self, Session* session, bytes prefix):
        free(session.upward.waiting)
        session.upward.waiting = NULL
        if prefix and not keep(&session.upward, prefix, len(prefix)):
            raise MemoryError

    cdef object _turn_away(self, Session* session):
        """Close a client without a byte, and without a reset for what it has said."""
        cdef char[4096] said
        with nogil:
            if session.client_tls.tls != NULL:
                tls_say_end(&session.client_tls)
                end_tls(&session.client_tls)
            shutdown(session.client, SHUT_WR)
            while recv(session.client, said, sizeof(said), 0) == sizeof(said):
                pass
            close(session.client)
        release(&self._pool, session)

    # -- sessions -------------------------------------------------------------------------

    cdef object _let_go(self, Session* session):
        """Let go of the ticket of a session that the gate has heard the end of."""
        ticket = <object>session.ticket
        Py_DECREF(ticket)
        session.ticket = NULL
        end_tls(&session.backend_tls)
        free(session.upward.waiting)
        session.upward.waiting = NULL
        self._live -= 1

    def _list_sessions(self):
        return list_sessions(&self._pool)

    def _list_carried(self):
        return list_carried(&self._pool)

    def _close_sessions(self, wanted):
        cdef Session* session
        cdef uint32_t number
        for number in range(capacity(&self._pool)):
            session = session_at(&self._pool, number)
            if session.ticket == NULL:
                continue
            if wanted is not None and not wanted(<object>session.ticket):
                continue
            if session.worker >= 0:
                # A handshake may just be over: nobody hears then what is asked.
                session.is_unwanted = session.meets_backend
                self._workers.ask_to_end(session)
            elif session.backend >= 0:
                self._dialer.drop(session, ABORTED)
            elif session.state == DIALING:
                # It is on its way through a list, whose next reader sees this.
                session.state = CLOSED
                session.reason = ABORTED

    def _clean_up(self):
        self._run_commands()
        self._acceptor.close()
        with nogil:
            self._workers.stop()
        while self._acceptor.opened.first != NULL:
            self._turn_away(take_first(&self._acceptor.opened))
        self._ingress.close()
        while self._dialer.dialed.first != NULL:
            self._dialer.abandon(take_first(&self._dialer.dialed), ABORTED)
        while self._to_carry.first != NULL:
            self._dialer.abandon(take_first(&self._to_carry), ABORTED)
        self._close_sessions(None)
        with nogil:
            self._dial()
        self._tell()
        # With the lock held throughout: `live` and `call` may be asked by others meanwhile.
        close_pool(&self._pool)
        self._workers.let_go()
        free(self._buffer)
        close(self._epoll)
        close(self._timer)
        close(self._wakeup)
        self._wakeup = -1


cdef bint _connects(answer) except -1:
    """Return whether a gate wants this client connected. Raises TypeError for no answer."""
    if isinstance(answer, Connect):
        return True
    if isinstance(answer, Refuse):
        return False
    raise TypeError(f"a gate answers Connect or Refuse, not {answer!r}")
