# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""A byte thread: it waits for events, carries bytes, and checks its sessions in turn.

A socket is registered once, edge-triggered. It is watched for writing only after it has once
failed to take everything.

A session that has not been checked yet, or has undelivered bytes, waits in a queue for its next
check. All wait equally long, so the queue is in order of time by itself. A settled session costs
nothing until its next byte. The checks are the twins of `portable/timeouts`.
"""

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from edgeproxy.engine.native.syscalls cimport (
    TIMER,
    WAKEUP,
    ask_for_short_slices,
    monotonic,
    open_timer,
    open_wakeup,
    unacked_since,
    reset_on_close,
    set_option,
    undelivered_bytes,
    unwake,
    wake,
)
from edgeproxy.engine.native.byte_thread.handoff cimport hand_back, take_handoff, tell_late
from edgeproxy.engine.native.byte_thread.relay cimport (
    break_off,
    finish,
    pump,
    source_failed,
    speaks_tls,
)
from edgeproxy.engine.native.session cimport (
    ABORTED,
    BACKEND_RESET,
    BLOCKED,
    BULK,
    CLIENT_RESET,
    DONE,
    ENDING,
    Flow,
    HANDSHAKE_TIMEOUT,
    IDLE,
    HANDSHAKING,
    OPEN,
    Session,
    TIMED_OUT,
    URGED,
    excuse_all,
    link,
    unlink,
    marked,
)
from edgeproxy.engine.native.system cimport *
from edgeproxy.engine.native.byte_thread.handshake cimport fail, advance, expire_handshakes
from edgeproxy.engine.native.byte_thread.worker cimport (
    BUFFER_BYTES,
    Ended,
    MAX_EVENTS,
    SHORT_TICK_MS,
    TICK_MS,
    Worker,
    again,
    check_later,
    close_lingered,
    take_again,
    tick_by,
)

# The same figures as in the portable engine, where they are explained.
cdef enum:
    BULK_PER_TURN = 8
    CHECKS_PER_TURN = 256
    CHECKS_PER_TIMEOUT = 6
    BROKEN_GRACE_SECS = 30

cdef uint32_t MORE_THAN_BYTES = EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI

# -- the loop ---------------------------------------------------------------------------

cdef void* work(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*>argument
    cdef epoll_event[MAX_EVENTS] events
    cdef Flow* flow
    cdef int count, index
    cdef size_t turns
    cdef uint32_t turns_wanted
    cdef bint has_more, has_all, is_due
    ask_for_short_slices()
    while not __atomic_load_n(&worker.stopping, __ATOMIC_ACQUIRE):
        turns_wanted = load_number(&worker.turns_wanted, __ATOMIC_ACQUIRE)
        has_more = worker.again_first != NULL or turns_wanted != worker.turns_done
        has_more |= worker.judged_at > 0
        is_due = False
        count = epoll_wait(worker.epoll, events, MAX_EVENTS, 0 if has_more else -1)
        has_all = 0 <= count < MAX_EVENTS  # it is negative after a signal
        worker.now = monotonic()
        take_handoff(worker)
        if worker.next_tick > 0 and worker.now - worker.next_tick > worker.late_secs:
            excuse(worker, worker.now - worker.next_tick)
        for index in range(count):
            if events[index].data.u64 > TIMER:
                flow = marked(worker.pool, events[index].data.u64)
                if flow != NULL:
                    happened(worker, flow, events[index].events)
            elif events[index].data.u64 == WAKEUP:
                unwake(worker.wakeup)
            else:
                worker.next_tick = 0
                is_due = True
        if worker.judged_at > 0 and (
            has_all or worker.now - worker.judged_at >= TICK_MS / 1000.0
        ):
            tick(worker)
            worker.judged_at = 0
        if is_due and worker.judged_at == 0:
            worker.judged_at = worker.now  # what came until now has to be read first
        turns = min(worker.again_count, <size_t>BULK_PER_TURN)
        while turns:
            turns -= 1
            pump(worker, take_again(worker))
        if worker.finished.first != NULL:
            hand_back(worker)
        if turns_wanted != worker.turns_done and has_all:
            store_number(&worker.turns_done, turns_wanted, __ATOMIC_RELEASE)
            wake(worker.ended.wakeup)
    clean_up(worker)
    return NULL

cdef inline void pump_in_turn(Worker* worker, Flow* flow) noexcept nogil:
    """Pump a flow at once; a bulk flow waits until all events have been handled."""
    if flow.flags & BULK:
        again(worker, flow)
    else:
        pump(worker, flow)

cdef void happened(Worker* worker, Flow* flow, uint32_t mask) noexcept nogil:
    """Something happened to the source of `flow`, which is the sink of its reverse."""
    cdef Session* session = flow.session
    if session.state != OPEN:
        if session.state == HANDSHAKING:
            advance(worker, session)
        return
    if mask & MORE_THAN_BYTES:
        flow.flags |= URGED
        if mask & ~<uint32_t>EPOLLPRI & MORE_THAN_BYTES:
            store_time(&worker.ending_at_usecs, <uint64_t>(worker.now * 1e6), __ATOMIC_RELEASE)
        if mask & EPOLLRDHUP and not mask & (EPOLLPRI | EPOLLERR):
            flow.flags |= ENDING
    session.active_at = worker.now
    if session.settled:
        unlink(&worker.settled, session)
        check_later(worker, session)
    if mask & EPOLLOUT and flow.reverse.flags & BLOCKED:
        pump_in_turn(worker, flow.reverse)
    if flow.flags & DONE:
        if mask & EPOLLERR:  # its end came before; now the socket has failed
            source_failed(worker, flow, 0)
    elif not flow.flags & BLOCKED:
        if mask & ~<uint32_t>EPOLLOUT or speaks_tls(session):  # TLS may write in order to read
            pump_in_turn(worker, flow)
    elif mask & EPOLLERR:
        if flow == &session.upward:
            finish(worker, session, CLIENT_RESET, True)
        elif session.broken_since == 0:
            session.broken_since = worker.now

# -- timers -----------------------------------------------------------------------------

cdef void tick(Worker* worker) noexcept nogil:
    """Do what is due: late wake-ups, lingering clients, handshakes, checks of sessions.

    Everything that came before `judged_at` has been read.
    """
    cdef double now = worker.now
    cdef Session* session
    cdef int checks = CHECKS_PER_TURN
    if worker.tell_at > 0 and worker.tell_at <= now:
        tell_late(worker)
    close_lingered(worker)
    if worker.meeting.first != NULL:
        expire_handshakes(worker)
    while worker.to_check.first != NULL and worker.to_check.first.due_at <= now and checks:
        checks -= 1
        session = worker.to_check.first
        unlink(&worker.to_check, session)
        check(worker, session)
    if worker.to_check.first != NULL:
        # Not one tick per session: checks that are due within a short time share one.
        tick_by(
            worker,
            now if not checks else max(
                worker.to_check.first.due_at, now + worker.pause_secs / CHECKS_PER_TIMEOUT
            ),
        )
    if worker.lingering_count:
        tick_by(worker, now + SHORT_TICK_MS / 1000.0)
    if worker.tell_at > 0:
        tick_by(worker, worker.tell_at)

cdef void check(Worker* worker, Session* session) noexcept nogil:
    """Check a session, which is in no queue: end it if it is idle or a peer has vanished."""
    cdef double now = worker.judged_at
    if not session.checked:
        session.checked = True
        keep_alive(worker, session.backend)
    check_later(worker, session)
    if worker.idle_secs > 0 and now - session.active_at >= worker.idle_secs:
        break_off(worker, session, IDLE)
    elif session.broken_since > 0 and now - session.broken_since >= BROKEN_GRACE_SECS:
        finish(worker, session, session.reset_by if session.reset_by else BACKEND_RESET, True)
    elif now - session.active_at >= worker.pause_secs:
        if not (worker.user_secs > 0 and owes(worker, session)):
            if session.state == OPEN and worker.idle_secs == 0 and session.broken_since == 0:
                unlink(&worker.to_check, session)
                session.settled = True
                link(&worker.settled, session)

cdef void excuse(Worker* worker, double secs) noexcept nogil:
    """Leave out the seconds until now in which this process stood still."""
    cdef Session* session = worker.to_check.first
    cdef size_t index
    worker.next_tick = worker.now  # the timer has gone off already
    while session != NULL:
        session.active_at = min(session.active_at + secs, worker.now)
        if session.broken_since > 0:
            session.broken_since += secs
        if session.upward.unacked_since > 0:
            session.upward.unacked_since = worker.now
        if session.downward.unacked_since > 0:
            session.downward.unacked_since = worker.now
        session = session.next
    excuse_all(&worker.meeting, secs)
    for index in range(worker.lingering_count):
        worker.lingering[index].deadline += secs

cdef int owes(Worker* worker, Session* session) noexcept nogil:
    """Return whether a peer owes acknowledgements; end the session if it does for too long."""
    cdef Flow* flow
    cdef int index, owing = False
    for index in range(2):
        flow = &session.upward if index == 0 else &session.downward
        if not undelivered_bytes(flow.sink):
            flow.unacked_since = 0
            continue
        owing = True
        flow.unacked_since = unacked_since(flow.sink, flow.unacked_since, worker.now)
        if flow.unacked_since > 0 and worker.now - flow.unacked_since >= worker.user_secs:
            session.ended_by = CLIENT_RESET if flow.sink == session.client else BACKEND_RESET
            finish(worker, session, TIMED_OUT, True)
            return True
    return owing

cdef void keep_alive(Worker* worker, int fd) noexcept nogil:
    """Turn on keepalive probes of a backend. Short sessions end before this is done."""
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, worker.keepalive_idle_secs)
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, worker.keepalive_interval_secs)
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, worker.keepalive_probes)

cdef double check_pause_secs(Worker* worker) noexcept nogil:
    """Return the seconds between two checks of a session."""
    cdef double pause_secs = TICK_MS / 1000.0
    if worker.idle_secs > 0:
        pause_secs = min(pause_secs, worker.idle_secs / CHECKS_PER_TIMEOUT)
    if worker.user_secs > 0:
        pause_secs = min(pause_secs, worker.user_secs / CHECKS_PER_TIMEOUT)
    return max(pause_secs, SHORT_TICK_MS / 1000.0)

# -- its life ---------------------------------------------------------------------------

cdef int start_worker(Worker* worker, Ended* ended) noexcept nogil:
    """Start a byte thread. Its memory must be zero, except for its settings.

    Return 0, or the error number if that cannot be done.
    """
    cdef char[16] name
    cdef int code
    worker.ended = ended
    worker.epoll = epoll_create1(EPOLL_CLOEXEC)
    worker.wakeup = open_wakeup(worker.epoll)
    worker.timer = open_timer(worker.epoll)
    worker.buffer = <char*>malloc(BUFFER_BYTES)
    worker.pause_secs = check_pause_secs(worker)
    code = errno
    pthread_mutex_init(&worker.lock, NULL)
    if worker.buffer == NULL or worker.wakeup < 0 or worker.timer < 0:
        return code
    code = pthread_create(&worker.thread, NULL, work, worker)
    if code:
        return code
    snprintf(name, sizeof(name), "bytes-%d", worker.number)
    pthread_setname_np(worker.thread, name)
    worker.started = True
    return 0

cdef void stop_worker(Worker* worker) noexcept nogil:
    """End a byte thread and all its sessions, and free what it held."""
    __atomic_store_n(&worker.stopping, True, __ATOMIC_RELEASE)
    if worker.started:
        wake(worker.wakeup)
        pthread_join(worker.thread, NULL)
        worker.started = False
    worker.asked = False
    if worker.epoll >= 0:
        close(worker.epoll)
    if worker.wakeup >= 0:
        close(worker.wakeup)
    if worker.timer >= 0:
        close(worker.timer)
    free(worker.buffer)
    free(worker.requests)
    free(worker.lingering)
    pthread_mutex_destroy(&worker.lock)

cdef void clean_up(Worker* worker) noexcept nogil:
    """The engine stops: end every session of this thread."""
    take_handoff(worker)
    while worker.meeting.first != NULL:
        fail(worker, worker.meeting.first, HANDSHAKE_TIMEOUT)
    while worker.to_check.first != NULL:
        break_off(worker, worker.to_check.first, ABORTED)
    while worker.settled.first != NULL:
        break_off(worker, worker.settled.first, ABORTED)
    while take_again(worker) != NULL:
        pass
    if worker.finished.first != NULL:
        hand_back(worker)
    while worker.lingering_count:
        worker.lingering_count -= 1
        reset_on_close(worker.lingering[worker.lingering_count].client)
        close(worker.lingering[worker.lingering_count].client)
    while worker.pooled:
        worker.pooled -= 1
        close(worker.pipes[worker.pooled][0])
        close(worker.pipes[worker.pooled][1])
