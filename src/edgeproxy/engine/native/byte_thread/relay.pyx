# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Carries the bytes of a flow, and ends its session; never touches a Python object.

The twin of `portable/relay`, where the rules are explained; the conformance suite runs over both.
All of it runs on the byte thread that the session belongs to.
"""

from libc.errno cimport EAGAIN, EINTR, ENOMEM, EPROTO, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from edgeproxy.engine.native.syscalls cimport reset_on_close, set_option, unread_bytes
from edgeproxy.engine.native.session cimport (
    BACKEND_RESET,
    BLOCKED,
    BULK,
    CLIENT_RESET,
    CLOSED,
    DONE,
    ENDING,
    FAULT,
    FINISHED,
    INTEREST,
    NO_REASON,
    PARTING,
    PROMPT,
    SINK_WATCHED,
    TIMED_OUT,
    TLS_ERROR,
    TlsEnd,
    URGED,
    push,
    unlink,
    mark_of,
    wait_until_watched,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport (
    tls_flush,
    tls_has_unread,
    tls_has_unsent,
    tls_is_drained,
    tls_part,
    tls_read,
    tls_say_end,
    tls_write,
)
from edgeproxy.engine.native.byte_thread.worker cimport (
    BUFFER_BYTES,
    PIPE_BYTES,
    again,
    borrow_pipe,
    return_pipe,
    linger_close,
)

# The same figures as in the portable engine, where they are explained.
cdef enum:
    READS_PER_TURN = 4
    BULK_READS = 8
    CHATTY_READS = 8
    CHATTY_BYTES = 8192

cdef unsigned SPLICE_FLAGS = SPLICE_F_NONBLOCK | SPLICE_F_MOVE

cdef bint speaks_tls(Session* session) noexcept nogil:
    return session.client_tls.tls != NULL or session.backend_tls.tls != NULL

cdef inline TlsEnd* source_tls(Flow* flow) noexcept nogil:
    """Return the end where a flow reads, if it speaks TLS, else NULL."""
    cdef Session* session = flow.session
    cdef TlsEnd* end = &session.client_tls if flow == &session.upward else &session.backend_tls
    return end if end.tls != NULL else NULL

cdef inline TlsEnd* sink_tls(Flow* flow) noexcept nogil:
    """Return the end where a flow writes, if it speaks TLS, else NULL."""
    return source_tls(flow.reverse)

cdef void pump(Worker* worker, Flow* flow) noexcept nogil:
    """Carry what can be carried now."""
    cdef ssize_t size
    cdef int turn, more
    if flow.flags & DONE or (flow.flags & BLOCKED and not unblock(worker, flow)):
        return
    if flow.flags & BULK:
        carry_bulk(worker, flow)
        return
    for turn in range(READS_PER_TURN):
        if source_tls(flow) != NULL:
            size = tls_read(source_tls(flow), worker.buffer, BUFFER_BYTES)
        else:
            size = recv(flow.source, worker.buffer, BUFFER_BYTES, 0)
        if size < 0:
            if errno == EAGAIN:
                flow.flags &= ~<uint32_t>URGED
                return
            if errno == EINTR:
                break
            source_failed(worker, flow, errno)
            return
        if size == 0:
            source_ended(worker, flow)
            return
        # The end is next: it leaves in one packet with the last bytes, which wait for it.
        more = MSG_MORE if flow.flags & ENDING and turn + 1 < READS_PER_TURN else 0
        if not deliver(worker, flow, worker.buffer, size, more):
            return
        if source_tls(flow) != NULL:
            if tls_is_drained(source_tls(flow)) and not flow.flags & URGED:
                return
        elif size < BUFFER_BYTES:
            flow.streak = 0
            if not flow.flags & URGED:
                return
        elif sink_tls(flow) == NULL:  # without TLS, bytes can be spliced without reading them
            flow.streak += 1
            if flow.streak >= BULK_READS:
                flow.flags |= BULK
                flow.streak = 0
                break
    again(worker, flow)

cdef int deliver(
    Worker* worker, Flow* flow, char* data, ssize_t size, int more
) noexcept nogil:
    """Hand bytes to the sink; keep what it does not take. Return whether to go on."""
    cdef ssize_t sent
    if not flow.flags & PROMPT:
        send_at_once(flow)
    if sink_tls(flow) != NULL:
        sent = tls_write(sink_tls(flow), data, size)
    else:
        sent = send(flow.sink, data, size, MSG_NOSIGNAL | more)
    if sent == size:
        count(worker, flow, sent)
        if sink_tls(flow) == NULL or not tls_has_unsent(sink_tls(flow)):
            return True
        free(flow.waiting)
        flow.waiting = NULL
        block(worker, flow)
        return False
    if sent < 0:
        if errno != EAGAIN:
            sink_failed(worker, flow, errno)
            return False
        sent = 0
    count(worker, flow, sent)
    if data != worker.buffer:
        flow.waiting_at += sent
    elif not keep(flow, data + sent, size - sent):
        sink_failed(worker, flow, ENOMEM)
        return False
    block(worker, flow)
    return False

cdef inline void count(Worker* worker, Flow* flow, ssize_t sent) noexcept nogil:
    """Count bytes that the sink has taken, and note when the first one of a backend was."""
    if not flow.carried and sent > 0 and flow == &flow.session.downward:
        flow.session.began_at = worker.now
    flow.carried += sent

cdef void send_at_once(Flow* flow) noexcept nogil:
    """Set TCP_NODELAY on the sink, after its first bytes: these leave at once without it."""
    if flow.carried:
        set_option(flow.sink, IPPROTO_TCP, TCP_NODELAY, 1)
        flow.flags |= PROMPT

cdef int keep(Flow* flow, char* data, size_t size) noexcept nogil:
    """Keep bytes until the sink takes them. Return False if memory is short."""
    flow.waiting = <char*>malloc(size)
    if flow.waiting == NULL:
        return False
    memcpy(flow.waiting, data, size)
    flow.waiting_at = 0
    flow.waiting_size = size
    return True

cdef void block(Worker* worker, Flow* flow) noexcept nogil:
    """Wait until the sink takes more."""
    cdef epoll_event event
    flow.flags |= BLOCKED
    if not flow.flags & SINK_WATCHED:
        flow.flags |= SINK_WATCHED
        event.events = INTEREST | EPOLLOUT
        event.data.u64 = mark_of(flow.reverse)
        wait_until_watched(flow.session)
        if epoll_ctl(worker.epoll, EPOLL_CTL_MOD, flow.sink, &event) < 0:
            finish(worker, flow.session, FAULT, True)  # the sink would bring no event

cdef int unblock(Worker* worker, Flow* flow) noexcept nogil:
    """Hand over what was waiting. Return whether the sink has taken all of it."""
    cdef int flushed
    flow.flags &= ~<uint32_t>BLOCKED
    if sink_tls(flow) != NULL:
        flushed = tls_flush(sink_tls(flow))
        if flushed < 0:
            sink_failed(worker, flow, errno)
            return False
        if not flushed:
            block(worker, flow)
            return False
    if flow.waiting != NULL:
        if not deliver(
            worker, flow, flow.waiting + flow.waiting_at, flow.waiting_size - flow.waiting_at, 0
        ):
            return False
        free(flow.waiting)
        flow.waiting = NULL
    if flow.flags & PARTING:
        flow.flags &= ~<uint32_t>PARTING
        source_ended(worker, flow)
        return False
    return not flow.piped or drain_pipe(worker, flow)

# -- bulk: from socket to socket through a pipe -----------------------------------------

cdef void carry_bulk(Worker* worker, Flow* flow) noexcept nogil:
    """Carry one pipeful. The other sessions get their turn before the next."""
    cdef ssize_t size
    if flow.pipe_read < 0 and not borrow_pipe(worker, flow):
        leave_bulk(worker, flow)
        return
    size = splice(flow.source, NULL, flow.pipe_write, NULL, PIPE_BYTES, SPLICE_FLAGS)
    if size < 0:
        if errno == EAGAIN:
            if flow.flags & URGED:  # splice stops before an urgent byte; recv does not
                leave_bulk(worker, flow)
            else:
                return_pipe(worker, flow)
        elif errno == EINTR:
            again(worker, flow)
        else:
            source_failed(worker, flow, errno)
        return
    if size == 0:  # the end, or an urgent byte before it: recv will tell
        leave_bulk(worker, flow)
        return
    flow.piped = size
    if not drain_pipe(worker, flow):
        return
    flow.streak = flow.streak + 1 if size < CHATTY_BYTES else 0
    if flow.streak >= CHATTY_READS:
        leave_bulk(worker, flow)
    else:
        again(worker, flow)

cdef int drain_pipe(Worker* worker, Flow* flow) noexcept nogil:
    """Move the piped bytes to the sink. Return whether the pipe is empty."""
    cdef ssize_t sent
    while flow.piped:
        sent = splice(flow.pipe_read, NULL, flow.sink, NULL, flow.piped, SPLICE_FLAGS)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                block(worker, flow)
                return False
            sink_failed(worker, flow, errno)
            return False
        flow.piped -= sent
        flow.carried += sent
    return True

cdef void leave_bulk(Worker* worker, Flow* flow) noexcept nogil:
    return_pipe(worker, flow)
    flow.flags &= ~<uint32_t>BULK
    flow.streak = 0
    again(worker, flow)

# -- ends -------------------------------------------------------------------------------

cdef void source_ended(Worker* worker, Flow* flow) noexcept nogil:
    cdef Session* session = flow.session
    # After a reset no close_notify is sent: it would say that the data is complete.
    if sink_tls(flow) != NULL and session.reset_by == NO_REASON and not tls_say_end(sink_tls(flow)):
        flow.flags |= PARTING
        block(worker, flow)
        return
    flow.flags |= DONE
    return_pipe(worker, flow)
    if flow.reverse.flags & DONE:
        session.ended_by = side(session, flow.sink)
        finish(
            worker, session, session.reset_by if session.reset_by else FINISHED,
            session.reset_by != NO_REASON,
        )
        return
    if sink_tls(flow) != NULL:
        sink_tls(flow).is_shut = True
    shutdown(flow.sink, SHUT_WR)

cdef inline uint8_t side(Session* session, int end) noexcept nogil:
    return CLIENT_RESET if end == session.client else BACKEND_RESET

cdef void source_failed(Worker* worker, Flow* flow, int code) noexcept nogil:
    cdef Session* session = flow.session
    cdef uint8_t reason = session.reset_by
    session.ended_by = side(session, flow.source)
    if code == ETIMEDOUT:
        reason = TIMED_OUT
    elif code == EPROTO and source_tls(flow) != NULL:
        reason = TLS_ERROR
    elif reason == NO_REASON:
        reason = side(session, flow.source)
    finish(worker, session, reason, True)
    if reason == TLS_ERROR:
        tls_part(source_tls(flow), worker.buffer, BUFFER_BYTES)

cdef void sink_failed(Worker* worker, Flow* flow, int code) noexcept nogil:
    """Carry what the broken sink had sent before it broke, then pass the reset on."""
    cdef Session* session = flow.session
    cdef Flow* reverse = flow.reverse
    flow.flags |= DONE
    if (
        reverse.flags & DONE
        or (reverse.flags & BLOCKED and flow.sink == session.client)
        or code == ETIMEDOUT
    ):
        source_failed(worker, reverse, code)
        return
    session.reset_by = side(session, flow.sink)
    return_pipe(worker, flow)
    free(flow.waiting)
    flow.waiting = NULL
    reverse.flags |= URGED
    if session.broken_since == 0:  # `send` has returned the error: no event reports it again
        session.broken_since = worker.now
    again(worker, reverse)

cdef void finish(Worker* worker, Session* session, uint8_t reason, int reset) noexcept nogil:
    """End a session. Its sockets are closed and it is handed back when the turn is over."""
    cdef Flow* flow
    cdef int index
    if session.state == CLOSED:
        return
    session.state = CLOSED
    session.reason = reason
    for index in range(2):
        flow = &session.upward if index == 0 else &session.downward
        flow.flags |= DONE
        free(flow.waiting)
        flow.waiting = NULL
        return_pipe(worker, flow)
    unlink(&worker.settled if session.settled else &worker.to_check, session)
    if reset:
        reset_on_close(session.backend)
        if reason != BACKEND_RESET or not linger_close(worker, session):
            reset_on_close(session.client)
    else:
        if session.client_tls.tls != NULL:
            tls_say_end(&session.client_tls)
        if session.backend_tls.tls != NULL:
            tls_say_end(&session.backend_tls)
    push(&worker.finished, session)

cdef bint has_bytes(Flow* flow) noexcept nogil:
    """Return whether there are bytes that the sink's socket has not taken."""
    cdef TlsEnd* source = source_tls(flow)
    cdef TlsEnd* sink = sink_tls(flow)
    if flow.waiting != NULL or flow.piped or unread_bytes(flow.source):
        return True
    return (source != NULL and tls_has_unread(source)) or (sink != NULL and tls_has_unsent(sink))

cdef void break_off(Worker* worker, Session* session, uint8_t reason) noexcept nogil:
    """End a session before its peers have. A side that would miss bytes is reset.

    Over TLS, a side whose own bytes were not carried is reset, too, without `close_notify`.
    """
    cdef bint misses_up = has_bytes(&session.upward), misses_down = has_bytes(&session.downward)
    if misses_up or (misses_down and session.backend_tls.tls != NULL):
        session.backend_tls.said_end = True
        reset_on_close(session.backend)
    if misses_down or (misses_up and session.client_tls.tls != NULL):
        session.client_tls.said_end = True
        reset_on_close(session.client)
    finish(worker, session, reason, False)
