"""Judges clients' certificates by a server's rules: over QUIC, and what is answered on any way."""

from cython cimport final

from proxy.engine._openssl cimport *
from proxy.engine._tls_context cimport ServerTls, always_go_on

cdef extern from "<openssl/ssl.h>":
    ctypedef struct X509_VERIFY_PARAM:
        pass
    X509_VERIFY_PARAM* SSL_CTX_get0_param(SSL_CTX*)
    int SSL_CTX_get_security_level(const SSL_CTX*)

cdef extern from "<openssl/x509_vfy.h>":
    X509* d2i_X509(X509**, const unsigned char**, long)
    X509_STORE_CTX* X509_STORE_CTX_new()
    void X509_STORE_CTX_free(X509_STORE_CTX*)
    int X509_STORE_CTX_init(X509_STORE_CTX*, X509_STORE*, X509*, stack_st_X509*)
    int X509_STORE_CTX_set_default(X509_STORE_CTX*, const char*)
    X509_VERIFY_PARAM* X509_STORE_CTX_get0_param(X509_STORE_CTX*)
    int X509_VERIFY_PARAM_set1(X509_VERIFY_PARAM*, const X509_VERIFY_PARAM*)
    void X509_VERIFY_PARAM_set_auth_level(X509_VERIFY_PARAM*, int)
    void X509_STORE_CTX_set_verify_cb(X509_STORE_CTX*, VerifyCallback)
    int X509_verify_cert(X509_STORE_CTX*)
    int X509_STORE_CTX_get_error(const X509_STORE_CTX*)
    int X509_V_ERR_OUT_OF_MEM
    int X509_V_ERR_UNSPECIFIED

cdef enum:
    SHOWN = 5                 # of what `Connection.facts` gives: the client's certificate


cdef long judge(SSL_CTX* ctx, X509* it, stack_st_X509* others) noexcept:
    cdef X509_STORE_CTX* store = X509_STORE_CTX_new()
    cdef X509_VERIFY_PARAM* rules
    cdef long result = X509_V_ERR_OUT_OF_MEM
    if store != NULL and X509_STORE_CTX_init(
            store, SSL_CTX_get_cert_store(ctx), it, others) == 1 and (
            X509_STORE_CTX_set_default(store, b"ssl_client") == 1):
        rules = X509_STORE_CTX_get0_param(store)
        X509_VERIFY_PARAM_set_auth_level(rules, SSL_CTX_get_security_level(ctx))
        if X509_VERIFY_PARAM_set1(rules, SSL_CTX_get0_param(ctx)) == 1:
            X509_STORE_CTX_set_verify_cb(store, always_go_on)
            X509_verify_cert(store)
            result = X509_STORE_CTX_get_error(store)
    X509_STORE_CTX_free(store)
    return result


@final
cdef class ClientCertificate:
    """`chain`: DER, the client's own first; empty: it showed none. Asks what OpenSSL asks of a
    client over TCP: the server's authorities, lists of revoked ones, depth, security level."""

    def __init__(self, ServerTls server_tls not None, list chain not None):
        cdef stack_st_X509* others
        cdef X509* it
        cdef bytes der
        self.server_tls = server_tls
        self.result = X509_V_OK
        if not chain:
            return
        if server_tls.context is None:
            raise ValueError("a server without TLS judges nobody")
        others = sk_X509_new_null()
        self.result = X509_V_ERR_OUT_OF_MEM
        if others == NULL:
            return
        for der in chain:
            it = read_der(der)
            if self.x509 == NULL:
                self.x509 = it
            if it == NULL or it != self.x509 and not sk_X509_push(others, it):
                self.result = X509_V_ERR_UNSPECIFIED
                break
        else:
            self.result = judge(server_tls.context.ctx, self.x509, others)
        sk_X509_pop_free(others, X509_free)
        ERR_clear_error()

    def __dealloc__(self):
        X509_free(self.x509)

    cdef int fault(self, ServerTls chosen) noexcept:
        return fault_of(chosen, self.server_tls, self.result, self.x509 != NULL)

    cdef bytes reason(self):
        """"(18:self-signed certificate)"."""
        return b"(%d:%s)" % (self.result, <bytes>X509_verify_cert_error_string(self.result))


cdef X509* read_der(bytes der):
    cdef const unsigned char* p = <const unsigned char*><const char*>der
    return d2i_X509(NULL, &p, <long>len(der))


cdef ClientCertificate shown_in(object tls):
    return <ClientCertificate>(<tuple>tls)[SHOWN] if type(tls) is tuple else None


cdef int fault_of(ServerTls chosen, ServerTls server_tls, long result, bint is_shown) noexcept:
    if chosen is None or chosen.verify == 0:
        return 0
    if chosen is not server_tls and (server_tls is None or chosen.rules != server_tls.rules):
        return 421
    if result != X509_V_OK and not (chosen.verify == 3 and is_unknown_authority(result)):
        return 495
    if chosen.verify == 1 and not is_shown:
        return 496
    return 0


cdef bint is_unknown_authority(long result) noexcept:
    """What optional_no_ca lets pass."""
    return result in (
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_CERT_UNTRUSTED,
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE)
