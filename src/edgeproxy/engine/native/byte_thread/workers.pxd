"""See workers.pyx."""

from edgeproxy.engine.native.session cimport Queue, Pool, Session
from edgeproxy.engine.native.byte_thread.worker cimport Ended, Worker

cdef class Workers:
    cdef Worker* _workers
    cdef int _count
    cdef Ended _ended

    cdef object prepare(self, settings, Pool* pool, int wakeup)
    cdef object start(self, int ceiling)
    cdef void give(self, Session* session) noexcept nogil
    cdef void meet(self, Session* session) noexcept nogil
    cdef Worker* _choose(self) noexcept nogil
    cdef void take_back(self, Session* session) noexcept nogil
    cdef Queue take_ended(self) noexcept nogil
    cdef void ask_to_end(self, Session* session) noexcept nogil
    cdef void remind(self) noexcept nogil
    cdef long lingering(self) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef void let_go(self) noexcept nogil
