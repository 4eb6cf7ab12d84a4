# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connects sessions to the backends that the gate chose, and collects what became of each dial.

A session is in exactly one of the queues. Dials that are answered at once, as on a local
network, are found by one `poll` for all of a turn and never watched.
"""

from libc.errno cimport EINPROGRESS, EMFILE, ENFILE, ETIMEDOUT, errno
from libc.string cimport memset
from posix.unistd cimport close

from edgeproxy.engine.native.syscalls cimport (
    failure_of,
    is_gone,
    monotonic,
    reset_on_close,
    set_option,
    unread_bytes,
)
from edgeproxy.engine.native.session cimport (
    CLIENT_GONE,
    CLOSED,
    DIALING,
    excuse_all,
    push,
    link,
    unlink,
    mark_of,
    take_first,
)
from edgeproxy.engine.native.system cimport *

cdef enum:
    MAX_POLLED = 256

cdef uint32_t BROKEN = EPOLLERR | EPOLLHUP


cdef class Dialer:
    """The dials of an engine. Used on the gate thread only.

    Attributes:
        wanted: Sessions to dial.
        short: Sessions to dial when there are descriptors again.
        dialing: Sessions whose backend has not answered yet.
        dialed: Sessions whose backend has answered.
        failed: Sessions whose dial has failed; the reason is in `code`.
        gone: Sessions that ended before a byte thread had them.
        shortage: The error number if descriptors ran out, else 0. The reader resets it.
    """

    cdef object prepare(self, int epoll, int ceiling):
        """Watch dials with this epoll; use descriptors below `ceiling` (`engine.descriptors`)."""
        self._epoll = epoll
        self._ceiling = ceiling

    cdef double dial(self) noexcept nogil:
        """Begin all dials that are wanted; those that are answered at once go on.

        Return the time afterwards, in monotonic seconds.
        """
        cdef Queue line = self.short
        cdef Session* session
        cdef (Session*)[MAX_POLLED] dialed
        cdef pollfd[MAX_POLLED] polled
        cdef int count = 0, index
        cdef double now = monotonic()
        self.short.first = self.short.last = NULL
        while True:
            session = take_first(&line)
            if session != NULL and is_gone(session.client):  # no epoll watches waiting clients
                session.state = CLOSED
                session.reason = CLIENT_GONE
            if session == NULL:
                session = take_first(&self.wanted)
            if session != NULL and self._begin(session, now):
                dialed[count] = session
                polled[count].fd = session.backend
                polled[count].events = POLLOUT
                polled[count].revents = 0
                count += 1
            if count == MAX_POLLED or (session == NULL and count):
                poll(polled, count, 0)
                now = monotonic()
                for index in range(count):
                    if polled[index].revents:
                        self._answered(
                            dialed[index], polled[index].revents & (POLLERR | POLLHUP), now
                        )
                    else:
                        self._watch(dialed[index])
                count = 0
            if session == NULL:
                return now

    cdef bint _begin(self, Session* session, double now) noexcept nogil:
        """Begin one dial. Return whether it is under way."""
        cdef int family = session.backend_address.sin6_family
        cdef socklen_t size
        cdef int fd = session.preconnected_fd
        if session.state == CLOSED:
            if fd >= 0:
                close(fd)
            push(&self.gone, session)
            return False
        if fd >= 0:
            session.preconnected_fd = -1
            session.began_at = 0
            self._await(session, fd)
            return True
        fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        session.code = errno if fd < 0 else EMFILE
        if fd < 0 or fd >= self._ceiling:
            if fd >= 0:
                close(fd)
            if (session.code == EMFILE or session.code == ENFILE) and session.due_at > now:
                push(&self.short, session)
                self.shortage = session.code
            else:
                push(&self.failed, session)
            return False
        session.began_at = now
        set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1)  # the other options when they are needed
        if session.client_tls.tls == NULL and unread_bytes(session.client):
            # What the client has sent follows at once, and need not be preceded by an empty packet.
            set_option(fd, IPPROTO_TCP, TCP_QUICKACK, 0)
            session.quickack_off = True
        size = sizeof(sockaddr_in) if family == AF_INET else sizeof(sockaddr_in6)
        if connect(fd, <sockaddr*>&session.backend_address, size) < 0 and errno != EINPROGRESS:
            session.code = errno
            close(fd)
            push(&self.failed, session)
            return False
        self._await(session, fd)
        return True

    cdef void _await(self, Session* session, int fd) noexcept nogil:
        """A dial is under way on this descriptor."""
        session.backend = session.upward.sink = session.downward.source = fd
        link(&self.dialing, session)

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

    cdef void happened(self, Flow* flow, uint32_t mask, double now) noexcept nogil:
        """Something happened to a backend that is being dialed, or to its client."""
        cdef Session* session = flow.session
        if session.state != DIALING or not session.watched:
            return
        if flow == &session.downward:
            self._answered(session, mask & BROKEN, now)
        elif mask & BROKEN:
            reset_on_close(session.backend)
            self.drop(session, CLIENT_GONE)

    cdef void _answered(self, Session* session, int broken, double now) noexcept nogil:
        """A backend has answered, one way or the other."""
        cdef int code = failure_of(session.backend) if broken else 0
        if code:
            self._give_up(session, code)
            return
        self._unwatch(session)
        session.active_at = now
        push(&self.dialed, session)

    cdef void excuse(self, double secs) noexcept nogil:
        """Let all dials take longer by the seconds in which this process stood still."""
        excuse_all(&self.wanted, secs)
        excuse_all(&self.short, secs)
        excuse_all(&self.dialing, secs)

    cdef void expire(self, double now) noexcept nogil:
        """Give up the dials that have taken too long."""
        cdef Session* session = self.dialing.first
        cdef Session* next
        while session != NULL:
            next = session.next
            if session.due_at <= now:
                self._give_up(session, ETIMEDOUT)
            session = next

    cdef void _give_up(self, Session* session, int code) noexcept nogil:
        """A dial has failed."""
        self._unwatch(session)
        leave_backend(session)
        session.code = code
        push(&self.failed, session)

    cdef void drop(self, Session* session, uint8_t reason) noexcept nogil:
        """End a session that is dialing."""
        self._unwatch(session)
        self.end(session, reason)

    cdef void give_up(self, Session* session, int code) noexcept nogil:
        """The backend has answered but cannot be used: this dial has failed."""
        leave_backend(session)
        session.code = code
        push(&self.failed, session)

    cdef void abandon(self, Session* session, uint8_t reason) noexcept nogil:
        """Reset both sides of a session that has left its queue after its backend answered."""
        reset_on_close(session.client)
        reset_on_close(session.backend)
        self.end(session, reason)

    cdef void end(self, Session* session, uint8_t reason) noexcept nogil:
        """End a session that is in no queue any more, and has no bytes left to carry."""
        leave_backend(session)
        session.state = CLOSED
        session.reason = reason
        push(&self.gone, session)

    cdef void _unwatch(self, Session* session) noexcept nogil:
        """Stop watching a dial, and take its session out of `dialing`."""
        if session.watched:
            session.watched = False
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.backend, NULL)
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.client, NULL)
        unlink(&self.dialing, session)


cdef void leave_backend(Session* session) noexcept nogil:
    close(session.backend)
    session.backend = -1


cdef bint set_address(sockaddr_in6* address, bytes host, int port) except -1:
    """Fill in an address; return whether `host` and `port` are a valid one."""
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
