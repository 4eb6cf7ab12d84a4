"""See first_bytes.pyx."""

from libc.stdint cimport uint8_t

from edgeproxy.engine.native.session cimport Session

cdef uint8_t say_prefix(Session* session, int more) noexcept nogil
cdef uint8_t carry_first(Session* session, char* buffer) noexcept nogil
