"""What the engine needs of OpenSSL 3 (and 1.1.1)."""

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL
    ctypedef struct SSL_CTX
    ctypedef struct SSL_METHOD
    ctypedef struct BIO
    ctypedef struct BIO_METHOD
    ctypedef struct X509
    ctypedef struct X509_STORE
    ctypedef struct EVP_PKEY
    ctypedef struct CRYPTO_EX_DATA
    enum:
        SSL_ERROR_NONE
        SSL_ERROR_SSL
        SSL_ERROR_SYSCALL
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_ERROR_ZERO_RETURN
        SSL_AD_UNRECOGNIZED_NAME
        NID_commonName
        SSL_TLSEXT_ERR_ALERT_FATAL
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_NOACK
        SSL_VERIFY_PEER
        SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        SSL_SESS_CACHE_OFF
        SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_MODE_RELEASE_BUFFERS
        TLSEXT_NAMETYPE_host_name
        TLS1_2_VERSION
        OPENSSL_NPN_NEGOTIATED
    const unsigned long SSL_OP_NO_RENEGOTIATION
    const unsigned long SSL_OP_NO_COMPRESSION
    const unsigned long SSL_OP_NO_TICKET
    const unsigned long SSL_OP_CIPHER_SERVER_PREFERENCE

    const SSL_METHOD* TLS_client_method()
    const SSL_METHOD* TLS_server_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method)
    void SSL_CTX_free(SSL_CTX* context)
    unsigned long SSL_CTX_set_options(SSL_CTX* context, unsigned long options)
    long SSL_CTX_set_mode(SSL_CTX* context, long mode)
    int SSL_CTX_set_min_proto_version(SSL_CTX* context, int version)
    void SSL_CTX_set_read_ahead(SSL_CTX* context, int yes)
    int SSL_CTX_set_cipher_list(SSL_CTX* context, const char* names)
    int SSL_CTX_set1_groups_list(SSL_CTX* context, char* names)
    long SSL_CTX_set_session_cache_mode(SSL_CTX* context, long mode)
    int SSL_CTX_set_num_tickets(SSL_CTX* context, size_t count)
    int SSL_CTX_set_session_id_context(
        SSL_CTX* context, const unsigned char* name, unsigned int size
    )
    int SSL_CTX_use_certificate(SSL_CTX* context, X509* certificate)
    long SSL_CTX_add0_chain_cert(SSL_CTX* context, X509* certificate)
    int SSL_CTX_use_PrivateKey(SSL_CTX* context, EVP_PKEY* key)
    int SSL_CTX_check_private_key(const SSL_CTX* context)
    void SSL_CTX_set_verify(SSL_CTX* context, int mode, void* callback)
    int SSL_CTX_set_default_verify_paths(SSL_CTX* context)
    X509_STORE* SSL_CTX_get_cert_store(const SSL_CTX* context)
    int SSL_CTX_add_client_CA(SSL_CTX* context, X509* certificate)
    long SSL_CTX_set_tlsext_servername_callback(
        SSL_CTX* context, int (*callback)(SSL*, int*, void*) noexcept nogil
    )
    long SSL_CTX_set_tlsext_servername_arg(SSL_CTX* context, void* argument)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX* context,
        int (*callback)(
            SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*
        ) noexcept nogil,
        void* argument,
    )
    int SSL_CTX_get_ex_new_index(
        long argl, void* argp, void* new_func, void* dup_func,
        void (*free_func)(void*, void*, CRYPTO_EX_DATA*, int, long, void*) noexcept nogil,
    )
    int SSL_CTX_set_ex_data(SSL_CTX* context, int index, void* data)

    SSL* SSL_new(SSL_CTX* context)
    void SSL_free(SSL* tls)
    SSL_CTX* SSL_set_SSL_CTX(SSL* tls, SSL_CTX* context)
    void SSL_set_bio(SSL* tls, BIO* reads, BIO* writes)
    void SSL_set_accept_state(SSL* tls)
    void SSL_set_connect_state(SSL* tls)
    long SSL_set_tlsext_host_name(SSL* tls, const char* name)
    int SSL_set_alpn_protos(SSL* tls, const unsigned char* names, unsigned int size)
    X509* SSL_get_peer_certificate(const SSL* tls)
    int SSL_set1_host(SSL* tls, const char* name)
    void SSL_set_hostflags(SSL* tls, unsigned int flags)
    int SSL_do_handshake(SSL* tls)
    int SSL_read(SSL* tls, void* buffer, int size)
    int SSL_write(SSL* tls, const void* data, int size)
    int SSL_shutdown(SSL* tls)
    int SSL_has_pending(const SSL* tls)
    long SSL_get_verify_result(const SSL* tls)
    int SSL_get_error(const SSL* tls, int result)
    const char* SSL_get_servername(const SSL* tls, int kind)
    void SSL_get0_alpn_selected(const SSL* tls, const unsigned char** name, unsigned int* size)
    const char* SSL_get_version(const SSL* tls)
    int SSL_session_reused(const SSL* tls)
    int SSL_select_next_proto(
        unsigned char** chosen, unsigned char* chosen_size,
        const unsigned char* server, unsigned int server_size,
        const unsigned char* client, unsigned int client_size,
    )

cdef extern from "<openssl/x509v3.h>" nogil:
    enum:
        X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS

cdef extern from "<openssl/x509.h>" nogil:
    ctypedef struct X509_NAME
    ctypedef struct X509_NAME_ENTRY
    ctypedef struct ASN1_STRING
    void X509_free(X509* certificate)
    X509_NAME* X509_get_subject_name(const X509* certificate)
    int X509_NAME_get_index_by_NID(X509_NAME* name, int kind, int after)
    X509_NAME_ENTRY* X509_NAME_get_entry(const X509_NAME* name, int index)
    ASN1_STRING* X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY* entry)
    int ASN1_STRING_to_UTF8(unsigned char** text, const ASN1_STRING* data)
    void OPENSSL_free(void* text)
    enum:
        X509_V_OK
    const char* X509_verify_cert_error_string(long code)
    int X509_STORE_add_cert(X509_STORE* store, X509* certificate)
    void EVP_PKEY_free(EVP_PKEY* key)

cdef extern from "<openssl/pem.h>" nogil:
    enum:
        PEM_R_NO_START_LINE
    X509* PEM_read_bio_X509(BIO* source, X509** place, void* callback, void* argument)
    EVP_PKEY* PEM_read_bio_PrivateKey(BIO* source, EVP_PKEY** place, void* callback, void* argument)

cdef extern from "<openssl/bio.h>" nogil:
    enum:
        BIO_CTRL_FLUSH
        BIO_TYPE_SOURCE_SINK
    BIO* BIO_new(const BIO_METHOD* method)
    BIO* BIO_new_mem_buf(const void* data, int size)
    int BIO_free(BIO* bio)
    BIO_METHOD* BIO_meth_new(int kind, const char* name)
    int BIO_meth_set_write(BIO_METHOD* method, int (*)(BIO*, const char*, int) noexcept nogil)
    int BIO_meth_set_read(BIO_METHOD* method, int (*)(BIO*, char*, int) noexcept nogil)
    int BIO_meth_set_ctrl(BIO_METHOD* method, long (*)(BIO*, int, long, void*) noexcept nogil)
    int BIO_get_new_index()
    void BIO_set_data(BIO* bio, void* data)
    void* BIO_get_data(BIO* bio)
    void BIO_set_init(BIO* bio, int yes)
    void BIO_clear_retry_flags(BIO* bio)
    void BIO_set_retry_read(BIO* bio)
    void BIO_set_retry_write(BIO* bio)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_get_error()
    unsigned long ERR_peek_last_error()
    int ERR_GET_REASON(unsigned long code)
    const char* ERR_reason_error_string(unsigned long code)
    void ERR_error_string_n(unsigned long code, char* text, size_t size)
