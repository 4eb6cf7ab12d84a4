"""See session_list.pyx."""

from edgeproxy.engine.native.session cimport Pool

cdef object list_sessions(Pool* pool)
cdef object list_carried(Pool* pool)
cdef object list_unanswered(Pool* pool)
cdef object list_ends(Pool* pool, wanted)
