"""See handshake.pyx."""

from libc.stdint cimport uint8_t

from edgeproxy.engine.native.session cimport Session
from edgeproxy.engine.native.byte_thread.worker cimport Worker

cdef void advance(Worker* worker, Session* session) noexcept nogil
cdef void fail(Worker* worker, Session* session, uint8_t reason) noexcept nogil
cdef void expire_handshakes(Worker* worker) noexcept nogil
