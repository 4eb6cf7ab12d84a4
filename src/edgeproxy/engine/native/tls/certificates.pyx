# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Makes OpenSSL contexts from certificates and keys in PEM. Raises TlsError for a faulty one.

The contexts of one listener differ only in their certificate.
"""

import os

from edgeproxy.engine.tls import CIPHERS, GROUPS, TICKETS, TlsError

from libc.errno cimport errno

from edgeproxy.engine.native.tls.openssl cimport *


cdef SSL_CTX* new_context(certificate, bytes client_ca_pem) except NULL:
    """Return a context for clients. Raises TlsError."""
    cdef SSL_CTX* context = SSL_CTX_new(TLS_server_method())
    try:
        _prepare(context)
        groups = GROUPS.encode()
        SSL_CTX_set1_groups_list(context, groups)
        SSL_CTX_set_num_tickets(context, 0 if client_ca_pem else TICKETS)
        if client_ca_pem:  # who needs a certificate shows it every time
            SSL_CTX_set_options(context, SSL_OP_NO_TICKET)
        SSL_CTX_set_session_id_context(context, b"edgeproxy", 9)
        _use(context, certificate)
        if client_ca_pem:
            _trust(context, client_ca_pem)
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context


cdef SSL_CTX* new_client_context(bytes ca_pem) except NULL:
    """Return a context for backends that these authorities, or the system's, have signed."""
    cdef SSL_CTX* context = SSL_CTX_new(TLS_client_method())
    try:
        _prepare(context)
        if ca_pem:
            _trust(context, ca_pem)
        elif SSL_CTX_set_default_verify_paths(context) != 1:
            raise TlsError(f"the authorities that the system trusts cannot be read: {_reason()}")
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL)
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context


cdef object _prepare(SSL_CTX* context):
    """Set what all contexts have in common."""
    if context == NULL:
        raise MemoryError
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION)
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION)
    SSL_CTX_set_mode(
        context,
        SSL_MODE_ENABLE_PARTIAL_WRITE
        | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        | SSL_MODE_RELEASE_BUFFERS,
    )
    SSL_CTX_set_read_ahead(context, 1)
    SSL_CTX_set_cipher_list(context, CIPHERS.encode())
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF)  # tickets replace it


cdef object _use(SSL_CTX* context, certificate):
    """Give a context its certificate, the intermediates, and the private key."""
    cdef EVP_PKEY* key
    cdef BIO* source
    chain = _certificates(certificate.chain_pem)
    key_pem = certificate.key_pem
    source = BIO_new_mem_buf(<char*>key_pem, len(key_pem))
    key = PEM_read_bio_PrivateKey(source, NULL, NULL, <void*><char*>b"")
    BIO_free(source)
    cdef size_t number, count = len(chain)
    cdef X509* each
    try:
        if key == NULL:
            raise TlsError(f"the private key cannot be read: {_reason()}")
        if not count:
            raise TlsError("there is no certificate in the file")
        for number in range(count):
            each = <X509*><size_t>chain[number]
            if number == 0:
                if SSL_CTX_use_certificate(context, each) != 1:
                    raise TlsError(f"the certificate cannot be used: {_reason()}")
                X509_free(each)
            else:
                SSL_CTX_add0_chain_cert(context, each)
            chain[number] = 0
        if SSL_CTX_use_PrivateKey(context, key) != 1 or SSL_CTX_check_private_key(context) != 1:
            raise TlsError(f"the private key does not match the certificate: {_reason()}")
    finally:
        if key != NULL:
            EVP_PKEY_free(key)
        for left in chain:
            if left:
                X509_free(<X509*><size_t>left)


cdef object _trust(SSL_CTX* context, bytes pem):
    """Require a certificate of the peer that one of these authorities has signed."""
    cdef X509* each
    found = _certificates(pem)
    for number in found:
        each = <X509*><size_t>number
        X509_STORE_add_cert(SSL_CTX_get_cert_store(context), each)
        SSL_CTX_add_client_CA(context, each)
        X509_free(each)
    if not found:
        raise TlsError("there is no certificate in the file of authorities")
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL)


cdef list _certificates(bytes pem):
    """Return the addresses of all certificates in a text. The caller frees them.

    Raises TlsError if one of them cannot be read.
    """
    cdef BIO* source = BIO_new_mem_buf(<char*>pem, len(pem))
    cdef X509* each
    found = []
    while True:
        each = PEM_read_bio_X509(source, NULL, NULL, NULL)
        if each == NULL:
            break
        found.append(<size_t>each)
    BIO_free(source)
    if ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE:  # NO_START_LINE: end of text
        for left in found:
            X509_free(<X509*><size_t>left)
        raise TlsError(f"certificate {len(found) + 1} of the file cannot be read: {_reason()}")
    ERR_clear_error()
    return found


cdef object _reason():
    """Return what OpenSSL says was wrong."""
    cdef char[256] text
    cdef unsigned long code = ERR_get_error()
    ERR_clear_error()
    if not code:
        return os.strerror(errno)
    ERR_error_string_n(code, text, sizeof(text))
    return text.decode("ascii", "replace").rpartition(":")[2] or text.decode("ascii", "replace")
