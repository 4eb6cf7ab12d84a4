# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The first bytes of a session, carried on the gate thread as soon as its backend has answered.

So the byte thread that will carry the rest is not woken for them. With TLS, it carries the first
bytes, too.
"""

from libc.errno cimport EAGAIN, EINTR, ETIMEDOUT, errno
from libc.stdlib cimport free

from edgeproxy.engine.native.syscalls cimport set_option
from edgeproxy.engine.native.byte_thread.relay cimport keep, speaks_tls
from edgeproxy.engine.native.session cimport (
    BACKEND_RESET,
    BLOCKED,
    CLIENT_RESET,
    FAULT,
    Flow,
    NO_REASON,
    SINK_WATCHED,
    TIMED_OUT,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.byte_thread.worker cimport BUFFER_BYTES

cdef uint8_t say_prefix(Session* session, int more) noexcept nogil:
    """Send the backend its prefix, if any. Return why the session has to end, or NO_REASON.

    A new connection takes this much: its buffer is empty.
    """
    cdef Flow* flow = &session.upward
    cdef ssize_t sent
    if flow.waiting == NULL:
        return NO_REASON
    sent = send(flow.sink, flow.waiting, flow.waiting_size, MSG_NOSIGNAL | more)
    free(flow.waiting)
    flow.waiting = NULL
    return NO_REASON if sent == <ssize_t>flow.waiting_size else BACKEND_RESET

cdef uint8_t carry_first(Session* session, char* buffer) noexcept nogil:
    """Send the backend its prefix, and what the client has sent while it was being dialed.

    Return why the session has to end, or NO_REASON. If the backend does not take the client's
    bytes, the byte thread finds out why.
    """
    cdef Flow* flow = &session.upward
    cdef ssize_t size = 0, sent
    cdef int code
    if not speaks_tls(session):
        size = recv(flow.source, buffer, BUFFER_BYTES, 0)
    code = errno
    if say_prefix(session, MSG_MORE if size > 0 else 0) != NO_REASON:
        return BACKEND_RESET
    if size > 0:
        sent = max(send(flow.sink, buffer, size, MSG_NOSIGNAL), 0)
    if session.quickack_off:  # it was off for the packet that has just left, not for answers
        set_option(flow.sink, IPPROTO_TCP, TCP_QUICKACK, 1)
    if size < 0 and code != EAGAIN and code != EINTR:
        session.ended_by = CLIENT_RESET
        return TIMED_OUT if code == ETIMEDOUT else CLIENT_RESET
    if size <= 0:
        return NO_REASON
    flow.carried = sent
    if sent < size:
        flow.flags |= BLOCKED | SINK_WATCHED
        if not keep(flow, buffer + sent, size - sent):
            return FAULT
    return NO_REASON
