# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Stands in for `tls.pyx` where the engine is built without OpenSSL. No session has TLS there."""

from edgeproxy.engine.tls import TlsError

HAS_TLS = False

cdef class TlsContext:
    def __cinit__(self, settings):
        raise TlsError(
            "this installation's native engine was built without OpenSSL; build it where its "
            "headers are (libssl-dev), or set EDGEPROXY_ENGINE=portable"
        )

    cdef bint begin(self, Session* session) noexcept:
        return False

cdef int shake_hands(Session* session) noexcept nogil:
    return UNWELCOME

cdef ssize_t tls_read(Session* session, char* buffer, size_t size) noexcept nogil:
    return -1

cdef ssize_t tls_write(Session* session, char* data, size_t size) noexcept nogil:
    return -1

cdef bint tls_is_drained(Session* session) noexcept nogil:
    return True

cdef bint tls_has_unread(Session* session) noexcept nogil:
    return False

cdef int tls_flush(Session* session) noexcept nogil:
    return True

cdef bint tls_has_unsent(Session* session) noexcept nogil:
    return False

cdef int tls_say_end(Session* session) noexcept nogil:
    return True

cdef void end_tls(Session* session) noexcept nogil:
    pass

cdef object tls_info(Session* session):
    return None
