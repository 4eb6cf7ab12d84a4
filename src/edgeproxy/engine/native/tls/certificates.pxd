"""See certificates.pyx."""

from edgeproxy.engine.native.tls.openssl cimport SSL_CTX

cdef SSL_CTX* new_client_context(bytes ca_pem) except NULL
cdef SSL_CTX* new_context(certificate, bytes client_ca_pem) except NULL
