"""See sessions.pyx."""

from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.gate_thread.acceptor cimport Acceptor
from edgeproxy.engine.native.gate_thread.dialer cimport Dialer
from edgeproxy.engine.native.gate_thread.ingress cimport Ingress
from edgeproxy.engine.native.gate_thread.slot_queue cimport SlotQueue
from edgeproxy.engine.native.session cimport Pool, Queue, Session
from edgeproxy.engine.native.tls.context cimport BackendContext

cdef class Sessions:
    cdef double now
    cdef long live
    cdef Queue to_carry
    cdef object _gate
    cdef Acceptor _acceptor
    cdef Dialer _dialer
    cdef Workers _workers
    cdef Ingress _ingress
    cdef SlotQueue slot_queue
    cdef BackendContext _backend_context
    cdef Pool* _pool
    cdef Queue _closed
    cdef char* _buffer

    cdef object prepare(
        self,
        gate,
        Acceptor acceptor,
        Dialer dialer,
        Workers workers,
        Ingress ingress,
        Pool* pool,
        char* buffer,
    )
    cdef object trust(self, BackendContext context)
    cdef bint tell_all_closed(self, bint is_stopping) except -1
    cdef object tell_ended_dials(self)
    cdef object tell_all_waiting(self)
    cdef object tell_all_opened(self)
    cdef object tell_dialed(self)
    cdef void carry(self) noexcept nogil
    cdef object close_sessions(self, wanted)
    cdef object close_all(self)
    cdef object _tell_opened(self, Session* session, client)
    cdef object _tell_again(self, Session* session)
    cdef object _admit_or_turn_away(self, Session* session, answer)
    cdef object _tell_failed(self, Session* session)
    cdef object _tell_one_dialed(self, Session* session)
    cdef void _meet_backend(self, Session* session) noexcept nogil
    cdef object _tell_backend_met(self, Session* session, bint is_stopping)
    cdef object _tell_closed(self, Session* session)
    cdef object _follow(self, Session* session, answer)
    cdef bint _begin_backend_tls(self, Session* session, name) except -1
    cdef object _note_prefix(self, Session* session, bytes prefix)
    cdef object _let_go(self, Session* session)
