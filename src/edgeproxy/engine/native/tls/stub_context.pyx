# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Replaces `context.pyx` where the engine is built without OpenSSL."""

from edgeproxy.engine.tls import TlsError

MISSING = (
    "this installation's native engine was built without OpenSSL; install its headers (libssl-dev) "
    "and build it again, or set EDGEPROXY_ENGINE=portable"
)

cdef class TlsContext:
    def __cinit__(self, settings):
        raise TlsError(MISSING)

    cdef bint begin(self, TlsEnd* end, int socket) noexcept:
        return False

cdef class BackendContext:
    def __cinit__(self, bytes ca_pem):
        raise TlsError(MISSING)

    cdef bint begin(self, TlsEnd* end, int socket, char* name, TlsEnd* client) noexcept:
        return False
