"""See tls.pyx."""

from edgeproxy.engine.native.session cimport Session

# How a handshake stands.
cdef enum:
    SHAKEN = 1
    SHAKING = 0
    UNWELCOME = -1

cdef class TlsContext:
    cdef void* _context
    cdef bint begin(self, Session* session) noexcept

cdef int shake_hands(Session* session) noexcept nogil
cdef ssize_t tls_read(Session* session, char* buffer, size_t size) noexcept nogil
cdef ssize_t tls_write(Session* session, char* data, size_t size) noexcept nogil
cdef bint tls_is_drained(Session* session) noexcept nogil
cdef bint tls_has_unread(Session* session) noexcept nogil
cdef int tls_flush(Session* session) noexcept nogil
cdef bint tls_has_unsent(Session* session) noexcept nogil
cdef int tls_say_end(Session* session) noexcept nogil
cdef void end_tls(Session* session) noexcept nogil
cdef object tls_info(Session* session)
