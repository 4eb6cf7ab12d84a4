# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The byte threads of the native engine: they relay, and never touch a Python object.

The rules are those of `engine.relay`, `engine.farewell` and `engine.debt`, which are this
module's twins in Python, where they are explained; the conformance suite runs over both.

Who owns what. A session belongs to the gate thread until `hand_over`, to one byte thread
until `hand_back`, and then to the gate thread again, which reuses its memory. A byte thread
hands sessions back only at the end of a turn, with both sockets closed, so that no event
can still point to them. What the gate thread wants of a session it does not own it asks for
(`ask`), and takes back what it asked before it reuses the memory (`forget`). Sessions are
handed back under `Ended.lock`; everything else that two threads touch is under
`Worker.lock`, which nobody holds while waiting. What others read of a session meanwhile, for
a list, may be a moment old.

Sockets are registered once, edge-triggered, and for writing only from the first time that one
does not take all. An event names a session by its number and generation, not by its address:
one that comes late, for a socket that a child process still holds open, finds nobody.

A session that is younger than a look, or has undelivered bytes, waits in line to be looked at;
all wait equally long, so the line is in order of time by itself. A settled one costs nothing
until its next byte. One timer, set rarely, stands for all of it: waiting for events sets none.

The buffer for reading belongs to the thread; a session holds memory for bytes only while
somebody does not take them.
"""

from libc.errno cimport EAGAIN, EINTR, ENOMEM, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, read, write

from edgeproxy.engine.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELEASE,
    __atomic_load_n,
    __atomic_store_n,
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    FIONREAD,
    F_SETPIPE_SZ,
    IPPROTO_TCP,
    MSG_MORE,
    MSG_NOSIGNAL,
    O_CLOEXEC,
    O_NONBLOCK,
    PRIO_PROCESS,
    SHUT_WR,
    SOL_SOCKET,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    SYS_sched_setattr,
    TCP_CLOSE,
    TCP_INFO,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_QUICKACK,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TIOCOUTQ,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    eventfd,
    fcntl,
    getpriority,
    getsockopt,
    ioctl,
    itimerspec,
    linger,
    pipe2,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_setname_np,
    recv,
    send,
    setsockopt,
    shutdown,
    socklen_t,
    sched_yield,
    splice,
    syscall,
    timerfd_create,
    timerfd_settime,
)

cdef enum:
    INFO_BYTES = 60

cdef uint32_t INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET
cdef uint32_t MORE_THAN_BYTES = EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI
cdef unsigned SPLICE_FLAGS = SPLICE_F_NONBLOCK | SPLICE_F_MOVE


# -- small things -----------------------------------------------------------------------

cdef double monotonic() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9

cdef void ask_for_short_slices() noexcept nogil:
    """Have this thread run soon when it wakes, in return for running for less at a time.

    It then does not wait for the slice of a thread that computes, for instance one that
    builds a table, to end. Its share of the CPU stays the same. Linux 6.12 and later; an
    earlier one takes no notice.
    """
    cdef Scheduling wanted
    memset(&wanted, 0, sizeof(wanted))
    wanted.size = sizeof(wanted)
    wanted.flags = SCHED_FLAG_KEEP_POLICY
    wanted.nice = getpriority(PRIO_PROCESS, 0)
    wanted.runtime = SLICE_NSECS
    syscall(SYS_sched_setattr, 0, &wanted, 0)

cdef void append(Line* line, Session* session) noexcept nogil:
    session.next = NULL
    if line.last == NULL:
        line.first = session
    else:
        line.last.next = session
    line.last = session

cdef Session* take_first(Line* line) noexcept nogil:
    cdef Session* session = line.first
    if session != NULL:
        line.first = session.next
        if line.first == NULL:
            line.last = NULL
        session.next = NULL
    return session

cdef void join(Line* line, Session* session) noexcept nogil:
    """Put a session at the end of a line that it can leave anywhere (`leave`)."""
    session.previous = line.last
    append(line, session)

cdef void leave(Line* line, Session* session) noexcept nogil:
    if session.previous != NULL:
        session.previous.next = session.next
    else:
        line.first = session.next
    if session.next != NULL:
        session.next.previous = session.previous
    else:
        line.last = session.previous
    session.previous = session.next = NULL

cdef uint64_t mark_of(Flow* flow) noexcept nogil:
    """Return what events of the source of `flow` are marked with."""
    cdef Session* session = flow.session
    cdef uint64_t side = flow == &session.downward
    return <uint64_t>session.generation << 32 | <uint64_t>session.number << 1 | side

cdef Flow* marked(Session** slabs, uint64_t mark) noexcept nogil:
    """Return the flow that an event is about, or NULL if its session is no more."""
    cdef uint32_t number = <uint32_t>mark >> 1
    cdef Session* session = &slabs[number // SLAB_SESSIONS][number % SLAB_SESSIONS]
    if session.generation != mark >> 32:
        return NULL
    return &session.downward if mark & 1 else &session.upward

cdef int open_timer(int epoll) noexcept nogil:
    """Return a timer whose events are marked `TIMER`, or -1."""
    cdef epoll_event event
    cdef int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    event.events = EPOLLIN | EPOLLET
    event.data.u64 = TIMER
    if timer >= 0:
        epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event)
    return timer

cdef void arm(int timer, double at) noexcept nogil:
    """Let a timer go off at this time of `monotonic`, once."""
    cdef itimerspec wanted
    wanted.it_interval.tv_sec = wanted.it_interval.tv_nsec = 0
    wanted.it_value.tv_sec = <long>at
    wanted.it_value.tv_nsec = <long>((at - <long>at) * 1e9)
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &wanted, NULL)

cdef void wake(int fd) noexcept nogil:
    cdef uint64_t one = 1
    write(fd, &one, sizeof(one))

cdef void unwake(int fd) noexcept nogil:
    cdef uint64_t count
    read(fd, &count, sizeof(count))

cdef void set_option(int fd, int level, int name, int value) noexcept nogil:
    setsockopt(fd, level, name, &value, sizeof(value))

cdef void reset_on_close(int fd) noexcept nogil:
    cdef linger at_once
    at_once.l_onoff = 1
    at_once.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))

cdef int undelivered_bytes(int fd) noexcept nogil:
    cdef int count = 0
    if ioctl(fd, TIOCOUTQ, &count) < 0:
        return 0
    return count

cdef int unread_bytes(int fd) noexcept nogil:
    cdef int count = 0
    if ioctl(fd, FIONREAD, &count) < 0:
        return 0
    return count

cdef int failure_of(int fd) noexcept nogil:
    """Return the pending error of a socket."""
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    if getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0:
        return errno
    return code

cdef int read_info(int fd, uint8_t* raw) noexcept nogil:
    """Read the first INFO_BYTES of `struct tcp_info`. Return whether there are so many."""
    cdef socklen_t size = INFO_BYTES
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, raw, &size) == 0 and size == INFO_BYTES

cdef double owing_since(int fd, double since, double now) noexcept nogil:
    """See `engine.debt`, its twin."""
    cdef uint8_t[INFO_BYTES] raw
    cdef uint32_t unacked, since_ack_ms
    cdef double acknowledged_at
    if not read_info(fd, raw):
        return 0.0
    memcpy(&unacked, &raw[24], 4)
    memcpy(&since_ack_ms, &raw[56], 4)
    if unacked == 0 and raw[3] == 0:
        return 0.0
    acknowledged_at = now - since_ack_ms / 1000.0
    return since if since > 0 and acknowledged_at <= since else now

cdef int is_gone(int fd) noexcept nogil:
    """See `engine.debt`, its twin."""
    cdef uint8_t[INFO_BYTES] raw
    return read_info(fd, raw) and raw[0] == TCP_CLOSE


# -- carrying bytes: the twin of engine.relay ---------------------------------------------

cdef void again(Worker* worker, Flow* flow) noexcept nogil:
    """Let the flow be pumped in the next turn."""
    if flow.flags & QUEUED:
        return
    flow.flags |= QUEUED
    flow.again_next = NULL
    if worker.again_last == NULL:
        worker.again_first = flow
    else:
        worker.again_last.again_next = flow
    worker.again_last = flow
    worker.again_count += 1

cdef Flow* take_again(Worker* worker) noexcept nogil:
    cdef Flow* flow = worker.again_first
    if flow != NULL:
        worker.again_first = flow.again_next
        if worker.again_first == NULL:
            worker.again_last = NULL
        worker.again_count -= 1
        flow.flags &= ~<uint32_t>QUEUED
    return flow

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
        size = recv(flow.source, worker.buffer, BUFFER_BYTES, 0)
        if size < 0:
            if errno == EAGAIN:
                flow.flags &= ~<uint32_t>URGED
                return
            if errno == EINTR:
                continue
            source_failed(worker, flow, errno)
            return
        if size == 0:
            source_ended(worker, flow)
            return
        # The end is next: it leaves in one packet with the last bytes, which wait for it.
        more = MSG_MORE if flow.flags & ENDING and turn + 1 < READS_PER_TURN else 0
        if not deliver(worker, flow, worker.buffer, size, more):
            return
        if size < BUFFER_BYTES:
            flow.streak = 0
            if not flow.flags & URGED:
                return
        else:
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
    sent = send(flow.sink, data, size, MSG_NOSIGNAL | more)
    if sent == size:
        flow.carried += sent
        return True
    if sent < 0:
        if errno != EAGAIN:
            sink_failed(worker, flow, errno)
            return False
        sent = 0
    flow.carried += sent
    if data != worker.buffer:
        flow.waiting_at += sent
    elif not keep(flow, data + sent, size - sent):
        sink_failed(worker, flow, ENOMEM)
        return False
    block(worker, flow)
    return False

cdef void send_at_once(Flow* flow) noexcept nogil:
    """Have the sink not wait for more. The first bytes leave at once anyway: only then."""
    if flow.carried:
        set_option(flow.sink, IPPROTO_TCP, TCP_NODELAY, 1)
        flow.flags |= PROMPT

cdef int keep(Flow* flow, char* data, size_t size) noexcept nogil:
    """Keep bytes until the sink takes them. Return whether there was memory."""
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
        epoll_ctl(worker.epoll, EPOLL_CTL_MOD, flow.sink, &event)

cdef int unblock(Worker* worker, Flow* flow) noexcept nogil:
    """Hand over what was waiting. Return whether the sink has taken all of it."""
    flow.flags &= ~<uint32_t>BLOCKED
    if flow.waiting != NULL:
        if not deliver(
            worker, flow, flow.waiting + flow.waiting_at, flow.waiting_size - flow.waiting_at, 0
        ):
            return False
        free(flow.waiting)
        flow.waiting = NULL
    return not flow.piped or drain_pipe(worker, flow)

cdef void carry_bulk(Worker* worker, Flow* flow) noexcept nogil:
    """Carry a pipeful. There is a turn for everybody else before the next."""
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

cdef int borrow_pipe(Worker* worker, Flow* flow) noexcept nogil:
    cdef int[2] ends
    if worker.pooled:
        worker.pooled -= 1
        flow.pipe_read = worker.pipes[worker.pooled][0]
        flow.pipe_write = worker.pipes[worker.pooled][1]
        return True
    if pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
        return False
    if max(ends[0], ends[1]) >= worker.ceiling:
        close(ends[0])
        close(ends[1])
        return False
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES)
    flow.pipe_read = ends[0]
    flow.pipe_write = ends[1]
    return True

cdef void return_pipe(Worker* worker, Flow* flow) noexcept nogil:
    if flow.pipe_read < 0:
        return
    if not flow.piped and worker.pooled < MAX_POOLED:
        worker.pipes[worker.pooled][0] = flow.pipe_read
        worker.pipes[worker.pooled][1] = flow.pipe_write
        worker.pooled += 1
    else:
        close(flow.pipe_read)
        close(flow.pipe_write)
    flow.pipe_read = flow.pipe_write = -1
    flow.piped = 0

cdef void source_ended(Worker* worker, Flow* flow) noexcept nogil:
    cdef Session* session = flow.session
    flow.flags |= DONE
    return_pipe(worker, flow)
    if flow.reverse.flags & DONE:
        finish(
            worker, session, session.reset_by if session.reset_by else FINISHED,
            session.reset_by != NO_REASON,
        )
        return
    shutdown(flow.sink, SHUT_WR)

cdef inline uint8_t side(Session* session, int end) noexcept nogil:
    return CLIENT_RESET if end == session.client else BACKEND_RESET

cdef void source_failed(Worker* worker, Flow* flow, int code) noexcept nogil:
    cdef Session* session = flow.session
    cdef uint8_t reason = session.reset_by
    if code == ETIMEDOUT:
        reason = TIMED_OUT
    elif reason == NO_REASON:
        reason = side(session, flow.source)
    finish(worker, session, reason, True)

cdef void sink_failed(Worker* worker, Flow* flow, int code) noexcept nogil:
    """Carry what the broken sink had said before it broke, then pass the reset on."""
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
    if session.broken_since == 0:  # its error has been told: no event will come again
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
    leave(&worker.settled if session.settled else &worker.looking, session)
    if reset:
        reset_on_close(session.backend)
        if reason != BACKEND_RESET or not say_farewell(worker, session):
            reset_on_close(session.client)
    append(&worker.finished, session)

cdef int say_farewell(Worker* worker, Session* session) noexcept nogil:
    """Keep a client until it has been sent everything; see `engine.farewell`."""
    cdef Farewell* more
    if not undelivered_bytes(session.client):
        return False
    if worker.farewell_count == worker.farewell_room:
        worker.farewell_room = worker.farewell_room * 2 + 16
        more = <Farewell*>realloc(worker.farewells, worker.farewell_room * sizeof(Farewell))
        if more == NULL:
            worker.farewell_room = worker.farewell_count
            return False
        worker.farewells = more
    epoll_ctl(worker.epoll, EPOLL_CTL_DEL, session.client, NULL)
    worker.farewells[worker.farewell_count].client = session.client
    worker.farewells[worker.farewell_count].deadline = worker.now + PATIENCE_SECS
    worker.farewell_count += 1
    tick_by(worker, worker.now + SHORT_TICK_MS / 1000.0)
    session.client = -1
    return True

cdef void break_off(Worker* worker, Session* session, uint8_t reason) noexcept nogil:
    """End a session that has not come to its end. A side that would miss bytes is reset."""
    if session.upward.waiting != NULL or session.upward.piped or unread_bytes(session.client):
        reset_on_close(session.backend)
    if session.downward.waiting != NULL or session.downward.piped or unread_bytes(session.backend):
        reset_on_close(session.client)
    finish(worker, session, reason, False)


# -- the loop of a byte thread ----------------------------------------------------------------------

cdef void* work(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*>argument
    cdef epoll_event[MAX_EVENTS] events
    cdef Flow* flow
    cdef int count, index
    cdef size_t turns
    ask_for_short_slices()
    while not __atomic_load_n(&worker.stopping, __ATOMIC_ACQUIRE):
        count = epoll_wait(
            worker.epoll, events, MAX_EVENTS, -1 if worker.again_first == NULL else 0
        )
        worker.now = monotonic()
        read_mail(worker)
        for index in range(count):
            if events[index].data.u64 > TIMER:
                flow = marked(worker.slabs, events[index].data.u64)
                if flow != NULL:
                    happened(worker, flow, events[index].events)
            elif events[index].data.u64 == WAKEUP:
                unwake(worker.wakeup)
            else:
                worker.next_tick = 0
                tick(worker)
        turns = min(worker.again_count, <size_t>BULK_PER_TURN)
        while turns:
            turns -= 1
            pump(worker, take_again(worker))
        if worker.finished.first != NULL:
            hand_back(worker)
    clean_up(worker)
    return NULL

cdef void read_mail(Worker* worker) noexcept nogil:
    """Take what the gate thread has sent: new sessions, and requests about old ones."""
    cdef Session* session
    cdef Request request
    cdef size_t index
    pthread_mutex_lock(&worker.lock)
    while worker.arriving.first != NULL:
        session = take_first(&worker.arriving)
        session.active_at = worker.now
        look_later(worker, session)
    for index in range(worker.request_count):
        request = worker.requests[index]
        session = request.session
        if session.state == OPEN:
            if request.reason == ABORTED:
                break_off(worker, session, ABORTED)
            else:
                finish(worker, session, request.reason, True)
    worker.request_count = 0
    pthread_mutex_unlock(&worker.lock)

cdef inline void pump_in_turn(Worker* worker, Flow* flow) noexcept nogil:
    """Carry now what is little, and what is much when that has been done."""
    if flow.flags & BULK:
        again(worker, flow)
    else:
        pump(worker, flow)

cdef void happened(Worker* worker, Flow* flow, uint32_t mask) noexcept nogil:
    """Something happened to the source of `flow`, which is the sink of its reverse."""
    cdef Session* session = flow.session
    if session.state != OPEN:
        return
    if mask & MORE_THAN_BYTES:
        flow.flags |= URGED
        if mask & EPOLLRDHUP and not mask & (EPOLLPRI | EPOLLERR):
            flow.flags |= ENDING
    session.active_at = worker.now
    if session.settled:
        leave(&worker.settled, session)
        look_later(worker, session)
    if mask & EPOLLOUT and flow.reverse.flags & BLOCKED:
        pump_in_turn(worker, flow.reverse)
    if flow.flags & DONE:
        if mask & EPOLLERR:  # it had ended before; now it does not listen either
            source_failed(worker, flow, 0)
    elif not flow.flags & BLOCKED:
        if mask & ~<uint32_t>EPOLLOUT:
            pump_in_turn(worker, flow)
    elif mask & EPOLLERR:
        if flow == &session.upward:
            finish(worker, session, CLIENT_RESET, True)
        elif session.broken_since == 0:
            session.broken_since = worker.now

# -- timers -----------------------------------------------------------------------------

cdef void tick_by(Worker* worker, double at) noexcept nogil:
    """Have `tick` called at this time, if not sooner."""
    if worker.next_tick == 0 or at < worker.next_tick:
        worker.next_tick = at
        arm(worker.timer, at)

cdef void tick(Worker* worker) noexcept nogil:
    """Do what is due."""
    cdef double now = worker.now
    cdef Session* session
    cdef int looks = LOOKS_PER_TURN
    if worker.tell_at > 0 and worker.tell_at <= now:
        tell_late(worker)
    say_farewells(worker)
    while worker.looking.first != NULL and worker.looking.first.look_at <= now and looks:
        looks -= 1
        session = worker.looking.first
        leave(&worker.looking, session)
        look(worker, session)
    if worker.looking.first != NULL:
        # Not for each of them on the moment: those that are due within a while go together.
        tick_by(
            worker,
            now if not looks else max(
                worker.looking.first.look_at, now + worker.pause_secs / LOOKS_PER_TIMEOUT
            ),
        )
    if worker.farewell_count:
        tick_by(worker, now + SHORT_TICK_MS / 1000.0)
    if worker.tell_at > 0:
        tick_by(worker, worker.tell_at)

cdef void say_farewells(Worker* worker) noexcept nogil:
    cdef size_t index = 0
    cdef int client
    while index < worker.farewell_count:
        client = worker.farewells[index].client
        if (
            worker.farewells[index].deadline <= worker.now
            or not undelivered_bytes(client)
            or is_gone(client)
        ):
            reset_on_close(client)
            close(client)
            worker.farewell_count -= 1
            worker.farewells[index] = worker.farewells[worker.farewell_count]
        else:
            index += 1

cdef double look_pause(Worker* worker) noexcept nogil:
    """Return how long a session waits to be looked at."""
    cdef double pause_secs = TICK_MS / 1000.0
    if worker.idle_secs > 0:
        pause_secs = min(pause_secs, worker.idle_secs / LOOKS_PER_TIMEOUT)
    if worker.user_secs > 0:
        pause_secs = min(pause_secs, worker.user_secs / LOOKS_PER_TIMEOUT)
    return max(pause_secs, SHORT_TICK_MS / 1000.0)

cdef void look_later(Worker* worker, Session* session) noexcept nogil:
    session.settled = False
    session.look_at = worker.now + worker.pause_secs
    join(&worker.looking, session)
    if worker.next_tick == 0:
        tick_by(worker, session.look_at)

cdef void look(Worker* worker, Session* session) noexcept nogil:
    """End a session that is idle, or whose peers have vanished; it is in no line now."""
    cdef double now = worker.now
    if not session.looked_at:
        session.looked_at = True
        keep_alive(worker, session.backend)
    look_later(worker, session)
    if worker.idle_secs > 0 and now - session.active_at >= worker.idle_secs:
        break_off(worker, session, IDLE)
    elif session.broken_since > 0 and now - session.broken_since >= BROKEN_GRACE_SECS:
        finish(worker, session, session.reset_by if session.reset_by else BACKEND_RESET, True)
    elif now - session.active_at >= worker.pause_secs:
        if not (worker.user_secs > 0 and owes(worker, session)):
            if session.state == OPEN and worker.idle_secs == 0 and session.broken_since == 0:
                leave(&worker.looking, session)
                session.settled = True
                join(&worker.settled, session)

cdef void keep_alive(Worker* worker, int fd) noexcept nogil:
    """Have the system probe a silent backend. Short sessions end without ever asking for it."""
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, worker.keepalive_idle_secs)
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, worker.keepalive_interval_secs)
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, worker.keepalive_probes)

cdef int owes(Worker* worker, Session* session) noexcept nogil:
    """Return whether a peer has bytes left to acknowledge; end the session if for too long."""
    cdef Flow* flow
    cdef int index, owing = False
    for index in range(2):
        flow = &session.upward if index == 0 else &session.downward
        if not undelivered_bytes(flow.sink):
            flow.owing_since = 0
            continue
        owing = True
        flow.owing_since = owing_since(flow.sink, flow.owing_since, worker.now)
        if flow.owing_since > 0 and worker.now - flow.owing_since >= worker.user_secs:
            finish(worker, session, TIMED_OUT, True)
            return True
    return owing

# -- giving sessions back -----------------------------------------------------------------

cdef void hand_back(Worker* worker) noexcept nogil:
    """Close the sockets of the sessions that ended in this turn and give them to the gate.

    The gate thread takes them before its next decision. It is woken for them at once, but not
    more often than every `TELL_MS`: a busy one comes by itself.
    """
    cdef Session* session = worker.finished.first
    cdef Flow* flow
    cdef size_t turns = worker.again_count
    cdef Ended* ended = worker.ended
    cdef int first, at_once = False
    while turns:
        turns -= 1
        flow = take_again(worker)
        if not flow.flags & DONE:
            again(worker, flow)
    while session != NULL:
        while not __atomic_load_n(&session.watched_by_worker, __ATOMIC_ACQUIRE):
            sched_yield()  # the gate thread is about to put its second socket into the epoll
        if session.client >= 0:
            close(session.client)
        close(session.backend)
        session = session.next
    pthread_mutex_lock(&ended.lock)
    first = ended.line.first == NULL
    if first:
        ended.line = worker.finished
        at_once = worker.now >= ended.told_at + TELL_MS / 1000.0 or worker.stopping
        if at_once:
            ended.told_at = worker.now
        else:
            worker.tell_at = ended.told_at + TELL_MS / 1000.0
    else:
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

cdef void clean_up(Worker* worker) noexcept nogil:
    """The engine stops: end every session of this thread."""
    read_mail(worker)
    while worker.looking.first != NULL:
        break_off(worker, worker.looking.first, ABORTED)
    while worker.settled.first != NULL:
        break_off(worker, worker.settled.first, ABORTED)
    while take_again(worker) != NULL:
        pass
    if worker.finished.first != NULL:
        hand_back(worker)
    while worker.farewell_count:
        worker.farewell_count -= 1
        reset_on_close(worker.farewells[worker.farewell_count].client)
        close(worker.farewells[worker.farewell_count].client)
    while worker.pooled:
        worker.pooled -= 1
        close(worker.pipes[worker.pooled][0])
        close(worker.pipes[worker.pooled][1])


# -- called by the gate thread --------------------------------------------------------------

cdef int start_worker(Worker* worker, Ended* ended, int number) noexcept nogil:
    """Start a byte thread, whose memory is zero but for its settings. Return whether it runs."""
    cdef epoll_event event
    cdef char[16] name
    worker.ended = ended
    worker.epoll = epoll_create1(EPOLL_CLOEXEC)
    worker.wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    worker.timer = open_timer(worker.epoll)
    worker.buffer = <char*>malloc(BUFFER_BYTES)
    worker.pause_secs = look_pause(worker)
    pthread_mutex_init(&worker.lock, NULL)
    event.events = EPOLLIN
    event.data.u64 = WAKEUP
    if (
        worker.buffer == NULL
        or worker.timer < 0
        or epoll_ctl(worker.epoll, EPOLL_CTL_ADD, worker.wakeup, &event) < 0
        or pthread_create(&worker.thread, NULL, work, worker) != 0
    ):
        return False
    snprintf(name, sizeof(name), "bytes-%d", number)
    pthread_setname_np(worker.thread, name)
    worker.started = True
    return True

cdef uint8_t carry_first(Session* session, char* buffer) noexcept nogil:
    """Carry what the client has said while its backend was being dialed.

    The thread that will carry the rest is then not woken for it. Return why the session has
    to end, if it has to; what is wrong with the backend the next thread will see.
    """
    cdef Flow* flow = &session.upward
    cdef ssize_t size = recv(flow.source, buffer, BUFFER_BYTES, 0)
    cdef ssize_t sent
    if size > 0:
        sent = max(send(flow.sink, buffer, size, MSG_NOSIGNAL), 0)
    if session.hushed:  # for the packet that has just left, and not for the answers
        set_option(flow.sink, IPPROTO_TCP, TCP_QUICKACK, 1)
    if size < 0 and errno != EAGAIN and errno != EINTR:
        return TIMED_OUT if errno == ETIMEDOUT else CLIENT_RESET
    if size <= 0:
        return NO_REASON
    flow.carried = sent
    if sent < size:
        flow.flags |= BLOCKED | SINK_WATCHED
        if not keep(flow, buffer + sent, size - sent):
            return FAULT
    return NO_REASON

cdef void hand_over(Worker* worker, Session* session) noexcept nogil:
    """Give a session whose backend has answered to this byte thread."""
    cdef epoll_event event
    cdef int watched
    session.state = OPEN
    session.worker = worker
    pthread_mutex_lock(&worker.lock)
    append(&worker.arriving, session)
    pthread_mutex_unlock(&worker.lock)
    event.events = INTEREST | (EPOLLOUT if session.upward.flags & SINK_WATCHED else 0)
    event.data.u64 = mark_of(&session.downward)
    watched = epoll_ctl(worker.epoll, EPOLL_CTL_ADD, session.backend, &event) == 0
    event.events = INTEREST
    event.data.u64 = mark_of(&session.upward)
    watched &= epoll_ctl(worker.epoll, EPOLL_CTL_ADD, session.client, &event) == 0
    if not watched:  # the system has no room for more; nobody would ever hear of it
        ask(worker, session, FAULT)
    # Only now may the thread, which the first of them may have woken, close them.
    __atomic_store_n(&session.watched_by_worker, True, __ATOMIC_RELEASE)

cdef void read_mail_soon(Worker* worker) noexcept nogil:
    """Wake a thread that has had no reason to read its mail: its new sessions are silent."""
    cdef int mail
    if not worker.started:
        return
    pthread_mutex_lock(&worker.lock)
    mail = worker.arriving.first != NULL
    pthread_mutex_unlock(&worker.lock)
    if mail:
        wake(worker.wakeup)

cdef int ask(Worker* worker, Session* session, uint8_t reason) noexcept nogil:
    """Ask a byte thread to end a session. Return whether there was memory to ask with."""
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
    """Take back what was asked about a session that has ended, before its memory is reused."""
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
    free(worker.farewells)
    pthread_mutex_destroy(&worker.lock)
