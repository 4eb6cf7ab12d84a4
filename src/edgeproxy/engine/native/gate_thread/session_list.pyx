# cython: language_level=3, cdivision=True
"""Lists the sessions of an engine, on the gate thread, which alone releases tickets.

It lists them in slices, since clients wait for the gate thread meanwhile. A session keeps its
place, so none that lives throughout is missed or comes twice. What it reads of a session that a
byte thread has may be a moment old.
"""

from edgeproxy.engine.contract import SessionEnds, SessionInfo
from edgeproxy.engine.listener import plain
from edgeproxy.engine.session_states import SessionState

from libc.stdint cimport uint8_t, uint32_t

from edgeproxy.engine.native.gate_thread.acceptor cimport address_of, local_address_of
from edgeproxy.engine.native.syscalls cimport monotonic
from edgeproxy.engine.native.session cimport CLOSED, DONE, OPEN, Session, capacity, session_at
from edgeproxy.engine.native.system cimport AF_UNIX, ntohs, sockaddr_in6

DIALING_TEXT = SessionState.DIALING.value
OPEN_TEXT = SessionState.OPEN.value
HALF_CLOSED_TEXT = SessionState.HALF_CLOSED.value


cdef enum:
    LISTED_AT_ONCE = 128  # sessions in a slice: under 0.5 ms
    COUNTED_AT_ONCE = 1024


cdef object list_sessions(Pool* pool, uint32_t slice_number):
    """Return a slice of what `Engine.sessions` returns, None after the last."""
    cdef Session* session
    cdef uint32_t number
    cdef uint8_t state
    cdef uint32_t first = slice_number * LISTED_AT_ONCE
    cdef uint32_t most = capacity(pool)
    if first >= most:
        return None
    now = monotonic()
    infos = []
    for number in range(first, min(first + LISTED_AT_ONCE, most)):
        session = session_at(pool, number)
        half_closed = (session.upward.flags | session.downward.flags) & DONE
        state = session.state  # read once: its byte thread may be ending it meanwhile
        if session.ticket == NULL or state == CLOSED:  # the gate is about to be told
            continue
        infos.append(
            SessionInfo(
                <object>session.ticket,
                address_of(&session.client_address),
                HALF_CLOSED_TEXT if half_closed else OPEN_TEXT if state == OPEN else DIALING_TEXT,
                session.upward.carried,
                session.downward.carried,
                now - session.started_at,
            )
        )
    return infos


cdef object list_carried(Pool* pool, uint32_t slice_number):
    """Return a slice of what `Engine.carried` returns, None after the last."""
    cdef Session* session
    cdef uint32_t number
    cdef uint32_t first = slice_number * COUNTED_AT_ONCE
    cdef uint32_t most = capacity(pool)
    if first >= most:
        return None
    found = []
    for number in range(first, min(first + COUNTED_AT_ONCE, most)):
        session = session_at(pool, number)
        if session.ticket != NULL:
            found.append(
                (<object>session.ticket, session.upward.carried, session.downward.carried)
            )
    return found


cdef object list_unanswered(Pool* pool):
    """Return what `Engine.unanswered` returns."""
    cdef Session* session
    cdef uint32_t number
    now = monotonic()
    found = []
    for number in range(capacity(pool)):
        session = session_at(pool, number)
        if session.ticket == NULL or session.state == CLOSED or session.downward.carried:
            continue
        found.append(
            (
                <object>session.ticket,
                port_of(&session.client_address),
                bool((session.upward.flags | session.downward.flags) & DONE),
                now - session.started_at,
            )
        )
    return found


cdef int port_of(sockaddr_in6* address) noexcept nogil:
    """Return the port of an address, which IPv4 and IPv6 have at the same place."""
    return 0 if address.sin6_family == AF_UNIX else ntohs(address.sin6_port)


cdef object list_ends(Pool* pool, wanted):
    """Return what `Engine.ends` returns."""
    cdef Session* session
    cdef uint32_t number
    found = []
    for number in range(capacity(pool)):
        session = session_at(pool, number)
        if session.ticket != NULL and <object>session.ticket in wanted:
            found.append(
                SessionEnds(
                    <object>session.ticket,
                    _plain(address_of(&session.client_address)),
                    _plain(local_address_of(session.client)),
                    _plain(local_address_of(session.backend)),
                )
            )
    return found


cdef object _plain(address):
    """Return an address and its port as the gate knows clients; None as it is."""
    return None if address is None else (plain(address[0]), address[1])
