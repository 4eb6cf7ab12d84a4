"""See session_list.pyx."""

from libc.stdint cimport uint32_t

from edgeproxy.engine.native.session cimport Pool

cdef object list_sessions(Pool* pool, uint32_t slice_number)
cdef object list_carried(Pool* pool, uint32_t slice_number)
cdef object list_unanswered(Pool* pool)
cdef object list_ends(Pool* pool, wanted)
