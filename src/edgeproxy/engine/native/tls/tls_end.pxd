"""See tls_end.pyx."""

from edgeproxy.engine.native.session cimport TlsEnd

# How a handshake stands.
cdef enum:
    SHAKEN = 1
    SHAKING = 0
    UNWELCOME = -1
    DEPARTED = -2  # the peer has left

cdef bint attach(void* tls, TlsEnd* end, int socket) noexcept nogil
cdef int shake_hands(TlsEnd* end) noexcept nogil
cdef ssize_t tls_read(TlsEnd* end, char* buffer, size_t size) noexcept nogil
cdef ssize_t tls_write(TlsEnd* end, char* data, size_t size) noexcept nogil
cdef bint tls_is_drained(TlsEnd* end) noexcept nogil
cdef bint tls_has_unread(TlsEnd* end) noexcept nogil
cdef int tls_flush(TlsEnd* end) noexcept nogil
cdef bint tls_has_unsent(TlsEnd* end) noexcept nogil
cdef int tls_say_end(TlsEnd* end) noexcept nogil
cdef void tls_part(TlsEnd* end, char* buffer, size_t size) noexcept nogil
cdef void end_tls(TlsEnd* end) noexcept nogil
cdef object tls_info(TlsEnd* end)
