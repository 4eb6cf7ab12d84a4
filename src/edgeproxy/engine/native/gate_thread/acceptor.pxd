"""See acceptor.pyx."""

from edgeproxy.engine.native.session cimport Pool, Queue, Session
from edgeproxy.engine.native.system cimport sockaddr_in6

# Events of listeners are marked with FIRST_LISTENER and what follows it; see `session.mark_of`.
cdef enum:
    FIRST_LISTENER = 16

cdef class Acceptor:
    cdef Queue opened
    cdef bint paused
    cdef int undialed, ceiling
    cdef object _listeners
    cdef Pool* _pool
    cdef int* _listening
    cdef int* _places
    cdef int _epoll, _count, _room, _singles, _code
    cdef bint _told
    cdef double _resumed_at, _drained_at
    cdef size_t _drained

    cdef object prepare(self, Pool* pool, int epoll)
    cdef object add(self, listener)
    cdef object _make_room(self)
    cdef void turn_away(self, Session* session, double now) noexcept nogil
    cdef object renew(self, name, settings, tls)
    cdef object remove(self, name, double now)
    cdef object listener_at(self, int place)
    cdef void accept(self, int listener, double now) noexcept nogil
    cdef void pause(self, int code) noexcept nogil
    cdef object tell_pause(self)
    cdef object resume(self, double now)
    cdef object accept_rest(self, double now)
    cdef object close(self)
    cdef object _close(self, int slot)
    cdef bint _watch(self, int listener) noexcept nogil
    cdef int _accept(self, int listener, int limit, double now) noexcept nogil

cdef object client_of(Session* session, listener)
cdef object address_of(sockaddr_in6* address)
cdef object local_address_of(int fd)
