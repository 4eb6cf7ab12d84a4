# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TLS with clients, through OpenSSL: handshakes, and bytes in and out.

What is read and written goes through `errno` as with `recv` and `send`, so that `relay.pyx` need
not know whose bytes it carries. Records that a socket does not take wait beside it: OpenSSL, which
would keep them itself, does not bear to be asked for new keys meanwhile. The SSL object of a session belongs to whom the session belongs.

Certificates are chosen by the name that a client asks for: the exact one, one with a wildcard in
the place of the first label, else the first there is.
"""

from edgeproxy.engine.tls import TlsInfo

from libc.errno cimport EAGAIN, EPROTO, errno
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, strchr, strcmp

from edgeproxy.engine.native.certificates cimport new_context
from edgeproxy.engine.native.openssl cimport *
from edgeproxy.engine.native.system cimport MSG_NOSIGNAL, recv, send

cdef enum:
    MOST_NAME_BYTES = 256
    RECORD_BYTES = 16384
    MOST_UNSENT_BYTES = 65536  # who asks for more to be said, and does not read, is not read
    ENDED = -1  # beside error numbers

cdef extern from *:
    """
    #include <errno.h>
    static void set_errno(int code) { errno = code; }
    """
    void set_errno(int code) noexcept nogil

# One name and the context of its certificate; sorted by name.
cdef struct Entry:
    char* name
    SSL_CTX* context

# What the callbacks of a context need; it lives as long as that.
cdef struct Table:
    Entry* entries
    size_t count
    unsigned char* alpn
    unsigned int alpn_size

HAS_TLS = True

cdef BIO_METHOD* METHOD = NULL
cdef int PLACE = -1


# -- contexts -----------------------------------------------------------------------------

cdef class TlsContext:
    """How clients of a listener are met: certificates, ALPN, whom to trust. Raises TlsError."""

    def __cinit__(self, settings):
        _prepare()
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
                names.setdefault(name.lower().encode("ascii"), certificate)
        table.entries = <Entry*>calloc(max(len(names), 1), sizeof(Entry))
        if table.entries == NULL:
            raise MemoryError
        for name, certificate in sorted(names.items()):
            entry = &table.entries[table.count]
            entry.context = new_context(certificate, settings.client_ca_pem)
            table.count += 1
            entry.name = _copy(name + b"\0")
            if wanted:  # whose context has been chosen is asked
                SSL_CTX_set_alpn_select_cb(entry.context, choose_protocol, table)

    def __dealloc__(self):
        if self._context != NULL:  # who is connected has a share of it
            SSL_CTX_free(<SSL_CTX*>self._context)

    cdef bint begin(self, Session* session) noexcept:
        """Let a session begin its handshake. Return whether there was memory."""
        cdef BIO* bio = BIO_new(METHOD)
        cdef SSL* tls = SSL_new(<SSL_CTX*>self._context)
        if bio == NULL or tls == NULL:
            if bio != NULL:
                BIO_free(bio)
            if tls != NULL:
                SSL_free(tls)
            return False
        BIO_set_data(bio, session)
        BIO_set_init(bio, 1)
        SSL_set_bio(tls, bio, bio)
        SSL_set_accept_state(tls)
        session.tls = tls
        return True

cdef object _prepare():
    """Make what all contexts share, once."""
    global METHOD, PLACE
    if METHOD != NULL:
        return
    METHOD = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"session")
    PLACE = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_table)
    if METHOD == NULL or PLACE < 0:
        raise MemoryError
    BIO_meth_set_read(METHOD, bio_read)
    BIO_meth_set_write(METHOD, bio_write)
    BIO_meth_set_ctrl(METHOD, bio_control)

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
    """Choose the certificate of the name that the client asks for, which has to be ASCII."""
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
    """Choose the first of ours that the client offers; none if there is none."""
    cdef Table* table = <Table*>argument
    if (
        SSL_select_next_proto(
            <unsigned char**>chosen, size, table.alpn, table.alpn_size, offered, offered_size
        )
        == OPENSSL_NPN_NEGOTIATED
    ):
        return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_NOACK


# -- the socket under it ----------------------------------------------------------------------

cdef int bio_read(BIO* bio, char* buffer, int size) noexcept nogil:
    cdef Session* session = <Session*>BIO_get_data(bio)
    cdef ssize_t got
    if session.tls_unsent_size - session.tls_unsent_at > MOST_UNSENT_BYTES:
        set_errno(session.tls_failure if session.tls_failure else EAGAIN)
        got = -1
    else:
        got = recv(session.client, buffer, size, 0)
    BIO_clear_retry_flags(bio)
    session.tls_is_dry = got < size
    if got < 0 and errno == EAGAIN:
        BIO_set_retry_read(bio)
    session.tls_has_ended = got == 0
    return <int>got

cdef int bio_write(BIO* bio, const char* data, int size) noexcept nogil:
    """Take everything; what the socket does not take waits for `tls_flush`."""
    cdef Session* session = <Session*>BIO_get_data(bio)
    cdef ssize_t sent = 0
    cdef char* more
    BIO_clear_retry_flags(bio)
    if session.tls_unsent == NULL:
        sent = send(session.client, data, size, MSG_NOSIGNAL)
        if sent == size:
            return size
        if sent < 0:
            if errno != EAGAIN:
                session.tls_failure = errno  # the system tells it once
                return -1
            sent = 0
    more = <char*>realloc(session.tls_unsent, session.tls_unsent_size + size - sent)
    if more == NULL:
        return -1
    memcpy(more + session.tls_unsent_size, data + sent, size - sent)
    session.tls_unsent = more
    session.tls_unsent_size += size - sent
    return size

cdef int tls_flush(Session* session) noexcept nogil:
    """Give the socket what waits. Return whether it has taken everything, or -1 as `send`."""
    cdef ssize_t sent
    if session.tls_unsent == NULL:
        return True
    sent = send(
        session.client, session.tls_unsent + session.tls_unsent_at,
        session.tls_unsent_size - session.tls_unsent_at, MSG_NOSIGNAL,
    )
    if sent < 0:
        if errno == EAGAIN:
            return False
        session.tls_failure = errno
        return -1
    session.tls_unsent_at += sent
    if session.tls_unsent_at < session.tls_unsent_size:
        return False
    free(session.tls_unsent)
    session.tls_unsent = NULL
    session.tls_unsent_at = session.tls_unsent_size = 0
    return True

cdef bint tls_has_unsent(Session* session) noexcept nogil:
    """Return whether the socket has not taken everything that was written."""
    return session.tls_unsent != NULL

cdef long bio_control(BIO* _bio, int command, long _number, void* _data) noexcept nogil:
    return command == BIO_CTRL_FLUSH


# -- a session ----------------------------------------------------------------------------

cdef int shake_hands(Session* session) noexcept nogil:
    """Go on with a handshake. Return SHAKEN, SHAKING or UNWELCOME."""
    cdef SSL* tls = <SSL*>session.tls
    cdef int done, why
    tls_flush(session)
    ERR_clear_error()
    done = SSL_do_handshake(tls)
    if done == 1:
        return SHAKEN
    why = SSL_get_error(tls, done)
    return SHAKING if why == SSL_ERROR_WANT_READ or why == SSL_ERROR_WANT_WRITE else UNWELCOME

cdef ssize_t tls_read(Session* session, char* buffer, size_t size) noexcept nogil:
    """Read like `recv`: as many whole records as there are and have room.

    An end or an error that is met behind them is told the next time (`tls_is_drained`).
    """
    cdef SSL* tls = <SSL*>session.tls
    cdef size_t got = 0
    cdef int part, code
    if session.tls_code:
        set_errno(session.tls_code)
        return 0 if session.tls_code == ENDED else -1
    tls_flush(session)  # as an answer to a request for new keys
    while True:
        ERR_clear_error()
        set_errno(0)
        part = SSL_read(tls, buffer + got, <int>(size - got))
        if part <= 0:
            break
        got += part
        if size - got < RECORD_BYTES or tls_is_drained(session):
            return got
    code = failure_of(session, part)
    if code != EAGAIN:
        session.tls_code = code
    if got:
        return got
    set_errno(code)
    return 0 if code == ENDED else -1

cdef int failure_of(Session* session, int result) noexcept nogil:
    """Return why nothing could be read: an error number, or ENDED."""
    cdef int code = errno, why = SSL_get_error(<SSL*>session.tls, result)
    if why == SSL_ERROR_ZERO_RETURN:
        return ENDED
    if session.tls_has_ended:
        return session.tls_failure if session.tls_failure else ENDED
    if why == SSL_ERROR_WANT_READ or why == SSL_ERROR_WANT_WRITE:
        return EAGAIN
    return code if why == SSL_ERROR_SYSCALL and code else EPROTO

cdef bint tls_is_drained(Session* session) noexcept nogil:
    """Return whether nothing more can be read until the socket has something."""
    return session.tls_is_dry and not session.tls_code and not tls_has_unread(session)

cdef bint tls_has_unread(Session* session) noexcept nogil:
    """Return whether bytes of the client wait in here."""
    return SSL_has_pending(<SSL*>session.tls)

cdef ssize_t tls_write(Session* session, char* data, size_t size) noexcept nogil:
    """Write like `send`. The last record of what was taken may have to wait (`tls_has_unsent`)."""
    cdef SSL* tls = <SSL*>session.tls
    cdef size_t sent = 0
    cdef int part, why, flushed
    while sent < size:
        set_errno(0)
        flushed = tls_flush(session)
        if flushed <= 0:
            if sent:
                return sent
            if not flushed:
                set_errno(EAGAIN)
            return -1
        ERR_clear_error()
        set_errno(0)
        part = SSL_write(tls, data + sent, <int>min(size - sent, <size_t>RECORD_BYTES))
        if part <= 0:
            why = SSL_get_error(tls, part)
            if sent:
                return sent
            if errno == 0 or why not in (SSL_ERROR_SYSCALL, SSL_ERROR_ZERO_RETURN):
                set_errno(EPROTO)  # the other is that of a client that has said its end before
            return -1
        sent += part
    return sent

cdef int tls_say_end(Session* session) noexcept nogil:
    """Tell the client, once, that no more will come. Return 0 if its socket has no room now."""
    if not session.tls_said_end:
        session.tls_said_end = True  # to say it again would be to wait for the client's
        ERR_clear_error()
        SSL_shutdown(<SSL*>session.tls)
    return tls_flush(session) != 0

cdef void end_tls(Session* session) noexcept nogil:
    if session.tls != NULL:
        SSL_free(<SSL*>session.tls)
        session.tls = NULL
        free(session.tls_unsent)
        session.tls_unsent = NULL

cdef object tls_info(Session* session):
    """Return what was agreed on."""
    cdef SSL* tls = <SSL*>session.tls
    cdef const unsigned char* protocol = NULL
    cdef unsigned int size = 0
    cdef const char* name = SSL_get_servername(tls, TLSEXT_NAMETYPE_host_name)
    SSL_get0_alpn_selected(tls, &protocol, &size)
    return TlsInfo(
        (<bytes>name).decode("ascii", "replace").lower() if name != NULL else "",
        (<bytes>protocol[:size]).decode("ascii", "replace"),
        (<bytes>SSL_get_version(tls)).decode(),
        bool(SSL_session_reused(tls)),
    )
