"""See handoff.pyx."""

from libc.stdint cimport uint8_t

from edgeproxy.engine.native.session cimport Session
from edgeproxy.engine.native.byte_thread.worker cimport Worker

cdef void hand_over(Worker* worker, Session* session) noexcept nogil
cdef void hand_over_handshake(Worker* worker, Session* session) noexcept nogil
cdef void wake_for_handoff(Worker* worker) noexcept nogil
cdef int ask(Worker* worker, Session* session, uint8_t reason) noexcept nogil
cdef void forget(Worker* worker, Session* session) noexcept nogil
cdef void take_handoff(Worker* worker) noexcept nogil
cdef void hand_back(Worker* worker) noexcept nogil
cdef void tell_late(Worker* worker) noexcept nogil
