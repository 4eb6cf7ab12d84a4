# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TLS contexts: for the clients of a listener, and for backends.

A client gets the certificate for the server name that it asks for: of that exact name, else with a
wildcard for its first label, else the first certificate.
"""

from edgeproxy.host_name import name_or_wildcard

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strchr, strcmp

from edgeproxy.engine.native.tls.certificates cimport new_client_context, new_context
from edgeproxy.engine.native.tls.openssl cimport *
from edgeproxy.engine.native.tls.tls_end cimport attach

cdef enum:
    MOST_NAME_BYTES = 256

# One name and the context of its certificate; sorted by name.
cdef struct Entry:
    char* name
    SSL_CTX* context

# What the callbacks of a context need; freed with the context.
cdef struct Table:
    Entry* entries
    size_t count
    unsigned char* alpn
    unsigned int alpn_size

cdef int PLACE = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_table)
if PLACE < 0:
    raise MemoryError

cdef class TlsContext:
    """How a listener speaks TLS: certificates, ALPN, client authorities. Raises TlsError."""

    def __cinit__(self, settings):
        cdef SSL_CTX* context = new_context(settings.certificates[0], settings.client_ca_pem)
        cdef Table* table
        cdef Entry* entry
        self._context = context
        table = <Table*>calloc(1, sizeof(Table))
        if table == NULL:
            raise MemoryError
        SSL_CTX_set_ex_data(context, PLACE, table)
        SSL_CTX_set_tlsext_servername_callback(context, choose_certificate)
        SSL_CTX_set_tlsext_servername_arg(context, table)
        wanted = b"".join(bytes([len(name)]) + name.encode() for name in settings.alpn)
        if wanted:
            table.alpn = <unsigned char*>_copy(wanted)
            table.alpn_size = len(wanted)
            SSL_CTX_set_alpn_select_cb(context, choose_protocol, table)
        names = {}
        for certificate in settings.certificates:
            for name in certificate.names:
                names.setdefault((name_or_wildcard(name) or name).encode("ascii"), certificate)
        table.entries = <Entry*>calloc(max(len(names), 1), sizeof(Entry))
        if table.entries == NULL:
            raise MemoryError
        for name, certificate in sorted(names.items()):
            entry = &table.entries[table.count]
            entry.context = new_context(certificate, settings.client_ca_pem)
            table.count += 1
            entry.name = _copy(name + b"\0")
            if wanted:  # OpenSSL asks the context that was chosen
                SSL_CTX_set_alpn_select_cb(entry.context, choose_protocol, table)

    def __dealloc__(self):
        if self._context != NULL:  # open connections keep references to it
            SSL_CTX_free(<SSL_CTX*>self._context)

    cdef bint begin(self, TlsEnd* end, int socket) noexcept:
        """Prepare the handshake of the client at this socket. Return False if memory is short."""
        cdef SSL* tls = SSL_new(<SSL_CTX*>self._context)
        if tls != NULL:
            SSL_set_accept_state(tls)
        return attach(tls, end, socket)

cdef class BackendContext:
    """TLS towards backends: the authorities that sign their certificates. Raises TlsError."""

    def __cinit__(self, bytes ca_pem):
        self._context = new_client_context(ca_pem)

    def __dealloc__(self):
        if self._context != NULL:
            SSL_CTX_free(<SSL_CTX*>self._context)

    cdef bint begin(self, TlsEnd* end, int socket, char* name, TlsEnd* client) noexcept:
        """Begin a handshake with a backend, whose certificate must be for this name.

        It is offered the protocol that was agreed on with the client.
        """
        cdef SSL* tls = SSL_new(<SSL_CTX*>self._context)
        if tls != NULL:
            SSL_set_connect_state(tls)
            SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
            if (
                SSL_set_tlsext_host_name(tls, name) != 1
                or SSL_set1_host(tls, name) != 1
                or not offer_agreed(tls, client)
            ):
                SSL_free(tls)
                return False
        return attach(tls, end, socket)

cdef bint offer_agreed(SSL* tls, TlsEnd* client) noexcept nogil:
    """Offer a backend what was agreed on with its client by ALPN. Return False if that fails."""
    cdef const unsigned char* agreed = NULL
    cdef unsigned int size = 0
    cdef unsigned char[MOST_NAME_BYTES] offered
    if client.tls == NULL:
        return True
    SSL_get0_alpn_selected(<SSL*>client.tls, &agreed, &size)
    if not size:
        return True
    offered[0] = <unsigned char>size
    memcpy(offered + 1, agreed, size)
    return SSL_set_alpn_protos(tls, offered, size + 1) == 0

cdef char* _copy(bytes text) except NULL:
    cdef size_t size = len(text)
    cdef char* copied = <char*>malloc(size)
    if copied == NULL:
        raise MemoryError
    memcpy(copied, <char*>text, size)
    return copied

cdef void free_table(
    void* _parent, void* data, CRYPTO_EX_DATA* _all, int _place, long _number, void* _argument
) noexcept nogil:
    cdef Table* table = <Table*>data
    if table == NULL:
        return
    while table.count:
        table.count -= 1
        free(table.entries[table.count].name)
        SSL_CTX_free(table.entries[table.count].context)
    free(table.entries)
    free(table.alpn)
    free(table)


# -- what a handshake asks ------------------------------------------------------------------

cdef SSL_CTX* find(Table* table, const char* name) noexcept nogil:
    cdef size_t low = 0, high = table.count, middle
    cdef int order
    while low < high:
        middle = (low + high) // 2
        order = strcmp(name, table.entries[middle].name)
        if order == 0:
            return table.entries[middle].context
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return NULL

cdef int choose_certificate(SSL* tls, int* alert, void* argument) noexcept nogil:
    """Choose the certificate of the name that the client asks for, which has to be ASCII.

    The name is brought into normal form as by `host_name`.
    """
    cdef Table* table = <Table*>argument
    cdef char[MOST_NAME_BYTES + 1] name
    cdef const char* asked = SSL_get_servername(tls, TLSEXT_NAMETYPE_host_name)
    cdef SSL_CTX* found
    cdef char* dot
    cdef size_t index = 0
    if asked == NULL:
        return SSL_TLSEXT_ERR_NOACK
    while asked[index] and index < MOST_NAME_BYTES:
        if <unsigned char>asked[index] >= 128:
            alert[0] = SSL_AD_UNRECOGNIZED_NAME
            return SSL_TLSEXT_ERR_ALERT_FATAL
        name[index] = asked[index] + 32 if c"A" <= asked[index] <= c"Z" else asked[index]
        index += 1
    if index and name[index - 1] == c".":
        index -= 1
    name[index] = 0
    found = find(table, name)
    dot = strchr(name, c".")
    if found == NULL and dot != NULL and dot != name:
        dot -= 1
        dot[0] = c"*"
        found = find(table, dot)
    if found != NULL:
        SSL_set_SSL_CTX(tls, found)
    return SSL_TLSEXT_ERR_OK

cdef int choose_protocol(
    SSL* _tls, const unsigned char** chosen, unsigned char* size,
    const unsigned char* offered, unsigned int offered_size, void* argument,
) noexcept nogil:
    """Choose the first of our protocols that the client offers; refuse it if it offers none."""
    cdef Table* table = <Table*>argument
    if (
        SSL_select_next_proto(
            <unsigned char**>chosen, size, table.alpn, table.alpn_size, offered, offered_size
        )
        == OPENSSL_NPN_NEGOTIATED
    ):
        return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_ALERT_FATAL  # no_application_protocol
