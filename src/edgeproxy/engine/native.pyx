# cython: language_level=3, cdivision=True
"""The native engine: its gate thread, which accepts, asks, dials and learns of every end.

One turn of the loop: without the interpreter lock, wait, accept, and collect what happened;
with the lock, once, tell the gate all of it and take its answers; without the lock again,
dial. What the gate is told grows under load by itself, and its cost falls.

A gate must not raise. If it does, the client concerned is closed and everybody else is
served on, as `engine.guard` has it for the other engine.

Sessions are dialed here and then carried by the byte threads of `engine.carrier`, each by
the one that has the fewest. All of a session's fields but its flows belong to this thread.
"""

import os
import threading
from collections import deque

from edgeproxy.engine.contract import (
    CloseReason,
    Connect,
    DialFailure,
    Outcome,
    Refuse,
    SessionInfo,
)
from edgeproxy.engine.acceptor import CALM_SECS
from edgeproxy.engine.descriptors import ceiling, room_below
from edgeproxy.engine.dial import failure
from edgeproxy.engine.listener import (
    KEEPALIVE_IDLE_SECS,
    KEEPALIVE_INTERVAL_SECS,
    KEEPALIVE_PROBES,
)
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINPROGRESS, EMFILE, ENFILE, ENOBUFS, ENOMEM, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from posix.unistd cimport close

from edgeproxy.engine.carrier cimport (
    ABORTED,
    ACCEPTS_PER_TURN,
    BUFFER_BYTES,
    CLIENT_GONE,
    CLOSED,
    DIALING,
    DONE,
    FAULT,
    MAX_EVENTS,
    MAX_SLABS,
    NO_REASON,
    PROMPT,
    SHORT_TICK_MS,
    SLAB_SESSIONS,
    TICK_MS,
    TIMER,
    WAKEUP,
    Ended,
    Flow,
    Line,
    Session,
    Worker,
    append,
    arm,
    ask,
    ask_for_short_slices,
    carry_first,
    failure_of,
    forget,
    hand_over,
    join,
    leave,
    mark_of,
    marked,
    monotonic,
    open_timer,
    read_mail_soon,
    reset_on_close,
    set_option,
    start_worker,
    stop_worker,
    take_first,
    unread_bytes,
    unwake,
    wake,
)
from edgeproxy.engine.system cimport (
    AF_INET,
    AF_INET6,
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    IPPROTO_TCP,
    POLLERR,
    POLLHUP,
    POLLOUT,
    SHUT_WR,
    SO_OOBINLINE,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_QUICKACK,
    accept4,
    connect,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    eventfd,
    htons,
    inet_ntop,
    inet_pton,
    ntohl,
    ntohs,
    poll,
    pollfd,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_self,
    pthread_setname_np,
    recv,
    shutdown,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    socket,
    socklen_t,
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
)
STATES = ("dialing", "open")

# Events of listeners are marked with FIRST_LISTENER and what follows it; see `mark_of`.
cdef enum:
    FIRST_LISTENER = 16
    MAX_LISTENERS = 1024
    MAX_WORKERS = 64
    MAX_POLLED = 256
    SINGLES = 4

cdef uint32_t BROKEN = EPOLLERR | EPOLLHUP

cdef class NativeEngine:
    """Implements `engine.contract.Engine`.

    `on_crash` is called on the gate thread if its loop itself fails, which is a bug; the
    engine has then closed everything.
    """

    cdef readonly str kind
    cdef object _gate, _on_crash, _thread, _commands, _listeners
    cdef Worker* _workers
    cdef int _worker_count
    cdef Ended _ended
    cdef Session* _all
    cdef Session* _free
    cdef Session** _slabs
    cdef size_t _slab_count
    cdef long _live
    # What happened in this turn, and what is to be dialed at its end.
    cdef Line _opened, _dialed, _failed, _gone, _to_dial, _short, _to_carry, _dialing
    cdef int[MAX_LISTENERS] _listening
    cdef int _listener_count
    cdef bint _paused, _told_of_pause
    cdef int _pause_code
    cdef double _now, _next_tick, _armed_for, _next_gate_tick, _resumed_at
    cdef char* _buffer
    cdef int _epoll, _wakeup, _timer, _ceiling, _undialed, _singles
    cdef bint _stopping, _woken, _may_resume, _looks_for_idle

    def __init__(self, settings, gate, on_crash):
        cdef epoll_event event
        cdef int index
        self.kind = "native"
        self._gate = gate
        self._on_crash = on_crash
        self._commands = deque()
        self._listeners = []
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        self._wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self._timer = open_timer(self._epoll)
        if self._epoll < 0 or self._wakeup < 0 or self._timer < 0:
            raise EdgeProxyError(
                f"the engine cannot be made: {os.strerror(errno)}; raise the limit of open "
                "files (ulimit -n)"
            )
        event.events = EPOLLIN
        event.data.u64 = WAKEUP
        epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._wakeup, &event)
        pthread_mutex_init(&self._ended.lock, NULL)
        self._ended.wakeup = self._wakeup
        wanted = settings.byte_threads or len(os.sched_getaffinity(0))
        self._worker_count = max(1, min(wanted, MAX_WORKERS))
        self._workers = <Worker*>calloc(self._worker_count, sizeof(Worker))
        self._slabs = <Session**>calloc(MAX_SLABS, sizeof(Session*))
        self._buffer = <char*>malloc(BUFFER_BYTES)
        if self._workers == NULL or self._slabs == NULL or self._buffer == NULL:
            raise MemoryError
        self._looks_for_idle = settings.idle_timeout_secs > 0
        for index in range(self._worker_count):
            self._workers[index].epoll = self._workers[index].wakeup = -1
            self._workers[index].timer = -1
            self._workers[index].slabs = self._slabs
            self._workers[index].keepalive_idle_secs = KEEPALIVE_IDLE_SECS
            self._workers[index].keepalive_interval_secs = KEEPALIVE_INTERVAL_SECS
            self._workers[index].keepalive_probes = KEEPALIVE_PROBES
            self._workers[index].idle_secs = settings.idle_timeout_secs
            self._workers[index].user_secs = settings.user_timeout_secs
        self._now = monotonic()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    # -- called from any thread -------------------------------------------------------

    def listen(self, name, listening):
        """Accept from this listening socket from now on; the engine owns and closes it."""
        if self._stopping:
            listening.close()
        else:
            self.call(lambda: self._listen(name, listening))

    def start(self):
        """Start the engine's threads."""
        cdef int index
        self._ceiling = ceiling()
        for index in range(self._worker_count):
            self._workers[index].ceiling = self._ceiling
            if not start_worker(&self._workers[index], &self._ended, index):
                raise EdgeProxyError(
                    f"a byte thread cannot be started: {os.strerror(errno)}; raise the limit of "
                    "open files (ulimit -n), or lower EDGEPROXY_BYTE_THREADS"
                )
        self._thread.start()

    def call(self, function):
        """Run `function` on the gate thread soon."""
        self._commands.append(function)
        if self._wakeup >= 0:
            wake(self._wakeup)

    def stop_accepting(self):
        """Accept what has already connected, then close the listeners. Returns when done."""
        self._ask(self._stop_accepting)

    def live(self):
        """How many clients are dialing or being served."""
        cdef int index
        cdef long saying_farewell = 0
        for index in range(self._worker_count):
            saying_farewell += self._workers[index].farewell_count
        return self._live + saying_farewell

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

    # -- the loop ---------------------------------------------------------------------

    def _run(self):
        pthread_setname_np(pthread_self(), "gate")
        ask_for_short_slices()
        try:
            while not self._stopping:
                with nogil:
                    self._undialed = 0
                    self._collect()
                self._tell()
                if self._to_dial.first != NULL or self._short.first != NULL:
                    with nogil:
                        self._dial()
                    self._tell_dialed()
                if self._to_carry.first != NULL:
                    with nogil:
                        self._carry()
        except BaseException as error:
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
        if self._failed.first == NULL and self._opened.first == NULL and self._gone.first == NULL:
            timeout_ms = -1
            if self._armed_for != self._next_tick:
                self._armed_for = self._next_tick
                arm(self._timer, self._next_tick)
        count = epoll_wait(self._epoll, events, MAX_EVENTS, timeout_ms)
        self._now = monotonic()
        for index in range(count):
            mark = events[index].data.u64
            if mark == WAKEUP:
                unwake(self._wakeup)
                self._woken = True
            elif mark == TIMER:
                self._armed_for = 0
            elif mark < FIRST_LISTENER + MAX_LISTENERS:
                self._accept_burst(<int>mark - FIRST_LISTENER)
            else:
                flow = marked(self._slabs, mark)
                if flow != NULL:
                    self._dial_event(flow, events[index].events)

    cdef void _tell(self):
        """Tell the gate everything that happened, and take its answers."""
        cdef Session* session
        cdef Line ended
        pthread_mutex_lock(&self._ended.lock)
        ended = self._ended.line
        self._ended.line.first = self._ended.line.last = NULL
        pthread_mutex_unlock(&self._ended.lock)
        self._tell_dialed()
        self._carry()
        if ended.first != NULL:
            self._may_resume = True
        while ended.first != NULL:
            self._tell_closed(take_first(&ended))
        while self._gone.first != NULL:
            self._tell_closed(take_first(&self._gone))
        while self._failed.first != NULL:
            self._tell_failed(take_first(&self._failed))
        while self._opened.first != NULL:
            self._tell_opened(take_first(&self._opened))
        if self._pause_code:
            self._tell_pause()
        if self._woken:
            self._woken = False
            self._run_commands()
        if self._now >= self._next_tick or (self._paused and self._may_resume):
            self._tick()

    cdef object _run_commands(self):
        while self._commands:
            try:
                self._commands.popleft()()
            except Exception:
                log.bug("engine_command_failed")

    cdef object _tick(self):
        cdef Session* session = self._dialing.first
        cdef Session* next
        cdef int hurry, index
        self._may_resume = False
        while session != NULL:
            next = session.next
            if session.deadline <= self._now:
                self._give_up(session, ETIMEDOUT)
            session = next
        if self._paused:
            if self._short.first == NULL and room_below(self._ceiling):
                self._resume()
        elif self._told_of_pause and self._now - self._resumed_at >= CALM_SECS:
            self._told_of_pause = False
            log.info("accept_resumed")
        if self._now >= self._next_gate_tick:
            self._next_gate_tick = self._now + TICK_MS / 1000.0
            try:
                self._gate.tick(self._now)
            except Exception:
                log.bug("gate_failed", call="tick")
        for index in range(self._worker_count):
            read_mail_soon(&self._workers[index])
        hurry = self._dialing.first != NULL or self._paused
        self._next_tick = self._now + (SHORT_TICK_MS if hurry else TICK_MS) / 1000.0

    cdef inline void _hurry(self) noexcept nogil:
        self._next_tick = min(self._next_tick, self._now + SHORT_TICK_MS / 1000.0)

    # -- listeners ----------------------------------------------------------------------

    def _listen(self, name, listening):
        if self._stopping or self._listener_count == MAX_LISTENERS:
            listening.close()
            return
        self._listeners.append((name, listening))
        self._listening[self._listener_count] = listening.fileno()
        self._listener_count += 1
        if not self._paused and not self._watch_listener(self._listener_count - 1):
            self._pause(errno)

    cdef bint _watch_listener(self, int index) noexcept nogil:
        """Return whether the system has room for it."""
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = FIRST_LISTENER + index
        return epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._listening[index], &event) == 0

    cdef void _accept_burst(self, int index) noexcept nogil:
        """Accept those who wait. Where it was one, it is taken to be one for a few more times:
        to ask for a second in vain costs, too, and whoever waits is told of again."""
        if self._singles:
            self._singles -= 1
            self._accept(index, 1)
        elif self._accept(index, ACCEPTS_PER_TURN) == 1:
            self._singles = SINGLES

    cdef int _accept(self, int index, int limit) noexcept nogil:
        """Accept so many at most. Return how many there were."""
        cdef int accepted = 0
        cdef Session* session
        cdef socklen_t size
        cdef int fd
        while accepted < limit and not self._paused:
            session = self._allocate()
            if session == NULL:
                self._pause(ENOMEM)
                return accepted
            size = sizeof(session.client_address)
            fd = accept4(
                self._listening[index], <sockaddr*>&session.client_address, &size,
                SOCK_NONBLOCK | SOCK_CLOEXEC,
            )
            if fd < 0:
                self._release(session)
                if errno == EAGAIN:
                    return accepted
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self._pause(errno)
                    return accepted
                accepted += 1  # one that has already gone
                continue
            accepted += 1
            session.client = session.upward.source = session.downward.sink = fd
            session.listener = index
            session.started_at = self._now
            append(&self._opened, session)
            self._undialed += 1
            if fd + self._undialed >= self._ceiling:  # each will need one more
                self._pause(EMFILE)
        return accepted

    cdef void _pause(self, int code) noexcept nogil:
        """Stop accepting until somebody gives descriptors back."""
        cdef int index
        if self._paused:
            return
        self._paused = True
        self._pause_code = code
        for index in range(self._listener_count):
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, self._listening[index], NULL)
        self._hurry()

    cdef object _tell_pause(self):
        code, self._pause_code = self._pause_code, 0
        if not self._told_of_pause:
            self._told_of_pause = True
            log.warning(
                "accept_paused",
                reason=os.strerror(code),
                hint="raise the limit of open files (ulimit -n, LimitNOFILE)",
            )

    cdef object _resume(self):
        cdef int index
        self._paused = False
        self._resumed_at = self._now
        for index in range(self._listener_count):
            if not self._watch_listener(index):
                self._pause(errno)
                return

    def _stop_accepting(self):
        cdef int index
        for index in range(self._listener_count):
            with nogil:
                self._accept(index, 1 << 16)
        self._listener_count = 0
        for _, listening in self._listeners:
            listening.close()
        while self._opened.first != NULL:
            self._tell_opened(take_first(&self._opened))

    # -- dialing ------------------------------------------------------------------------

    cdef void _dial(self) noexcept nogil:
        """Begin the dials that the gate asked for; those that are answered at once go on."""
        cdef Line line = self._short
        cdef Session* session
        cdef (Session*)[MAX_POLLED] dialed
        cdef pollfd[MAX_POLLED] polled
        cdef int count = 0, index
        self._short.first = self._short.last = NULL
        while True:
            session = take_first(&line)
            if session == NULL:
                session = take_first(&self._to_dial)
            if session != NULL and self._begin(session):
                dialed[count] = session
                polled[count].fd = session.backend
                polled[count].events = POLLOUT
                polled[count].revents = 0
                count += 1
            if count == MAX_POLLED or (session == NULL and count):
                poll(polled, count, 0)
                for index in range(count):
                    if polled[index].revents:
                        self._answered(dialed[index], polled[index].revents & (POLLERR | POLLHUP))
                    else:
                        self._watch(dialed[index])
                count = 0
            if session == NULL:
                return

    cdef int _begin(self, Session* session) noexcept nogil:
        """Begin one dial. Return whether it is under way."""
        cdef int family = session.backend_address.sin6_family
        cdef socklen_t size
        cdef int fd
        if session.state == CLOSED:
            append(&self._gone, session)
            return False
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        session.code = errno if fd < 0 else EMFILE
        if fd < 0 or fd >= self._ceiling:
            if fd >= 0:
                close(fd)
            if (session.code == EMFILE or session.code == ENFILE) and session.deadline > self._now:
                append(&self._short, session)
                self._pause(session.code)
            else:
                append(&self._failed, session)
            return False
        set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1)  # the rest when it is needed
        if unread_bytes(session.client):
            # What it has said follows at once, and need not be preceded by an empty packet.
            set_option(fd, IPPROTO_TCP, TCP_QUICKACK, 0)
            session.hushed = True
        size = sizeof(sockaddr_in) if family == AF_INET else sizeof(sockaddr_in6)
        if connect(fd, <sockaddr*>&session.backend_address, size) < 0 and errno != EINPROGRESS:
            session.code = errno
            close(fd)
            append(&self._failed, session)
            return False
        session.backend = session.upward.sink = session.downward.source = fd
        join(&self._dialing, session)
        return True

    cdef void _watch(self, Session* session) noexcept nogil:
        """Wait for a backend to answer, and for the client to leave meanwhile."""
        cdef epoll_event event
        session.watched = True
        event.events = EPOLLOUT
        event.data.u64 = mark_of(&session.downward)
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, session.backend, &event) < 0:
            self._give_up(session, errno)
            return
        event.events = 0
        event.data.u64 = mark_of(&session.upward)
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, session.client, &event) < 0:
            self._give_up(session, errno)
            return
        self._hurry()

    cdef void _end_dial(self, Session* session) noexcept nogil:
        """Take a session off the list of those that are dialing."""
        if session.watched:
            session.watched = False
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.backend, NULL)
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.client, NULL)
        leave(&self._dialing, session)

    cdef void _dial_event(self, Flow* flow, uint32_t mask) noexcept nogil:
        cdef Session* session = flow.session
        if session.state != DIALING or not session.watched:
            return
        if flow == &session.downward:
            self._answered(session, mask & BROKEN)
        elif mask & BROKEN:
            self._drop(session, CLIENT_GONE)

    cdef void _answered(self, Session* session, int broken) noexcept nogil:
        """A backend has answered, one way or the other."""
        cdef int code = failure_of(session.backend) if broken else 0
        if code:
            self._give_up(session, code)
            return
        self._end_dial(session)
        session.dial_secs = self._now - session.dialed_at
        append(&self._dialed, session)

    cdef void _give_up(self, Session* session, int code) noexcept nogil:
        """A dial has failed."""
        self._end_dial(session)
        self._leave_backend(session)
        session.code = code
        append(&self._failed, session)

    cdef void _drop(self, Session* session, uint8_t reason) noexcept nogil:
        """End a session that is dialing."""
        self._end_dial(session)
        self._leave_backend(session)
        self._end(session, reason)

    cdef void _leave_backend(self, Session* session) noexcept nogil:
        close(session.backend)
        session.backend = -1

    cdef void _end(self, Session* session, uint8_t reason) noexcept nogil:
        """End a session that is in no list; the gate is told."""
        session.state = CLOSED
        session.reason = reason
        append(&self._gone, session)

    # -- what the gate is told ------------------------------------------------------------

    cdef object _tell_opened(self, Session* session):
        name = self._listeners[session.listener][0]
        try:
            answer = self._gate.opened(_address(&session.client_address), name, self._now)
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="opened")
            connects = False
        if not connects:
            self._turn_away(session)
            return
        session.gate_previous = NULL
        session.gate_next = self._all
        if self._all != NULL:
            self._all.gate_previous = session
        self._all = session
        self._live += 1
        self._follow(session, answer)

    cdef object _tell_failed(self, Session* session):
        if session.state == CLOSED:
            self._tell_closed(session)
            return
        try:
            answer = self._gate.failed(<object>session.ticket, failure(session.code), self._now)
            connects = _connects(answer)
        except Exception:
            log.bug("gate_failed", call="failed")
            connects = False
        if connects:
            self._follow(session, answer)
        else:
            self._unlink(session)
            self._turn_away(session)

    cdef object _tell_dialed(self):
        """Tell who has answered, and let their bytes flow."""
        cdef Session* session
        while self._dialed.first != NULL:
            session = take_first(&self._dialed)
            try:
                self._gate.dialed(<object>session.ticket, session.dial_secs, self._now)
                append(&self._to_carry, session)
            except Exception:
                log.bug("gate_failed", call="dialed")
                self._abandon(session, FAULT)

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
                hand_over(self._idlest(), session)
            else:
                self._abandon(session, reason)

    cdef void _abandon(self, Session* session, uint8_t reason) noexcept nogil:
        """End a session whose backend has answered and that no byte thread has yet."""
        reset_on_close(session.client)
        reset_on_close(session.backend)
        self._leave_backend(session)
        self._end(session, reason)

    cdef Worker* _idlest(self) noexcept nogil:
        """Return the byte thread that has the fewest sessions, now one more."""
        cdef Worker* worker = &self._workers[0]
        cdef int index
        for index in range(1, self._worker_count):
            if self._workers[index].live < worker.live:
                worker = &self._workers[index]
        worker.live += 1
        return worker

    cdef object _tell_closed(self, Session* session):
        if session.worker != NULL:
            session.worker.live -= 1
            forget(session.worker, session)
        else:
            close(session.client)
        outcome = Outcome(
            REASONS[session.reason],
            session.upward.carried,
            session.downward.carried,
            self._now - session.started_at,
        )
        try:
            self._gate.closed(<object>session.ticket, outcome, self._now)
        except Exception:
            log.bug("gate_failed", call="closed")
        self._unlink(session)
        self._release(session)

    cdef object _follow(self, Session* session, answer):
        """Note where the gate wants this session to be dialed."""
        ticket = answer.ticket
        Py_INCREF(ticket)
        if session.ticket != NULL:
            Py_DECREF(<object>session.ticket)
        session.ticket = <PyObject*>ticket
        session.dialed_at = self._now
        session.deadline = self._now
        try:
            session.deadline += answer.timeout_secs
            host, port = answer.address
            dialable = _set_address(&session.backend_address, host.encode(), port)
        except (AttributeError, OverflowError, TypeError, ValueError):
            dialable = False
        if dialable:
            append(&self._to_dial, session)
        else:
            session.code = 0
            append(&self._failed, session)

    cdef object _turn_away(self, Session* session):
        """Close a client without a byte, and without a reset for what it has said."""
        cdef char[4096] said
        with nogil:
            shutdown(session.client, SHUT_WR)
            while recv(session.client, said, sizeof(said), 0) == sizeof(said):
                pass
            close(session.client)
        self._release(session)

    # -- sessions -------------------------------------------------------------------------

    cdef Session* _allocate(self) noexcept nogil:
        cdef Session* slab
        cdef Session* session
        cdef uint32_t number, generation
        cdef int index
        if self._free == NULL:
            if self._slab_count == MAX_SLABS:
                return NULL
            slab = <Session*>calloc(SLAB_SESSIONS, sizeof(Session))
            if slab == NULL:
                return NULL
            for index in range(SLAB_SESSIONS):
                slab[index].number = self._slab_count * SLAB_SESSIONS + index
                slab[index].next = self._free
                self._free = &slab[index]
            self._slabs[self._slab_count] = slab
            self._slab_count += 1
        session = self._free
        self._free = session.next
        number = session.number
        generation = session.generation
        memset(session, 0, sizeof(Session))
        session.number = number
        session.generation = max(generation + 1, 1)  # 0 is none
        session.state = DIALING
        session.downward.flags = PROMPT  # as the listener is
        session.backend = -1
        session.upward.session = session.downward.session = session
        session.upward.reverse = &session.downward
        session.downward.reverse = &session.upward
        session.upward.pipe_read = session.upward.pipe_write = -1
        session.downward.pipe_read = session.downward.pipe_write = -1
        return session

    cdef void _release(self, Session* session) noexcept nogil:
        session.next = self._free
        self._free = session

    cdef object _unlink(self, Session* session):
        """Take a session off the list of all, and let go of its ticket."""
        if session.gate_previous != NULL:
            session.gate_previous.gate_next = session.gate_next
        else:
            self._all = session.gate_next
        if session.gate_next != NULL:
            session.gate_next.gate_previous = session.gate_previous
        self._live -= 1
        ticket = <object>session.ticket
        Py_DECREF(ticket)
        session.ticket = NULL

    def _list_sessions(self):
        cdef Session* session = self._all
        cdef uint8_t state
        now = monotonic()
        infos = []
        while session != NULL:
            half_closed = (session.upward.flags | session.downward.flags) & DONE
            state = session.state  # read once: its byte thread may be ending it meanwhile
            if state == CLOSED:  # the gate is about to be told
                session = session.gate_next
                continue
            infos.append(
                SessionInfo(
                    <object>session.ticket,
                    _address(&session.client_address),
                    "half_closed" if half_closed else STATES[state],
                    session.upward.carried,
                    session.downward.carried,
                    now - session.started_at,
                )
            )
            session = session.gate_next
        return infos

    def _list_carried(self):
        cdef Session* session = self._all
        found = []
        while session != NULL:
            found.append(
                (<object>session.ticket, session.upward.carried, session.downward.carried)
            )
            session = session.gate_next
        return found

    def _close_sessions(self, wanted):
        cdef Session* session = self._all
        while session != NULL:
            if wanted is None or wanted(<object>session.ticket):
                if session.worker != NULL:
                    if session.worker.started:
                        ask(session.worker, session, ABORTED)
                elif session.backend >= 0:
                    self._drop(session, ABORTED)
                elif session.state == DIALING:
                    # It is on its way through a list, whose next reader sees this.
                    session.state = CLOSED
                    session.reason = ABORTED
            session = session.gate_next

    def _clean_up(self):
        cdef int index
        self._run_commands()
        for _, listening in self._listeners:
            listening.close()
        self._listener_count = 0
        with nogil:
            for index in range(self._worker_count):
                stop_worker(&self._workers[index])
        while self._opened.first != NULL:
            self._turn_away(take_first(&self._opened))
        while self._dialed.first != NULL:
            self._abandon(take_first(&self._dialed), ABORTED)
        while self._to_carry.first != NULL:
            self._abandon(take_first(&self._to_carry), ABORTED)
        self._close_sessions(None)
        with nogil:
            self._dial()
        self._tell()
        # With the lock held throughout: `live` and `call` may be asked by others meanwhile.
        for index in range(<int>self._slab_count):
            free(self._slabs[index])
        free(self._slabs)
        free(self._workers)
        free(self._buffer)
        self._slabs = NULL
        self._slab_count = 0
        self._workers = NULL
        self._worker_count = 0
        close(self._epoll)
        close(self._timer)
        close(self._wakeup)
        self._wakeup = -1
        pthread_mutex_destroy(&self._ended.lock)


cdef bint _connects(answer) except -1:
    """Return whether a gate wants this client connected. Raises TypeError for no answer."""
    if isinstance(answer, Connect):
        return True
    if isinstance(answer, Refuse):
        return False
    raise TypeError(f"a gate answers Connect or Refuse, not {answer!r}")


cdef object _address(sockaddr_in6* address):
    """Return an address as `socket` gives it."""
    cdef sockaddr_in* four = <sockaddr_in*>address
    cdef char[64] text
    if address.sin6_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
        return (text.decode("ascii"), ntohs(four.sin_port))
    inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof(text))
    return (
        text.decode("ascii"),
        ntohs(address.sin6_port),
        ntohl(address.sin6_flowinfo),
        address.sin6_scope_id,
    )


cdef bint _set_address(sockaddr_in6* address, bytes host, int port) except -1:
    """Fill in an address; return whether `host` and `port` are one."""
    cdef sockaddr_in* four = <sockaddr_in*>address
    if not 0 <= port < 65536:
        return False
    memset(address, 0, sizeof(sockaddr_in6))
    if b":" in host:
        address.sin6_family = AF_INET6
        address.sin6_port = htons(port)
        return inet_pton(AF_INET6, host, &address.sin6_addr) == 1
    four.sin_family = AF_INET
    four.sin_port = htons(port)
    return inet_pton(AF_INET, host, &four.sin_addr) == 1
