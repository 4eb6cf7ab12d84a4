"""See slot_queue.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.byte_thread.workers cimport Workers
from edgeproxy.engine.native.session cimport Queue, Session

cdef class SlotQueue:
    cdef readonly long count
    cdef object place
    cdef bint is_last, _has_freed, _has_asked
    cdef uint32_t _turns_wanted
    cdef Workers _workers
    cdef Queue _line
    cdef object _waits, _shares, _told_freed, _freed
    cdef long _unseen
    cdef double _ending_secs, _longest_secs

    cdef object prepare(self, Workers workers)
    cdef bint has_room(self, wait) except -1
    cdef object add(self, Session* session, wait, double now)
    cdef object note_end(self, gate, ticket)
    cdef bint begin_turn(self) except -1
    cdef Session* next_to_ask(self, double now) except? NULL
    cdef object put_back(self, Session* session, wait)
    cdef object end_turn(self)
    cdef void excuse(self, double secs) noexcept nogil
    cdef Queue give_up_all(self)
    cdef object _put(self, Session* session, wait)
