"""See slot_queue.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.session cimport Queue, Session

cdef class SlotQueue:
    cdef readonly long count
    cdef long freed
    cdef object place
    cdef bint is_last, _has_asked
    cdef uint32_t _turns_wanted
    cdef Workers _workers
    cdef Queue _line
    cdef object _places
    cdef long _most
    cdef double _ending_secs, _longest_secs

    cdef object prepare(self, Workers workers)
    cdef bint is_full(self) noexcept nogil
    cdef object add(self, Session* session, place, double now)
    cdef Queue take_all(self) noexcept nogil
    cdef bint is_to_ask(self, Session* session, double now) except -1
    cdef object put_back(self, Session* session, place)
    cdef object end_turn(self)
    cdef void excuse(self, double secs) noexcept nogil
