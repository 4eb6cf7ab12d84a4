# cython: language_level=3, cdivision=True
"""Clients before the gate is asked for a backend; the twin of `portable/ingress/ingress`.

Accepted → preread, if its listener wants a preamble → handshake on a byte thread, if it speaks
TLS → identified. If there is either, the gate says first whether the client may begin. A client in
here holds a descriptor and nothing else of the engine.
"""

from edgeproxy.engine.contract import (
    PREAMBLE_BYTES,
    CloseReason,
    Enter,
    HandshakeFailure,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
)
from edgeproxy.log import EventLog

from libc.errno cimport errno

from edgeproxy.engine.native.gate_thread.acceptor cimport client_of
from edgeproxy.engine.native.gate_thread.dialer cimport set_address
from edgeproxy.engine.native.session cimport (
    CLIENT_GONE,
    DIALING,
    HANDSHAKE_TIMEOUT,
    HANDSHAKEN,
    push,
    release,
    take_first,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport tls_info
from edgeproxy.engine.native.tls.context cimport TlsContext

log = EventLog("engine")

cdef double FOREVER = float("inf")


cdef class Ingress:
    """All clients that the gate has not been asked about. Used on the gate thread only.

    Attributes:
        identified: Clients that the gate may be asked about; see `take_client`.
        unwanted: Clients to close without a reset.
    """

    cdef object prepare(
        self, gate, Acceptor acceptor, Workers workers, Pool* pool, char* buffer, int epoll
    ):
        """Take the clients of `acceptor`. `buffer` has room for a preamble."""
        self._gate = gate
        self._acceptor = acceptor
        self._workers = workers
        self._pool = pool
        self._buffer = buffer
        self._clients = {}  # the `Client` of each session in here, by its number
        self._preread = Preread()
        self._preread.prepare(epoll)

    cdef long count(self) noexcept nogil:
        """Return the number of clients before admission."""
        return self._preread.count + self._handshaking

    cdef bint is_prereading(self) noexcept nogil:
        """Return whether any client is in preread, where it may take too long."""
        return self._preread.count > 0

    cdef bint is_to_tell(self) noexcept nogil:
        """Return whether the gate is to be asked about a preamble."""
        return self._preread.ready.first != NULL

    cdef void happened(self, Session* session, uint32_t mask) noexcept nogil:
        """Something happened to a client in preread."""
        self._preread.happened(session, mask)

    cdef void excuse(self, double secs) noexcept nogil:
        """Let clients in preread take longer by the seconds in which this process stood still."""
        self._preread.excuse(secs)

    cdef void expire(self, double now) noexcept nogil:
        """Have the gate asked about clients whose preread time is over."""
        self._preread.expire(now)

    cdef object receive_all(self, double now):
        """Take all accepted clients."""
        cdef Session* session
        while self._acceptor.opened.first != NULL:
            session = take_first(&self._acceptor.opened)
            listener = self._acceptor.listener_at(session.listener)
            client = client_of(session, listener)
            settings = listener.settings
            secs = settings.preamble_secs
            if not secs and settings.tls is None:
                self._clients[session.number] = client
                push(&self.identified, session)
                continue
            client = self._let_in(client, now)
            if client is None:
                push(&self.unwanted, session)
            elif not secs:
                self._begin_handshake(session, client, now)
            elif self._preread.add(session, secs):
                self._clients[session.number] = client
            else:
                self._acceptor.pause(errno)
                self._give_up(session, client, now)

    cdef object _let_in(self, client, double now):
        """Ask the gate whether a client may begin. Return it with what the gate said, or None."""
        try:
            answer = self._gate.arrived(client, now)
            if isinstance(answer, Refuse):
                return None
            if not isinstance(answer, Enter):
                raise TypeError(f"a gate answers Enter or Refuse, not {answer!r}")
        except Exception:
            log.bug("gate_failed", call="arrived")
            return None
        return client._replace(entry=answer.entry)

    cdef object tell_all_preread(self, double now):
        """Ask the gate about the preambles that are ready."""
        while self._preread.ready.first != NULL:
            self._tell_preread(take_first(&self._preread.ready), now)

    cdef object tell_handshake_over(self, Session* session, double now, bint is_stopping):
        """A handshake is over: the gate may be asked about the client, or learns that it is lost."""
        self._handshaking -= 1
        self._workers.take_back(session)
        session.worker = -1
        client = self.take_client(session)
        if session.state != HANDSHAKEN:
            self._tell_lost(session, client, now, is_stopping)
            return
        session.state = DIALING
        if is_stopping:
            self._give_up(session, client, now)
            return
        self._clients[session.number] = client.over_tls(tls_info(&session.client_tls))
        push(&self.identified, session)

    cdef object take_client(self, Session* session):
        """Return the `Client` of a session that leaves its stage."""
        return self._clients.pop(session.number)

    cdef object close(self, double now):
        """Turn all clients away."""
        cdef Session* session
        while self.identified.first != NULL:
            session = take_first(&self.identified)
            client = self.take_client(session)
            settings = self._acceptor.listener_at(session.listener).settings
            if settings.preamble_secs or settings.tls is not None:
                self._give_up(session, client, now)
            else:  # the gate has not been asked about it
                push(&self.unwanted, session)
        self._preread.expire(FOREVER)
        while self._preread.ready.first != NULL:
            session = take_first(&self._preread.ready)
            self._preread.drop(session)
            self._give_up(session, self.take_client(session), now)

    cdef object _tell_preread(self, Session* session, double now):
        """Ask the gate about one preamble, unless it wants more bytes first."""
        cdef ssize_t size = recv(session.client, self._buffer, PREAMBLE_BYTES, MSG_PEEK)
        cdef bint is_late = session.due_at <= now
        cdef bint is_all = session.read_ended or is_late or size >= PREAMBLE_BYTES
        size = max(size, 0)
        if size < session.bytes_wanted and not is_all:
            self._preread.go_on(session, session.bytes_wanted)
            return
        client = self._clients[session.number]
        try:
            preamble = Preamble(
                self._buffer[:size], bool(is_all), bool(session.read_ended)
            )
            answer = self._gate.preamble_read(client, preamble, now)
            if isinstance(answer, NeedMore) and not is_all:
                self._preread.go_on(session, max(answer.bytes_wanted, size + 1))
                return
            if not isinstance(answer, (Identified, NeedMore, Refuse)):
                raise TypeError(f"a gate answers NeedMore, Identified or Refuse, not {answer!r}")
        except Exception:
            log.bug("gate_failed", call="heard")
            answer = None
        self._preread.drop(session)
        self.take_client(session)
        session.state = DIALING
        if isinstance(answer, Refuse):
            push(&self.unwanted, session)
            return
        if not isinstance(answer, Identified):
            self._give_up(session, client, now)
            return
        if answer.skip:
            recv(session.client, self._buffer, min(<ssize_t>answer.skip, size), 0)
        if answer.source is not None:
            set_address(&session.client_address, answer.source[0].encode(), answer.source[1])
        self._begin_handshake(session, client.identified(answer), now)

    cdef object _begin_handshake(self, Session* session, client, double now):
        """Begin the handshake with an identified client, if its listener speaks TLS."""
        listener = self._acceptor.listener_at(session.listener)
        cdef TlsContext tls = listener.tls
        if tls is not None and not tls.begin(&session.client_tls, session.client):
            self._give_up(session, client, now)
            return
        self._clients[session.number] = client
        if tls is None:
            push(&self.identified, session)
            return
        self._handshaking += 1
        session.due_at = now + listener.settings.tls.handshake_secs
        self._workers.meet(session)

    cdef object _give_up(self, Session* session, client, double now):
        """Turn a client away that the gate has let in, and tell the gate."""
        self._tell_gone(client, CloseReason.ABORTED, now)
        push(&self.unwanted, session)

    cdef object _tell_lost(self, Session* session, client, double now, bint is_stopping):
        """Tell the gate that a client is lost: its handshake has failed."""
        reason = HandshakeFailure.HANDSHAKE_FAILED
        if session.reason == HANDSHAKE_TIMEOUT:
            reason = HandshakeFailure.HANDSHAKE_TIMEOUT
        elif session.reason == CLIENT_GONE:
            reason = HandshakeFailure.CLIENT_GONE
        self._tell_gone(client, CloseReason.ABORTED if is_stopping else reason, now)
        release(self._pool, session)

    cdef object _tell_gone(self, client, reason, double now):
        try:
            self._gate.client_lost(client, reason, now)
        except Exception:
            log.bug("gate_failed", call="left")
