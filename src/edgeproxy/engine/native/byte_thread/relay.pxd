"""See relay.pyx."""

from libc.stdint cimport uint8_t

from edgeproxy.engine.native.session cimport Flow, Session
from edgeproxy.engine.native.byte_thread.worker cimport Worker

cdef bint speaks_tls(Session* session) noexcept nogil
cdef void pump(Worker* worker, Flow* flow) noexcept nogil
cdef void source_failed(Worker* worker, Flow* flow, int code) noexcept nogil
cdef void finish(Worker* worker, Session* session, uint8_t reason, int reset) noexcept nogil
cdef void break_off(Worker* worker, Session* session, uint8_t reason) noexcept nogil
cdef int keep(Flow* flow, char* data, size_t size) noexcept nogil
