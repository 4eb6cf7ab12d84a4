# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TLS handshakes on a byte thread: with clients, before the gate is asked, and with backends.

A slow peer delays no other session, and a client holds no slot of a backend during its own
handshake. When a handshake is over, the session goes back to the gate thread, which dials, or lets
bytes flow.
"""

from edgeproxy.engine.native.session cimport (
    CLIENT_GONE,
    CLOSED,
    HANDSHAKE_FAILED,
    HANDSHAKE_TIMEOUT,
    HANDSHAKEN,
    NO_REASON,
    TlsEnd,
    push,
    unlink,
)
from edgeproxy.engine.native.tls.tls_end cimport (
    DEPARTED,
    SHAKEN,
    SHAKING,
    shake_hands,
    tls_part,
)
from edgeproxy.engine.native.byte_thread.worker cimport (
    BUFFER_BYTES,
    SHORT_TICK_MS,
    TICK_MS,
    tick_by,
)

cdef void advance(Worker* worker, Session* session) noexcept nogil:
    """Go on with a handshake."""
    cdef TlsEnd* end = &session.backend_tls if session.meets_backend else &session.client_tls
    cdef int how = shake_hands(end)
    if how == SHAKEN:
        unlink(&worker.meeting, session)
        session.reason = NO_REASON
        session.state = HANDSHAKEN
        push(&worker.finished, session)
    elif how != SHAKING:
        tls_part(end, worker.buffer, BUFFER_BYTES)
        fail(worker, session, CLIENT_GONE if how == DEPARTED else HANDSHAKE_FAILED)

cdef void fail(Worker* worker, Session* session, uint8_t reason) noexcept nogil:
    """End a failed handshake: a client is closed; the gate thread gives up a backend."""
    unlink(&worker.meeting, session)
    session.state = HANDSHAKEN if session.meets_backend else CLOSED
    session.reason = reason
    push(&worker.finished, session)

cdef void expire_handshakes(Worker* worker) noexcept nogil:
    """Fail the handshakes that have taken too long."""
    cdef Session* session = worker.meeting.first
    cdef Session* next
    cdef double soonest = 0
    while session != NULL:
        next = session.next
        if session.due_at <= worker.judged_at:
            fail(worker, session, HANDSHAKE_TIMEOUT)
        elif soonest == 0 or session.due_at < soonest:
            soonest = session.due_at
        session = next
    if soonest > 0:
        # Often enough to notice a standstill.
        tick_by(worker, min(soonest + SHORT_TICK_MS / 1000.0, worker.now + TICK_MS / 1000.0))
