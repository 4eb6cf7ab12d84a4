# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads the first bytes of clients; the twin of `portable/ingress/preread`, where it is explained.

A session is in one of the two queues, except while the gate is asked about it.
"""

from edgeproxy.engine.native.session cimport PREREAD, excuse_all, push, link, unlink, mark_of
from edgeproxy.engine.native.system cimport *

cdef uint32_t PREREAD_INTEREST = EPOLLIN | EPOLLRDHUP | EPOLLET
cdef uint32_t LAST = EPOLLRDHUP | EPOLLHUP | EPOLLERR


cdef class Preread:
    """The clients in preread. Used on the gate thread only.

    Attributes:
        waiting: Clients that have not sent enough.
        ready: Clients that the gate is to be asked about.
        count: The number of clients in both.
    """

    cdef object prepare(self, int epoll):
        """Watch clients with this epoll."""
        self._epoll = epoll

    cdef bint add(self, Session* session, double secs) noexcept nogil:
        """Preread a client for `secs` at most. Return whether the system has room to watch it."""
        cdef epoll_event event
        event.events = PREREAD_INTEREST
        event.data.u64 = mark_of(&session.upward)
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, session.client, &event) < 0:
            return False
        session.state = PREREAD
        session.due_at = session.started_at + secs
        session.bytes_wanted = 1
        session.watched = True
        self.count += 1
        link(&self.waiting, session)
        return True

    cdef void happened(self, Session* session, uint32_t mask) noexcept nogil:
        """A client has sent bytes, or has ended its side."""
        if mask & LAST:
            session.read_ended = True
        self._ask(session)

    cdef void excuse(self, double secs) noexcept nogil:
        """Let all clients take longer by the seconds in which this process stood still."""
        excuse_all(&self.waiting, secs)

    cdef void expire(self, double now) noexcept nogil:
        """Have the gate asked about clients whose time is over."""
        cdef Session* session = self.waiting.first
        cdef Session* next
        while session != NULL:
            next = session.next
            if session.due_at <= now:
                self._ask(session)
            session = next

    cdef void go_on(self, Session* session, uint32_t bytes_wanted) noexcept nogil:
        """The gate wants more bytes of a client that was in `ready`."""
        session.bytes_wanted = bytes_wanted
        session.watched = True
        link(&self.waiting, session)

    cdef void drop(self, Session* session) noexcept nogil:
        """Stop watching a client that was in `ready`."""
        self.count -= 1
        epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.client, NULL)

    cdef void _ask(self, Session* session) noexcept nogil:
        if session.watched:  # it is not in `ready` already
            session.watched = False
            unlink(&self.waiting, session)
            push(&self.ready, session)
