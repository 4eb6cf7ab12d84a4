"""See ingress.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.gate_thread.acceptor cimport Acceptor
from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.gate_thread.preread cimport Preread
from edgeproxy.engine.native.session cimport Queue, Pool, Session

cdef class Ingress:
    cdef Queue identified, unwanted
    cdef object _gate, _clients
    cdef Acceptor _acceptor
    cdef Workers _workers
    cdef Preread _preread
    cdef Pool* _pool
    cdef char* _buffer
    cdef long _handshaking

    cdef object prepare(
        self, gate, Acceptor acceptor, Workers workers, Pool* pool, char* buffer, int epoll
    )
    cdef long count(self) noexcept nogil
    cdef bint is_prereading(self) noexcept nogil
    cdef bint is_to_tell(self) noexcept nogil
    cdef void happened(self, Session* session, uint32_t mask) noexcept nogil
    cdef void excuse(self, double secs) noexcept nogil
    cdef void expire(self, double now) noexcept nogil
    cdef object receive_all(self, double now)
    cdef object tell_all_preread(self, double now)
    cdef object tell_handshake_over(self, Session* session, double now, bint is_stopping)
    cdef object take_client(self, Session* session)
    cdef object close(self, double now)
    cdef object _tell_preread(self, Session* session, double now)
    cdef object _begin_handshake(self, Session* session, client, double now)
    cdef object _let_in(self, client, double now)
    cdef object _give_up(self, Session* session, client, double now)
    cdef object _tell_lost(self, Session* session, client, double now, bint is_stopping)
    cdef object _tell_gone(self, client, reason, double now)
