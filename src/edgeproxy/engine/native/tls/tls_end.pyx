# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TLS of one end of a session, through OpenSSL: its handshake, and bytes in and out.

Reads and writes report errors in `errno`, as `recv` and `send` do, so `relay.pyx` treats both kinds
of socket alike. Records that a socket does not take wait in `unsent`: OpenSSL could keep them, but
would then fail on a request for new keys (KeyUpdate). The SSL object belongs to the thread that
owns the session.
"""

from edgeproxy.engine.tls import TlsInfo
from edgeproxy.host_name import host_name

from libc.errno cimport EAGAIN, EINTR, EPROTO, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from edgeproxy.engine.native.tls.openssl cimport *
from edgeproxy.engine.native.syscalls cimport end_on_close
from edgeproxy.engine.native.system cimport MSG_NOSIGNAL, SHUT_WR, recv, send, shutdown

cdef enum:
    RECORD_BYTES = 16384
    MOST_UNSENT_BYTES = 65536  # with more, we stop reading: the peer reads none of our answers
    MOST_FED_BYTES = 16384  # in a read without a byte for the session, as with endless KeyUpdates
    PART_READS = 4  # how often unread bytes are read before a connection is closed
    ENDED = -1  # no error number has this value

cdef extern from *:
    """
    #include <errno.h>
    static void set_errno(int code) { errno = code; }
    """
    void set_errno(int code) noexcept nogil

HAS_TLS = True

cdef BIO_METHOD* METHOD = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"end")
if METHOD == NULL:
    raise MemoryError
BIO_meth_set_read(METHOD, bio_read)
BIO_meth_set_write(METHOD, bio_write)
BIO_meth_set_ctrl(METHOD, bio_control)

cdef bint attach(void* tls, TlsEnd* end, int socket) noexcept nogil:
    """Attach an SSL object to this end, which owns it from now on.

    Return False if memory is short or `tls` is NULL; the SSL object is then freed.
    """
    cdef BIO* bio = BIO_new(METHOD)
    if bio == NULL or tls == NULL:
        if bio != NULL:
            BIO_free(bio)
        if tls != NULL:
            SSL_free(<SSL*>tls)
        return False
    BIO_set_data(bio, end)
    BIO_set_init(bio, 1)
    SSL_set_bio(<SSL*>tls, bio, bio)
    end.tls = tls
    end.socket = socket
    return True

# -- the socket under it ----------------------------------------------------------------------

cdef int bio_read(BIO* bio, char* buffer, int size) noexcept nogil:
    cdef TlsEnd* end = <TlsEnd*>BIO_get_data(bio)
    cdef ssize_t got
    if end.unsent_size - end.unsent_at > MOST_UNSENT_BYTES:
        set_errno(end.failure if end.failure else EAGAIN)
        got = -1
    elif end.fed > MOST_FED_BYTES:
        set_errno(EAGAIN)
        got = -1
    else:
        got = recv(end.socket, buffer, size, 0)
        end.fed += max(got, 0)
    BIO_clear_retry_flags(bio)
    end.is_dry = got < size and end.fed <= MOST_FED_BYTES
    if got < 0 and errno == EAGAIN:
        BIO_set_retry_read(bio)
    end.has_ended = got == 0
    return <int>got

cdef int bio_write(BIO* bio, const char* data, int size) noexcept nogil:
    """Take everything; what the socket does not take waits for `tls_flush`.

    After we have shut the socket, what OpenSSL writes is dropped: a peer that goes on sending may
    still ask for new keys (KeyUpdate).
    """
    cdef TlsEnd* end = <TlsEnd*>BIO_get_data(bio)
    cdef ssize_t sent = 0
    cdef char* more
    BIO_clear_retry_flags(bio)
    if end.is_shut:
        return size
    if end.unsent == NULL:
        sent = send(end.socket, data, size, MSG_NOSIGNAL)
        if sent == size:
            return size
        if sent < 0:
            if errno != EAGAIN:
                end.failure = errno  # the system reports it only once
                return -1
            sent = 0
    more = <char*>realloc(end.unsent, end.unsent_size + size - sent)
    if more == NULL:
        return -1
    memcpy(more + end.unsent_size, data + sent, size - sent)
    end.unsent = more
    end.unsent_size += size - sent
    return size

cdef int tls_flush(TlsEnd* end) noexcept nogil:
    """Send what waits. Return whether the socket has taken everything, or -1 as `send`."""
    cdef ssize_t sent
    if end.unsent == NULL:
        return True
    sent = send(
        end.socket, end.unsent + end.unsent_at,
        end.unsent_size - end.unsent_at, MSG_NOSIGNAL,
    )
    if sent < 0:
        if errno == EAGAIN:
            return False
        end.failure = errno
        return -1
    end.unsent_at += sent
    if end.unsent_at < end.unsent_size:
        return False
    free(end.unsent)
    end.unsent = NULL
    end.unsent_at = end.unsent_size = 0
    return True

cdef bint tls_has_unsent(TlsEnd* end) noexcept nogil:
    """Return whether the socket has not taken everything that was written."""
    return end.unsent != NULL

cdef long bio_control(BIO* _bio, int command, long _number, void* _data) noexcept nogil:
    return command == BIO_CTRL_FLUSH


# -- a session ----------------------------------------------------------------------------

cdef int shake_hands(TlsEnd* end) noexcept nogil:
    """Go on with a handshake. Return SHAKEN, SHAKING, UNWELCOME or DEPARTED."""
    cdef SSL* tls = <SSL*>end.tls
    cdef int done, why, code
    cdef bint departed
    tls_flush(end)
    while True:
        ERR_clear_error()
        end.fed = 0
        set_errno(0)
        done = SSL_do_handshake(tls)
        if done == 1:
            return SHAKEN
        code = errno
        why = SSL_get_error(tls, done)
        if why != SSL_ERROR_WANT_READ and why != SSL_ERROR_WANT_WRITE:
            end.verify_error = complaint_of(tls)
            departed = end.has_ended or (why == SSL_ERROR_SYSCALL and code)
            return DEPARTED if departed else UNWELCOME
        if end.fed <= MOST_FED_BYTES:  # else there is more; OpenSSL bounds what a handshake takes
            return SHAKING

cdef const char* complaint_of(SSL* tls) noexcept nogil:
    """Return why a handshake has just failed, in a text that is never freed; NULL if unknown."""
    cdef long verdict = SSL_get_verify_result(tls)
    if verdict != X509_V_OK:
        return X509_verify_cert_error_string(verdict)
    return ERR_reason_error_string(ERR_peek_last_error())

cdef ssize_t tls_read(TlsEnd* end, char* buffer, size_t size) noexcept nogil:
    """Read like `recv`: as many whole records as have arrived and fit.

    An end or an error behind them is reported by the next call (`tls_is_drained`). EINTR: there is
    more to receive, but others are to have their turn first.
    """
    cdef SSL* tls = <SSL*>end.tls
    cdef size_t got = 0
    cdef int part, code
    if end.code:
        set_errno(end.code)
        return 0 if end.code == ENDED else -1
    tls_flush(end)  # an answer to a KeyUpdate may wait
    while True:
        ERR_clear_error()
        set_errno(0)
        end.fed = 0
        part = SSL_read(tls, buffer + got, <int>(size - got))
        if part <= 0:
            break
        got += part
        if size - got < RECORD_BYTES or tls_is_drained(end):
            return got
    code = failure_of(end, part)
    if code == EAGAIN and end.fed > MOST_FED_BYTES:
        code = EINTR
    elif code != EAGAIN:
        end.code = code
    if got:
        return got
    set_errno(code)
    return 0 if code == ENDED else -1

cdef int failure_of(TlsEnd* end, int result) noexcept nogil:
    """Return why nothing could be read: an error number, or ENDED."""
    cdef int code = errno, why = SSL_get_error(<SSL*>end.tls, result)
    if why == SSL_ERROR_ZERO_RETURN:
        return ENDED
    if end.has_ended:
        return end.failure if end.failure else ENDED
    if why == SSL_ERROR_WANT_READ or why == SSL_ERROR_WANT_WRITE:
        return EAGAIN
    return code if why == SSL_ERROR_SYSCALL and code else EPROTO

cdef bint tls_is_drained(TlsEnd* end) noexcept nogil:
    """Return whether nothing more can be read until the socket has something."""
    return end.is_dry and not end.code and not tls_has_unread(end)

cdef bint tls_has_unread(TlsEnd* end) noexcept nogil:
    """Return whether received bytes wait to be read here."""
    return SSL_has_pending(<SSL*>end.tls)

cdef ssize_t tls_write(TlsEnd* end, char* data, size_t size) noexcept nogil:
    """Write like `send`. The last record of what was taken may have to wait (`tls_has_unsent`)."""
    cdef SSL* tls = <SSL*>end.tls
    cdef size_t sent = 0
    cdef int part, why, flushed
    while sent < size:
        set_errno(0)
        flushed = tls_flush(end)
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
                set_errno(EPROTO)  # ZERO_RETURN: the peer has sent close_notify before
            return -1
        sent += part
    return sent

cdef int tls_say_end(TlsEnd* end) noexcept nogil:
    """Send close_notify, once. Return 0 if the socket has no room for it now."""
    if not end.said_end:
        end.said_end = True  # a second SSL_shutdown would wait for the peer's close_notify
        ERR_clear_error()
        SSL_shutdown(<SSL*>end.tls)
    return tls_flush(end) != 0

cdef void tls_part(TlsEnd* end, char* buffer, size_t size) noexcept nogil:
    """Make `close` an end without a reset, which would take our alert from the peer.

    Unread bytes are read into `buffer`: closed with such, a socket resets.
    """
    cdef int _turn
    if tls_flush(end) != True:
        return
    end_on_close(end.socket)
    shutdown(end.socket, SHUT_WR)
    for _turn in range(PART_READS):
        if recv(end.socket, buffer, size, 0) < <ssize_t>size:
            return

cdef void end_tls(TlsEnd* end) noexcept nogil:
    """Free everything; the end is then like one without TLS."""
    if end.tls != NULL:
        SSL_free(<SSL*>end.tls)
        free(end.unsent)
        memset(end, 0, sizeof(TlsEnd))

cdef object tls_info(TlsEnd* end):
    """Return what a finished handshake with a client has led to."""
    cdef SSL* tls = <SSL*>end.tls
    cdef const unsigned char* protocol = NULL
    cdef unsigned int size = 0
    cdef const char* name = SSL_get_servername(tls, TLSEXT_NAMETYPE_host_name)
    cdef X509* certificate = SSL_get_peer_certificate(tls)
    cdef bint has_certificate = certificate != NULL
    SSL_get0_alpn_selected(tls, &protocol, &size)
    common_name = ""
    if has_certificate:
        try:
            common_name = common_name_of(certificate)
        finally:
            X509_free(certificate)
    return TlsInfo(
        host_name((<bytes>name).decode("ascii", "replace")) or "" if name != NULL else "",
        (<bytes>protocol[:size]).decode("ascii", "replace"),
        (<bytes>SSL_get_version(tls)).decode(),
        bool(SSL_session_reused(tls)),
        has_certificate=has_certificate,
        common_name=common_name,
    )

cdef object common_name_of(X509* certificate):
    """Return the first common name in a certificate, or ""."""
    cdef X509_NAME* subject = X509_get_subject_name(certificate)
    cdef int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
    cdef unsigned char* text = NULL
    cdef int size
    if index < 0:
        return ""
    size = ASN1_STRING_to_UTF8(
        &text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index))
    )
    if size < 0:
        ERR_clear_error()
        return ""
    try:
        return (<bytes>text[:size]).decode("utf-8", "replace")
    finally:
        OPENSSL_free(text)
