# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The hand-off of sessions between the gate thread and the byte threads.

To a byte thread go new sessions (`hand_over`), and requests to end one that it has (`ask`). Those
requests are withdrawn before the memory of the session is reused (`forget`). Both queues are under
`Worker.lock`.

To the gate thread go sessions that have ended, and those whose handshake is over (`hand_back`), at
the end of a turn. The sockets of ended sessions are closed by then, so no event can still point to
them; only the socket of a lingering client stays open (`worker.linger_close`). This queue is under
`Ended.lock`.

No thread waits for another one while it holds a lock. Nothing else is written by two threads.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport realloc
from posix.unistd cimport close

from edgeproxy.engine.native.syscalls cimport wake
from edgeproxy.engine.native.byte_thread.relay cimport break_off, finish, speaks_tls
from edgeproxy.engine.native.session cimport (
    ABORTED,
    DONE,
    FAULT,
    Flow,
    HANDSHAKE_FAILED,
    INTEREST,
    HANDSHAKING,
    HANDSHAKEN,
    OPEN,
    SINK_WATCHED,
    push,
    link,
    mark_of,
    take_first,
    wait_until_watched,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.tls.tls_end cimport end_tls
from edgeproxy.engine.native.byte_thread.handshake cimport fail
from edgeproxy.engine.native.byte_thread.worker cimport (
    Ended,
    Request,
    SHORT_TICK_MS,
    TICK_MS,
    again,
    check_later,
    take_again,
    tick_by,
)

cdef enum:
    TELL_MS = 20

# -- to a byte thread -------------------------------------------------------------------

cdef void hand_over(Worker* worker, Session* session) noexcept nogil:
    """Hand a session to this byte thread, now that its backend has answered."""
    cdef epoll_event event
    cdef int watched
    session.state = OPEN
    session.worker = worker.number
    pthread_mutex_lock(&worker.lock)
    push(&worker.arriving, session)
    pthread_mutex_unlock(&worker.lock)
    event.events = INTEREST | (EPOLLOUT if session.upward.flags & SINK_WATCHED else 0)
    event.data.u64 = mark_of(&session.downward)
    watched = epoll_ctl(worker.epoll, EPOLL_CTL_ADD, session.backend, &event) == 0
    event.events = INTEREST
    if speaks_tls(session):  # OpenSSL may hold bytes already: the thread has to wake
        event.events |= EPOLLOUT
    event.data.u64 = mark_of(&session.upward)
    watched &= epoll_ctl(worker.epoll, EPOLL_CTL_ADD, session.client, &event) == 0
    if not watched:  # the epoll has no room: the session would get no events
        ask(worker, session, FAULT)
    # The first event may have woken the thread. Before this flag is set, it closes no socket.
    __atomic_store_n(&session.watched_by_worker, True, __ATOMIC_RELEASE)

cdef inline int peer_socket(Session* session) noexcept nogil:
    """Return the socket of the peer in the handshake of a session."""
    return session.backend if session.meets_backend else session.client

cdef void hand_over_handshake(Worker* worker, Session* session) noexcept nogil:
    """Give a session to this byte thread for the handshake with its client or its backend."""
    cdef epoll_event event
    session.state = HANDSHAKING
    session.worker = worker.number
    pthread_mutex_lock(&worker.lock)
    push(&worker.arriving, session)
    pthread_mutex_unlock(&worker.lock)
    event.events = INTEREST | EPOLLOUT
    event.data.u64 = mark_of(&session.downward if session.meets_backend else &session.upward)
    if epoll_ctl(worker.epoll, EPOLL_CTL_ADD, peer_socket(session), &event) < 0:
        ask(worker, session, FAULT)
    __atomic_store_n(&session.watched_by_worker, True, __ATOMIC_RELEASE)

cdef void wake_for_handoff(Worker* worker) noexcept nogil:
    """Wake a thread that has not taken its new sessions: they have had no event."""
    cdef int waiting
    if not worker.started:
        return
    pthread_mutex_lock(&worker.lock)
    waiting = worker.arriving.first != NULL
    pthread_mutex_unlock(&worker.lock)
    if waiting:
        wake(worker.wakeup)

cdef int ask(Worker* worker, Session* session, uint8_t reason) noexcept nogil:
    """Ask a byte thread to end a session. Return False if memory is short."""
    cdef Request* more
    cdef size_t room
    pthread_mutex_lock(&worker.lock)
    if worker.request_count == worker.request_room:
        room = worker.request_room * 2 + 64
        more = <Request*>realloc(worker.requests, room * sizeof(Request))
        if more == NULL:
            pthread_mutex_unlock(&worker.lock)
            return False
        worker.requests = more
        worker.request_room = room
    worker.requests[worker.request_count].session = session
    worker.requests[worker.request_count].reason = reason
    worker.request_count += 1
    worker.asked = True
    pthread_mutex_unlock(&worker.lock)
    wake(worker.wakeup)
    return True

cdef void forget(Worker* worker, Session* session) noexcept nogil:
    """Withdraw the requests about an ended session, before its memory is reused."""
    cdef size_t index = 0
    if not worker.asked:
        return
    pthread_mutex_lock(&worker.lock)
    while index < worker.request_count:
        if worker.requests[index].session == session:
            worker.request_count -= 1
            worker.requests[index] = worker.requests[worker.request_count]
        else:
            index += 1
    worker.asked = worker.request_count > 0
    pthread_mutex_unlock(&worker.lock)

cdef void take_handoff(Worker* worker) noexcept nogil:
    """Take what the gate thread has sent: new sessions, and requests about old ones."""
    cdef Session* session
    cdef Request request
    cdef size_t index
    pthread_mutex_lock(&worker.lock)
    while worker.arriving.first != NULL:
        session = take_first(&worker.arriving)
        if session.state == HANDSHAKING:
            link(&worker.meeting, session)
            session.due_at = max(session.due_at, worker.now + SHORT_TICK_MS / 1000.0)
            tick_by(worker, min(session.due_at, worker.now + TICK_MS / 1000.0))
            continue
        session.active_at = worker.now
        check_later(worker, session)
        if session.client_tls.tls != NULL:
            again(worker, &session.upward)
        if session.backend_tls.tls != NULL:
            again(worker, &session.downward)
    for index in range(worker.request_count):
        request = worker.requests[index]
        session = request.session
        if session.state == OPEN:
            if request.reason == ABORTED:
                break_off(worker, session, ABORTED)
            else:
                finish(worker, session, request.reason, True)
        elif session.state == HANDSHAKING:
            fail(worker, session, ABORTED if request.reason == ABORTED else HANDSHAKE_FAILED)
    worker.request_count = 0
    pthread_mutex_unlock(&worker.lock)

# -- to the gate thread -----------------------------------------------------------------

cdef void hand_back(Worker* worker) noexcept nogil:
    """Close the sockets of the sessions that ended in this turn and give them to the gate.

    The gate thread takes them before its next decision. It is woken for them at once, but at most
    once every `TELL_MS`, because a busy gate thread comes by itself. For a finished handshake, and
    while clients wait for a slot, it is woken at once.
    """
    cdef Session* session = worker.finished.first
    cdef Flow* flow
    cdef size_t turns = worker.again_count
    cdef Ended* ended = worker.ended
    cdef int first, at_once = False, urgent = False
    while turns:
        turns -= 1
        flow = take_again(worker)
        if not flow.flags & DONE:
            again(worker, flow)
    while session != NULL:
        wait_until_watched(session)
        if session.state == HANDSHAKEN:
            urgent = True
            epoll_ctl(worker.epoll, EPOLL_CTL_DEL, peer_socket(session), NULL)
            session.watched_by_worker = False
        else:
            end_tls(&session.client_tls)
            end_tls(&session.backend_tls)
            if session.client >= 0:
                close(session.client)
            if session.backend >= 0:
                close(session.backend)
        session = session.next
    pthread_mutex_lock(&ended.lock)
    first = ended.line.first == NULL
    if first:
        ended.line = worker.finished
        urgent |= ended.awaited or worker.stopping
        at_once = urgent or worker.now >= ended.told_at + TELL_MS / 1000.0
        if at_once:
            ended.told_at = worker.now
        else:
            worker.tell_at = ended.told_at + TELL_MS / 1000.0
    else:
        at_once = urgent or ended.awaited
        ended.line.last.next = worker.finished.first
        ended.line.last = worker.finished.last
    pthread_mutex_unlock(&ended.lock)
    worker.finished.first = worker.finished.last = NULL
    if at_once:
        wake(ended.wakeup)
    elif first:
        tick_by(worker, worker.tell_at)

cdef void tell_late(Worker* worker) noexcept nogil:
    """Wake the gate thread if it has not come by itself."""
    cdef Ended* ended = worker.ended
    cdef int waiting
    worker.tell_at = 0
    pthread_mutex_lock(&ended.lock)
    waiting = ended.line.first != NULL
    if waiting:
        ended.told_at = worker.now
    pthread_mutex_unlock(&ended.lock)
    if waiting:
        wake(ended.wakeup)
