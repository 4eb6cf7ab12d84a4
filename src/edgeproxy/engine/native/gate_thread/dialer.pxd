"""See dialer.pyx."""

from libc.stdint cimport uint8_t, uint32_t

from edgeproxy.engine.native.session cimport Flow, Queue, Session
from edgeproxy.engine.native.system cimport sockaddr_in6

cdef class Dialer:
    cdef Queue wanted, short, dialing, dialed, failed, gone
    cdef int shortage
    cdef int _epoll, _ceiling

    cdef object prepare(self, int epoll, int ceiling)
    cdef double dial(self) noexcept nogil
    cdef void happened(self, Flow* flow, uint32_t mask, double now) noexcept nogil
    cdef void excuse(self, double secs) noexcept nogil
    cdef void expire(self, double now) noexcept nogil
    cdef void drop(self, Session* session, uint8_t reason) noexcept nogil
    cdef void give_up(self, Session* session, int code) noexcept nogil
    cdef void abandon(self, Session* session, uint8_t reason) noexcept nogil
    cdef void end(self, Session* session, uint8_t reason) noexcept nogil
    cdef bint _begin(self, Session* session, double now) noexcept nogil
    cdef void _await(self, Session* session, int fd) noexcept nogil
    cdef void _watch(self, Session* session) noexcept nogil
    cdef void _answered(self, Session* session, int broken, double now) noexcept nogil
    cdef void _give_up(self, Session* session, int code) noexcept nogil
    cdef void _unwatch(self, Session* session) noexcept nogil

cdef bint set_address(sockaddr_in6* address, bytes host, int port) except -1
