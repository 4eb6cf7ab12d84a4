# cython: language_level=3, cdivision=True
"""The sessions of the native engine, from the gate's first answer to its last `closed`.

The twin of `portable/sessions`. It follows the table of `engine/session_states`, and tells the
gate what happened. What happened is collected in queues without the interpreter lock; the
methods `tell_*` empty them with it. All of it is on the gate thread.

The gate is told `closed` when the sockets are closed, so that a slot is free only when the
backend's connection is gone. A gate must not raise. If it does, the client concerned is closed
and all others are still served, as with `engine/guarded_gate` in the portable engine.
"""

from edgeproxy.engine.contract import CloseReason, Connect, Refuse, Wait
from edgeproxy.engine.session_states import Outcome, Side
from edgeproxy.engine.dial import failure
from edgeproxy.log import EventLog

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ECONNRESET, EPROTO, ETIMEDOUT
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free
from posix.unistd cimport close

from edgeproxy.engine.native.byte_thread.relay cimport keep
from edgeproxy.engine.native.gate_thread.dialer cimport set_address
from edgeproxy.engine.native.gate_thread.first_bytes cimport carry_first, say_prefix
from edgeproxy.engine.native.session cimport (
    ABORTED,
    BACKEND_RESET,
    CLIENT_GONE,
    CLIENT_RESET,
    CLOSED,
    DIALING,
    FAULT,
    HANDSHAKE_TIMEOUT,
    NO_REASON,
    capacity,
    push,
    release,
    session_at,
    take_first,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport end_tls, tls_say_end

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

SIDES = {CLIENT_RESET: Side.CLIENT, CLIENT_GONE: Side.CLIENT, BACKEND_RESET: Side.BACKEND}
ENDED_BY = tuple(map(SIDES.get, range(len(REASONS))))  # by reason; else `Session.ended_by` tells


cdef class Sessions:
    """All sessions of an engine. Used on the gate thread only.

    Attributes:
        now: Monotonic seconds of this turn of the loop; the loop sets it.
        live: The number of sessions whose end the gate does not know yet.
        slot_queue: Clients that wait for a slot.
        to_carry: Sessions whose backends have answered and whose bytes do not flow yet.
    """

    cdef object prepare(
        self,
        gate,
        Acceptor acceptor,
        Dialer dialer,
        Workers workers,
        Ingress ingress,
        Pool* pool,
        char* buffer,
    ):
        """Take clients from `ingress`. `buffer` has room for BUFFER_BYTES."""
        self._gate = gate
        self._acceptor = acceptor
        self._dialer = dialer
        self._workers = workers
        self._ingress = ingress
        self._pool = pool
        self._buffer = buffer
        self.slot_queue = SlotQueue()
        self.slot_queue.prepare(workers)

    cdef object trust(self, BackendContext context):
        """Speak TLS with backends by this context from now on."""
        self._backend_context = context

    # -- what the gate is told --------------------------------------------------------

    cdef bint tell_all_closed(self, bint is_stopping) except -1:
        """Tell the gate what ended on the byte threads: sessions, and handshakes.

        Return whether anything did, so that there are descriptors again.
        """
        cdef Session* session
        cdef Queue ended = self._workers.take_ended()
        if ended.first == NULL:
            return False
        if self._closed.first == NULL:
            self._closed = ended
        else:  # an exception has interrupted this method before
            self._closed.last.next = ended.first
            self._closed.last = ended.last
        while self._closed.first != NULL:
            session = take_first(&self._closed)
            if session.ticket == NULL:
                self._ingress.tell_handshake_over(session, self.now, is_stopping)
            elif session.meets_backend:
                self._tell_backend_met(session, is_stopping)
            else:
                self._tell_closed(session)
        return True

    cdef object tell_ended_dials(self):
        """Tell the gate which sessions ended while dialing, and which dials failed."""
        while self._dialer.gone.first != NULL:
            self._tell_closed(take_first(&self._dialer.gone))
        while self._dialer.failed.first != NULL:
            self._tell_failed(take_first(&self._dialer.failed))

    cdef object tell_all_waiting(self):
        """Ask the gate again about clients for whom a slot may be free now."""
        cdef Session* session
        if not self.slot_queue.begin_turn():
            return
        session = self.slot_queue.next_to_ask(self.now)
        while session != NULL:
            self._tell_again(session)
            session = self.slot_queue.next_to_ask(self.now)
        self.slot_queue.end_turn()

    cdef object tell_all_opened(self):
        """Take in accepted clients, and ask the gate about all that are identified."""
        cdef Session* session
        self._ingress.receive_all(self.now)
        while self._ingress.identified.first != NULL:
            session = take_first(&self._ingress.identified)
            self._tell_opened(session, self._ingress.take_client(session))
        while self._ingress.unwanted.first != NULL:
            self._acceptor.turn_away(take_first(&self._ingress.unwanted), self.now)

    cdef object _tell_opened(self, Session* session, client):
        try:
            answer = self._gate.opened(client, self.now)
            if isinstance(answer, Wait):
                if self.slot_queue.has_room(answer):
                    self.slot_queue.add(session, answer, self.now)
                    return
                answer = self._gate.asked_again(answer.place, self.now, is_last=True)
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="opened")
            connects = False
        self._admit_or_turn_away(session, answer if connects else None)

    cdef object _tell_again(self, Session* session):
        """Ask the gate again about a client that waits for a slot."""
        is_last = bool(self.slot_queue.is_last)
        try:
            answer = self._gate.asked_again(self.slot_queue.place, self.now, is_last=is_last)
            if isinstance(answer, Wait) and not is_last:
                self.slot_queue.put_back(session, answer)
                return
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="asked_again")
            connects = False
        session.state = DIALING
        self._admit_or_turn_away(session, answer if connects else None)

    cdef object _admit_or_turn_away(self, Session* session, answer):
        if answer is None:
            self._acceptor.turn_away(session, self.now)
        else:
            self.live += 1
            self._follow(session, answer)

    cdef object _tell_failed(self, Session* session):
        cdef const char* why
        if session.state == CLOSED:
            self._tell_closed(session)
            return
        self.slot_queue.note_end(self._gate, <object>session.ticket)
        try:
            why = session.backend_tls.verify_error
            answer = self._gate.failed(
                <object>session.ticket,
                failure(session.code),
                self.now,
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
            self._acceptor.turn_away(session, self.now)

    cdef object tell_dialed(self):
        """Tell the gate which backends have answered. `carry` lets their bytes flow."""
        cdef Session* session
        while self._dialer.dialed.first != NULL:
            session = take_first(&self._dialer.dialed)
            if session.backend_tls.tls != NULL:
                self._meet_backend(session)
            else:
                self._tell_one_dialed(session)

    cdef object _tell_one_dialed(self, Session* session):
        try:
            secs = session.active_at - session.began_at if session.began_at else 0.0
            session.began_at = 0
            self._gate.dialed(<object>session.ticket, secs, self.now)
            push(&self.to_carry, session)
        except Exception:
            log.bug("gate_failed", call="dialed")
            self._dialer.abandon(session, FAULT)

    cdef void _meet_backend(self, Session* session) noexcept nogil:
        """Begin the handshake with a backend that has answered, after its prefix."""
        if say_prefix(session, 0) != NO_REASON:
            self._dialer.give_up(session, ECONNRESET)
            return
        session.backend_tls.socket = session.backend
        session.meets_backend = True
        self._workers.meet(session)

    cdef object _tell_backend_met(self, Session* session, bint is_stopping):
        """A handshake with a backend is over."""
        cdef uint8_t reason = session.reason
        self._workers.take_back(session)
        session.worker = -1
        session.state = DIALING
        session.reason = NO_REASON
        session.meets_backend = False
        if session.is_unwanted or is_stopping:
            self._dialer.end(session, ABORTED)
        elif reason == NO_REASON:
            self._tell_one_dialed(session)
        else:
            self._dialer.give_up(session, ETIMEDOUT if reason == HANDSHAKE_TIMEOUT else EPROTO)

    cdef void carry(self) noexcept nogil:
        """Let bytes flow in the sessions whose backends have answered."""
        cdef Session* session
        cdef uint8_t reason
        while self.to_carry.first != NULL:
            session = take_first(&self.to_carry)
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
        self.slot_queue.note_end(self._gate, <object>session.ticket)
        try:
            secs, first_secs = self.now - session.started_at, None
            if session.downward.carried:  # the clock of a byte thread may be a moment ahead
                first_secs = min(max(session.began_at - session.started_at, 0.0), secs)
            outcome = Outcome(
                REASONS[session.reason],
                session.upward.carried,
                session.downward.carried,
                secs,
                first_secs,
                ENDED_BY[session.reason] or ENDED_BY[session.ended_by],
            )
            self._gate.closed(<object>session.ticket, outcome, self.now)
        except Exception:
            log.bug("gate_failed", call="closed")
        finally:
            self._let_go(session)
            release(self._pool, session)

    cdef object _follow(self, Session* session, answer):
        """Dial the backend that the gate has named for this session."""
        ticket = answer.ticket
        Py_INCREF(ticket)
        if session.ticket != NULL:
            Py_DECREF(<object>session.ticket)
        session.ticket = <PyObject*>ticket
        end_tls(&session.backend_tls)  # that of the previous attempt
        session.due_at = self.now
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
        """Prepare TLS with the backend of a session. Return whether that is possible."""
        encoded = name.encode("ascii")
        if self._backend_context is None:
            return False
        return self._backend_context.begin(&session.backend_tls, -1, encoded, &session.client_tls)

    cdef object _note_prefix(self, Session* session, bytes prefix):
        free(session.upward.waiting)
        session.upward.waiting = NULL
        if prefix and not keep(&session.upward, prefix, len(prefix)):
            raise MemoryError

    # -- the end ----------------------------------------------------------------------

    cdef object _let_go(self, Session* session):
        """Release the ticket of a session, now that the gate knows of its end."""
        Py_DECREF(<object>session.ticket)
        session.ticket = NULL
        end_tls(&session.backend_tls)
        free(session.upward.waiting)
        session.upward.waiting = NULL
        self.live -= 1

    cdef object close_sessions(self, wanted):
        """End the sessions whose ticket is `wanted` (None: all), `ABORTED`."""
        cdef Session* session
        cdef uint32_t number
        for number in range(capacity(self._pool)):
            session = session_at(self._pool, number)
            if session.ticket == NULL:
                continue
            if wanted is not None and not wanted(<object>session.ticket):
                continue
            if session.worker >= 0:
                # If a handshake has just ended, its byte thread ignores the request.
                session.is_unwanted = session.meets_backend
                self._workers.ask_to_end(session)
            elif session.backend >= 0:
                self._dialer.drop(session, ABORTED)
            elif session.state == DIALING:
                # It waits in a queue; what takes it from there sees this state.
                session.state = CLOSED
                session.reason = ABORTED

    cdef object close_all(self):
        """Turn away all clients before admission, and end all sessions that this thread owns.

        The byte threads have ended. Sessions that wait to be dialed end in the next `Dialer.dial`.
        """
        cdef Queue waiting = self.slot_queue.give_up_all()
        while self._acceptor.opened.first != NULL:
            self._acceptor.turn_away(take_first(&self._acceptor.opened), self.now)
        while waiting.first != NULL:
            self._acceptor.turn_away(take_first(&waiting), self.now)
        self._ingress.close(self.now)
        while self._dialer.dialed.first != NULL:
            self._dialer.abandon(take_first(&self._dialer.dialed), ABORTED)
        while self.to_carry.first != NULL:
            self._dialer.abandon(take_first(&self.to_carry), ABORTED)
        self.close_sessions(None)


cdef bint _connects(answer) except -1:
    """Return whether an answer is Connect. Raises TypeError if it is not Refuse either."""
    if isinstance(answer, Connect):
        return True
    if isinstance(answer, Refuse):
        return False
    raise TypeError(f"a gate answers Connect or Refuse, not {answer!r}")
