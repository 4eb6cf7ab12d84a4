"""See context.pyx."""

from edgeproxy.engine.native.session cimport TlsEnd

cdef class TlsContext:
    cdef void* _context
    cdef bint begin(self, TlsEnd* end, int socket) noexcept

cdef class BackendContext:
    cdef void* _context
    cdef bint begin(self, TlsEnd* end, int socket, char* name, TlsEnd* client) noexcept
