# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads what clients say first; the twin of `portable/ingress/preread`, where it is explained.

A session that is being heard is in one of the two lines, but for the moment in which the gate is
asked about it.
"""

from edgeproxy.engine.native.session cimport PREREAD, push, link, unlink, mark_of
from edgeproxy.engine.native.system cimport *

cdef uint32_t INTEREST_IN_WORDS = EPOLLIN | EPOLLRDHUP | EPOLLET
cdef uint32_t LAST = EPOLLRDHUP | EPOLLHUP | EPOLLERR


cdef class Preread:
    """The clients that are being heard. Used on the gate thread only.

    Attributes:
        waiting: Who has not said enough.
        heard: Whom the gate is to be asked about.
        count: How many are in either.
    """

    cdef object prepare(self, int epoll):
        """Watch clients by this epoll."""
        self._epoll = epoll

    cdef bint add(self, Session* session, double secs) noexcept nogil:
        """Hear a client for so long. Return whether the system has room to watch it."""
        cdef epoll_event event
        event.events = INTEREST_IN_WORDS
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
        """A client has said something, or ended."""
        if mask & LAST:
            session.read_ended = True
        self._ask(session)

    cdef void expire(self, double now) noexcept nogil:
        """See who has taken too long."""
        cdef Session* session = self.waiting.first
        cdef Session* next
        while session != NULL:
            next = session.next
            if session.due_at <= now:
                session.read_ended = True
                self._ask(session)
            session = next

    cdef void go_on(self, Session* session, uint32_t bytes_wanted) noexcept nogil:
        """The gate wants to hear more of a session that was in line to be asked about."""
        session.bytes_wanted = bytes_wanted
        session.watched = True
        link(&self.waiting, session)

    cdef void drop(self, Session* session) noexcept nogil:
        """A session that was in line to be asked about is heard no more."""
        self.count -= 1
        epoll_ctl(self._epoll, EPOLL_CTL_DEL, session.client, NULL)

    cdef void _ask(self, Session* session) noexcept nogil:
        if session.watched:  # it is not in line already
            session.watched = False
            unlink(&self.waiting, session)
            push(&self.heard, session)
