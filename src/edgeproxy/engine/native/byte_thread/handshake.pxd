"""See welcome.pyx."""

from libc.stdint cimport uint8_t

from edgeproxy.engine.native.session cimport Session
from edgeproxy.engine.native.byte_thread.worker cimport Worker

cdef void greet(Worker* worker, Session* session) noexcept nogil
cdef void dismiss(Worker* worker, Session* session, uint8_t reason) noexcept nogil
cdef void hurry_guests(Worker* worker) noexcept nogil
