# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Replaces `tls_end.pyx` where the engine is built without OpenSSL: no session has TLS."""

HAS_TLS = False

cdef bint attach(void* tls, TlsEnd* end, int socket) noexcept nogil:
    return False

cdef int shake_hands(TlsEnd* end) noexcept nogil:
    return UNWELCOME

cdef ssize_t tls_read(TlsEnd* end, char* buffer, size_t size) noexcept nogil:
    return -1

cdef ssize_t tls_write(TlsEnd* end, char* data, size_t size) noexcept nogil:
    return -1

cdef bint tls_is_drained(TlsEnd* end) noexcept nogil:
    return True

cdef bint tls_has_unread(TlsEnd* end) noexcept nogil:
    return False

cdef int tls_flush(TlsEnd* end) noexcept nogil:
    return True

cdef bint tls_has_unsent(TlsEnd* end) noexcept nogil:
    return False

cdef int tls_say_end(TlsEnd* end) noexcept nogil:
    return True

cdef void tls_part(TlsEnd* end, char* buffer, size_t size) noexcept nogil:
    pass

cdef void end_tls(TlsEnd* end) noexcept nogil:
    pass

cdef object tls_info(TlsEnd* end):
    return None
