"""See preread.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.session cimport Queue, Session

cdef class Preread:
    cdef Queue waiting, ready
    cdef readonly long count
    cdef int _epoll

    cdef object prepare(self, int epoll)
    cdef bint add(self, Session* session, double secs) noexcept nogil
    cdef void happened(self, Session* session, uint32_t mask) noexcept nogil
    cdef void excuse(self, double secs) noexcept nogil
    cdef void expire(self, double now) noexcept nogil
    cdef void go_on(self, Session* session, uint32_t bytes_wanted) noexcept nogil
    cdef void drop(self, Session* session) noexcept nogil
    cdef void _ask(self, Session* session) noexcept nogil
