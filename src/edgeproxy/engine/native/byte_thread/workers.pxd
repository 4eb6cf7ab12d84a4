"""See workers.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.session cimport Queue, Pool, Session
from edgeproxy.engine.native.byte_thread.worker cimport Ended, Worker

cdef class Workers:
    cdef Worker* _workers
    cdef int _count
    cdef Ended _ended
    cdef uint32_t _turns_wanted

    cdef object prepare(self, settings, Pool* pool, int wakeup)
    cdef object start(self, int ceiling)
    cdef void give(self, Session* session) noexcept nogil
    cdef void meet(self, Session* session) noexcept nogil
    cdef Worker* _choose(self) noexcept nogil
    cdef void take_back(self, Session* session) noexcept nogil
    cdef Queue take_ended(self) noexcept nogil
    cdef void await_ends(self, bint awaited) noexcept nogil
    cdef uint32_t ask_for_turns(self) noexcept nogil
    cdef bint have_turned(self, uint32_t wanted) noexcept nogil
    cdef double ending_at(self) noexcept nogil
    cdef void ask_to_end(self, Session* session) noexcept nogil
    cdef void remind(self) noexcept nogil
    cdef long lingering(self) noexcept nogil
    cdef void stop(self) noexcept nogil
    cdef void let_go(self) noexcept nogil
