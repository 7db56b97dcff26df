# What of OpenSSL (3.0 or later) the TLS modules call. Declarations alone.

from libc.stdint cimport int64_t, uint64_t
from libc.time cimport time_t


cdef extern from "<openssl/ssl.h>":
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    ctypedef struct SSL_CONF_CTX:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    struct stack_st_X509:
        pass
    ctypedef struct X509_NAME:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct EVP_MD:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    ctypedef struct ASN1_INTEGER:
        pass
    ctypedef struct ASN1_TIME:
        pass
    ctypedef struct BIGNUM:
        pass
    ctypedef struct OSSL_PARAM:
        pass
    ctypedef int (*VerifyCallback)(int, X509_STORE_CTX*) noexcept

    enum:
        SSL_ERROR_NONE
        SSL_ERROR_SSL
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_ERROR_ZERO_RETURN
        SSL_VERIFY_NONE
        SSL_VERIFY_PEER
        SSL_MODE_RELEASE_BUFFERS
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_SESS_CACHE_OFF
        SSL_SESS_CACHE_CLIENT
        SSL_SESS_CACHE_SERVER
        SSL_SESS_CACHE_NO_AUTO_CLEAR
        SSL_SESS_CACHE_NO_INTERNAL
        SSL_SESS_CACHE_NO_INTERNAL_STORE
        SSL_CLIENT_HELLO_SUCCESS
        SSL_CLIENT_HELLO_ERROR
        SSL_AD_UNRECOGNIZED_NAME
        SSL_AD_INTERNAL_ERROR
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_NOACK
        SSL_TLSEXT_ERR_ALERT_FATAL
        OPENSSL_NPN_NEGOTIATED
        TLSEXT_TYPE_server_name
        TLSEXT_NAMETYPE_host_name
        TLS1_VERSION
        TLS1_3_VERSION
        SSL_CONF_TYPE_FILE
        SSL_CONF_TYPE_DIR
        SSL_CONF_FLAG_FILE
        SSL_CONF_FLAG_CLIENT
        SSL_CONF_FLAG_SERVER
        SSL_CONF_FLAG_CERTIFICATE
        SSL_CONF_FLAG_SHOW_ERRORS
    uint64_t SSL_OP_NO_SSLv3
    uint64_t SSL_OP_NO_TLSv1
    uint64_t SSL_OP_NO_TLSv1_1
    uint64_t SSL_OP_NO_TLSv1_2
    uint64_t SSL_OP_NO_TLSv1_3
    uint64_t SSL_OP_NO_COMPRESSION
    uint64_t SSL_OP_NO_TICKET
    uint64_t SSL_OP_NO_RENEGOTIATION
    uint64_t SSL_OP_CIPHER_SERVER_PREFERENCE
    uint64_t SSL_OP_IGNORE_UNEXPECTED_EOF

    const SSL_METHOD* TLS_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD*)
    void SSL_CTX_free(SSL_CTX*)
    uint64_t SSL_CTX_set_options(SSL_CTX*, uint64_t)
    uint64_t SSL_CTX_get_options(const SSL_CTX*)
    long SSL_CTX_set_mode(SSL_CTX*, long)
    int SSL_CTX_set_min_proto_version(SSL_CTX*, int)
    int SSL_CTX_set_max_proto_version(SSL_CTX*, int)
    int SSL_CTX_set_cipher_list(SSL_CTX*, const char*)
    int SSL_CTX_set1_curves_list(SSL_CTX*, const char*)
    int SSL_CTX_set0_tmp_dh_pkey(SSL_CTX*, EVP_PKEY*)
    int SSL_CTX_use_certificate(SSL_CTX*, X509*)
    int SSL_CTX_use_PrivateKey(SSL_CTX*, EVP_PKEY*)
    int SSL_CTX_check_private_key(const SSL_CTX*)
    void SSL_CTX_set_cert_cb(SSL_CTX*, int (*)(SSL*, void*) noexcept, void*)
    int SSL_use_cert_and_key(SSL*, X509*, EVP_PKEY*, stack_st_X509*, int)
    int SSL_CTX_add1_chain_cert(SSL_CTX*, X509*)
    int SSL_CTX_set0_chain(SSL_CTX*, void*)
    X509_STORE* SSL_CTX_get_cert_store(const SSL_CTX*)
    int SSL_CTX_add_client_CA(SSL_CTX*, X509*)
    void SSL_CTX_set_verify(SSL_CTX*, int, VerifyCallback)
    void SSL_CTX_set_verify_depth(SSL_CTX*, int)
    int SSL_CTX_get_verify_mode(const SSL_CTX*)
    int SSL_CTX_get_verify_depth(const SSL_CTX*)
    VerifyCallback SSL_CTX_get_verify_callback(const SSL_CTX*)
    long SSL_CTX_set_session_cache_mode(SSL_CTX*, long)
    long SSL_CTX_sess_set_cache_size(SSL_CTX*, long)
    long SSL_CTX_set_timeout(SSL_CTX*, long)
    long SSL_CTX_get_timeout(const SSL_CTX*)
    int SSL_CTX_set_session_id_context(SSL_CTX*, const unsigned char*, unsigned int)
    void SSL_CTX_sess_set_new_cb(SSL_CTX*, int (*)(SSL*, SSL_SESSION*) noexcept)
    void SSL_CTX_sess_set_get_cb(
        SSL_CTX*, SSL_SESSION* (*)(SSL*, const unsigned char*, int, int*) noexcept)
    void SSL_CTX_sess_set_remove_cb(SSL_CTX*, void (*)(SSL_CTX*, SSL_SESSION*) noexcept)
    int SSL_CTX_remove_session(SSL_CTX*, SSL_SESSION*)
    void SSL_CTX_set_client_hello_cb(SSL_CTX*, int (*)(SSL*, int*, void*) noexcept, void*)
    long SSL_CTX_set_tlsext_servername_callback(SSL_CTX*, int (*)(SSL*, int*, void*) noexcept)
    int SSL_CTX_set_alpn_protos(SSL_CTX*, const unsigned char*, unsigned int)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX*, int (*)(SSL*, const unsigned char**, unsigned char*, const unsigned char*,
                          unsigned int, void*) noexcept, void*)
    int SSL_CTX_set_tlsext_ticket_key_evp_cb(
        SSL_CTX*, int (*)(SSL*, unsigned char*, unsigned char*, EVP_CIPHER_CTX*, EVP_MAC_CTX*,
                          int) noexcept)
    int SSL_CTX_set_ex_data(SSL_CTX*, int, void*)
    void* SSL_CTX_get_ex_data(const SSL_CTX*, int)
    int SSL_CTX_get_ex_new_index(long, void*, void*, void*, void*)
    int SSL_get_ex_new_index(long, void*, void*, void*, void*)

    SSL_CONF_CTX* SSL_CONF_CTX_new()
    void SSL_CONF_CTX_free(SSL_CONF_CTX*)
    unsigned int SSL_CONF_CTX_set_flags(SSL_CONF_CTX*, unsigned int)
    void SSL_CONF_CTX_set_ssl_ctx(SSL_CONF_CTX*, SSL_CTX*)
    int SSL_CONF_cmd_value_type(SSL_CONF_CTX*, const char*)
    int SSL_CONF_cmd(SSL_CONF_CTX*, const char*, const char*)
    int SSL_CONF_CTX_finish(SSL_CONF_CTX*)

    SSL* SSL_new(SSL_CTX*)
    void SSL_free(SSL*)
    void SSL_set_bio(SSL*, BIO*, BIO*)
    void SSL_set_accept_state(SSL*)
    void SSL_set_connect_state(SSL*)
    int SSL_do_handshake(SSL*)
    int SSL_is_init_finished(const SSL*)
    int SSL_read(SSL*, void*, int)
    int SSL_write(SSL*, const void*, int)
    int SSL_shutdown(SSL*)
    int SSL_get_error(const SSL*, int)
    int SSL_set_ex_data(SSL*, int, void*)
    void* SSL_get_ex_data(const SSL*, int)
    SSL_CTX* SSL_get_SSL_CTX(const SSL*)
    SSL_CTX* SSL_set_SSL_CTX(SSL*, SSL_CTX*)
    void SSL_set_verify(SSL*, int, VerifyCallback)
    void SSL_set_verify_depth(SSL*, int)
    uint64_t SSL_set_options(SSL*, uint64_t)
    uint64_t SSL_clear_options(SSL*, uint64_t)
    uint64_t SSL_get_options(const SSL*)
    long SSL_get_verify_result(const SSL*)
    X509* SSL_get0_peer_certificate(const SSL*)
    int SSL_set_tlsext_host_name(SSL*, const char*)
    const char* SSL_get_servername(const SSL*, int)
    int SSL_client_hello_get0_ext(SSL*, unsigned int, const unsigned char**, size_t*)
    const char* SSL_get_version(const SSL*)
    int SSL_version(const SSL*)
    void SSL_CTX_set_default_passwd_cb(SSL_CTX*, int (*)(char*, int, int, void*) noexcept)
    int SSL_CTX_up_ref(SSL_CTX*)
    const char* SSL_get_cipher_name(const SSL*)
    const SSL_CIPHER* SSL_get_current_cipher(const SSL*)
    const SSL_CIPHER* SSL_CIPHER_find(SSL*, const unsigned char*)
    const char* SSL_CIPHER_get_name(const SSL_CIPHER*)
    size_t SSL_get0_raw_cipherlist(SSL*, unsigned char**)
    int SSL_get1_curves(SSL*, int*)
    int SSL_get_negotiated_group(SSL*)
    int SSL_session_reused(const SSL*)
    SSL_SESSION* SSL_get0_session(const SSL*)
    int SSL_set_session(SSL*, SSL_SESSION*)
    int SSL_SESSION_up_ref(SSL_SESSION*)
    void SSL_SESSION_free(SSL_SESSION*)
    int SSL_SESSION_is_resumable(const SSL_SESSION*)
    const unsigned char* SSL_SESSION_get_id(const SSL_SESSION*, unsigned int*)
    void SSL_get0_alpn_selected(const SSL*, const unsigned char**, unsigned int*)
    int SSL_select_next_proto(
        unsigned char**, unsigned char*, const unsigned char*, unsigned int,
        const unsigned char*, unsigned int)
    int SSL_get_peer_signature_type_nid(const SSL*, int*)
    int i2d_SSL_SESSION(SSL_SESSION*, unsigned char**)
    SSL_SESSION* d2i_SSL_SESSION(SSL_SESSION**, const unsigned char**, long)

    enum:
        TLSEXT_nid_unknown


cdef extern from "<openssl/bio.h>":
    enum:
        BIO_TYPE_SOURCE_SINK
        BIO_CTRL_FLUSH
        BIO_CTRL_PENDING
    int BIO_get_new_index()
    BIO_METHOD* BIO_meth_new(int, const char*)
    int BIO_meth_set_write(BIO_METHOD*, int (*)(BIO*, const char*, int) noexcept)
    int BIO_meth_set_read(BIO_METHOD*, int (*)(BIO*, char*, int) noexcept)
    int BIO_meth_set_ctrl(BIO_METHOD*, long (*)(BIO*, int, long, void*) noexcept)
    BIO* BIO_new(const BIO_METHOD*)
    BIO* BIO_new_mem_buf(const void*, int)
    const BIO_METHOD* BIO_s_mem()
    long BIO_get_mem_data(BIO*, char**)
    void BIO_set_data(BIO*, void*)
    void* BIO_get_data(BIO*)
    void BIO_set_init(BIO*, int)
    void BIO_set_retry_read(BIO*)
    void BIO_clear_retry_flags(BIO*)
    int BIO_free(BIO*)


cdef extern from "<openssl/err.h>":
    void ERR_clear_error()
    unsigned long ERR_get_error()
    unsigned long ERR_peek_last_error()
    int ERR_GET_REASON(unsigned long)
    int ERR_GET_LIB(unsigned long)
    void ERR_error_string_n(unsigned long, char*, size_t)
    enum:
        ERR_LIB_PEM
        PEM_R_NO_START_LINE


cdef extern from "<openssl/pem.h>":
    ctypedef int (*PasswordCallback)(char*, int, int, void*) noexcept
    X509* PEM_read_bio_X509_AUX(BIO*, X509**, PasswordCallback, void*)
    X509* PEM_read_bio_X509(BIO*, X509**, PasswordCallback, void*)
    int PEM_write_bio_X509(BIO*, X509*)
    EVP_PKEY* PEM_read_bio_PrivateKey(BIO*, EVP_PKEY**, PasswordCallback, void*)
    EVP_PKEY* PEM_read_bio_Parameters(BIO*, EVP_PKEY**)
    void EVP_PKEY_free(EVP_PKEY*)


cdef extern from "<openssl/x509v3.h>":
    enum:
        X509_V_OK
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        X509_V_ERR_CERT_UNTRUSTED
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        X509_V_FLAG_CRL_CHECK
        X509_V_FLAG_CRL_CHECK_ALL
        XN_FLAG_RFC2253
    void X509_free(X509*)
    stack_st_X509* sk_X509_new_null()
    int sk_X509_push(stack_st_X509*, X509*)
    int sk_X509_num(const stack_st_X509*)
    X509* sk_X509_value(const stack_st_X509*, int)
    void sk_X509_pop_free(stack_st_X509*, void (*)(X509*) noexcept)
    int X509_digest(const X509*, const EVP_MD*, unsigned char*, unsigned int*)
    int X509_check_host(X509*, const char*, size_t, unsigned int, char**)
    struct stack_st_X509_INFO:
        pass
    ctypedef struct X509_CRL:
        pass
    ctypedef struct X509_INFO:
        X509* x509
        X509_CRL* crl
    stack_st_X509_INFO* PEM_X509_INFO_read_bio(
        BIO*, stack_st_X509_INFO*, int (*)(char*, int, int, void*) noexcept, void*)
    int sk_X509_INFO_num(const stack_st_X509_INFO*)
    X509_INFO* sk_X509_INFO_value(const stack_st_X509_INFO*, int)
    void X509_INFO_free(X509_INFO*)
    void sk_X509_INFO_pop_free(stack_st_X509_INFO*, void (*)(X509_INFO*) noexcept)
    int X509_STORE_add_cert(X509_STORE*, X509*)
    int X509_STORE_add_crl(X509_STORE*, X509_CRL*)
    int X509_NAME_cmp(const X509_NAME*, const X509_NAME*)
    X509_NAME* X509_get_subject_name(const X509*)
    X509_NAME* X509_get_issuer_name(const X509*)
    int X509_NAME_print_ex(BIO*, const X509_NAME*, int, unsigned long)
    char* X509_NAME_oneline(const X509_NAME*, char*, int)
    ASN1_INTEGER* X509_get_serialNumber(X509*)
    int i2a_ASN1_INTEGER(BIO*, const ASN1_INTEGER*)
    const ASN1_TIME* X509_get0_notBefore(const X509*)
    const ASN1_TIME* X509_get0_notAfter(const X509*)
    int ASN1_TIME_print(BIO*, const ASN1_TIME*)
    int ASN1_TIME_diff(int*, int*, const ASN1_TIME*, const ASN1_TIME*)
    const char* X509_verify_cert_error_string(long)
    int X509_STORE_set_flags(X509_STORE*, unsigned long)


cdef extern from "<openssl/evp.h>":
    const EVP_MD* EVP_sha1()
    const EVP_MD* EVP_sha512()
    const EVP_CIPHER* EVP_aes_128_cbc()
    const EVP_CIPHER* EVP_aes_256_cbc()
    int EVP_EncryptInit_ex(
        EVP_CIPHER_CTX*, const EVP_CIPHER*, void*, const unsigned char*, const unsigned char*)
    int EVP_DecryptInit_ex(
        EVP_CIPHER_CTX*, const EVP_CIPHER*, void*, const unsigned char*, const unsigned char*)
    int EVP_MAC_CTX_set_params(EVP_MAC_CTX*, const OSSL_PARAM*)


cdef extern from "<openssl/hmac.h>":
    unsigned char* HMAC(
        const EVP_MD*, const void*, int, const unsigned char*, size_t, unsigned char*,
        unsigned int*)


cdef extern from "<openssl/rand.h>":
    int RAND_bytes(unsigned char*, int)


cdef extern from "<openssl/params.h>":
    OSSL_PARAM OSSL_PARAM_construct_octet_string(const char*, void*, size_t)
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char*, char*, size_t)
    OSSL_PARAM OSSL_PARAM_construct_end()


cdef extern from "<openssl/objects.h>":
    const char* OBJ_nid2sn(int)


cdef extern from "<openssl/crypto.h>":
    void OPENSSL_free(void*)
