# One connection's encryption over OpenSSL, without a socket: bytes in, bytes out.

from cython cimport final
from libc.stdlib cimport malloc, realloc
from libc.string cimport memcpy

from proxy.base._told cimport R_ALERT, tell_error
from proxy.engine._client_certificate cimport fault_of
from proxy.engine._openssl cimport *
from proxy.engine._tls_context cimport RECORD_BYTES, ssl_index, why


cdef enum:
    SEALED_FIRST = 64 * 1024

HTTP_1 = b"\x08http/1.1\x08http/1.0\x08http/0.9"
HTTP_2 = b"\x02h2" + HTTP_1

plain = <char*>malloc(PLAIN_BYTES)    # pages nobody touches cost nothing
sealed = <char*>malloc(SEALED_FIRST)
cdef size_t sealed_n = 0
cdef size_t sealed_cap = SEALED_FIRST
cdef char[RECORD_BYTES] joined        # a head and the body behind it, for one record
if plain == NULL or sealed == NULL:
    raise MemoryError


cdef size_t take_sealed() noexcept:
    global sealed_n
    cdef size_t n = sealed_n
    sealed_n = 0
    return n


# ---------------------------------------------------------------- between OpenSSL and our buffers

cdef int bio_read(BIO* bio, char* out, int n) noexcept:
    cdef Tls tls = <Tls>BIO_get_data(bio)
    BIO_clear_retry_flags(bio)
    if tls.in_n == 0:
        BIO_set_retry_read(bio)
        return -1
    if <size_t>n > tls.in_n:
        n = <int>tls.in_n
    memcpy(out, tls.in_p, <size_t>n)
    tls.in_p += n
    tls.in_n -= <size_t>n
    return n


cdef int bio_write(BIO* bio, const char* p, int n) noexcept:
    global sealed, sealed_n, sealed_cap
    cdef size_t cap = sealed_cap
    cdef char* grown
    BIO_clear_retry_flags(bio)
    if sealed_n + <size_t>n > cap:
        while cap < sealed_n + <size_t>n:
            cap *= 2
        if cap > SEALED_MAX:                     # no answer of ours is so long at once
            return -1
        grown = <char*>realloc(sealed, cap)
        if grown == NULL:
            return -1
        sealed = grown
        sealed_cap = cap
    memcpy(sealed + sealed_n, p, <size_t>n)
    sealed_n += <size_t>n
    return n


cdef long bio_control(BIO* bio, int what, long number, void* pointer) noexcept:
    return 1 if what == BIO_CTRL_FLUSH else 0


cdef BIO_METHOD* bio_method = BIO_meth_new(
    BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "headrace")
BIO_meth_set_read(bio_method, bio_read)
BIO_meth_set_write(bio_method, bio_write)
BIO_meth_set_ctrl(bio_method, bio_control)


# ---------------------------------------------------------------- which server

cdef int on_client_hello(SSL* ssl, int* alert, void* unused) noexcept:
    """SNI chooses before the version is settled: all that a server block says holds."""
    cdef Tls tls = <Tls>SSL_get_ex_data(ssl, ssl_index)
    cdef const unsigned char* p
    cdef size_t n
    cdef size_t size
    cdef bytes name = None
    if SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) == 1 and n > 5:
        # RFC 6066 §3: a list of one host_name: length, kind 0, length, bytes
        size = (<size_t>p[3] << 8) | p[4]
        if p[2] == TLSEXT_NAMETYPE_host_name and 0 < size <= n - 5 and size <= 255:
            name = (<const char*>p + 5)[:size]
    if choose(tls, name) < 0:
        alert[0] = SSL_AD_UNRECOGNIZED_NAME
        return SSL_CLIENT_HELLO_ERROR
    return SSL_CLIENT_HELLO_SUCCESS


cdef int on_server_name(SSL* ssl, int* alert, void* unused) noexcept:
    """Without it OpenSSL does not tell the client that its name was heard."""
    return SSL_TLSEXT_ERR_OK


cdef int choose_protocol(
    SSL* ssl, const unsigned char** out, unsigned char* out_n, const unsigned char* offered,
    unsigned int n, void* unused
) noexcept:
    """ALPN, by what the chosen server speaks; none in common ends the handshake (RFC 7301
    §3.2)."""
    cdef Tls tls = <Tls>SSL_get_ex_data(ssl, ssl_index)
    cdef bytes names = HTTP_2 if tls.server_tls.is_h2 else HTTP_1
    if SSL_select_next_proto(<unsigned char**>out, out_n, <const unsigned char*>names,
                             <unsigned int>len(names), offered, n) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    tls.is_h2 = out_n[0] == 2
    return SSL_TLSEXT_ERR_OK


cdef int choose(Tls tls, bytes name) noexcept:
    cdef ServerTls chosen = None
    cdef SSL_CTX* ctx
    if name is not None:
        try:
            tls.server = tls.door.find_server(name)
            if tls.server is not None:
                chosen = <ServerTls?>tls.server.tls
        except Exception as error:
            tell_error(R_ALERT, None, "choosing the server of a TLS name", error)
            return -1
    if chosen is not None:
        tls.server_tls = chosen
        tls.record_bytes = chosen.record_bytes
    if tls.server_tls.rejects:
        tls.is_rejected = True
        return -1
    if chosen is None or chosen.context is None:
        return 0
    ctx = chosen.context.ctx
    if SSL_get_SSL_CTX(tls.ssl) == ctx:
        return 0
    if SSL_set_SSL_CTX(tls.ssl, ctx) == NULL:
        return -1
    # it brings certificates alone
    SSL_set_verify(tls.ssl, SSL_CTX_get_verify_mode(ctx), SSL_CTX_get_verify_callback(ctx))
    SSL_set_verify_depth(tls.ssl, SSL_CTX_get_verify_depth(ctx))
    SSL_clear_options(tls.ssl, SSL_get_options(tls.ssl) & ~SSL_CTX_get_options(ctx))
    SSL_set_options(tls.ssl, SSL_CTX_get_options(ctx))
    return 0


cdef int on_new_session(SSL* ssl, SSL_SESSION* session) noexcept:
    """As a client: a ticket came. 1 takes the reference."""
    cdef void* held = SSL_get_ex_data(ssl, ssl_index)
    cdef Session kept
    if held == NULL:
        return 0
    kept = Session.__new__(Session)
    kept.session = session
    kept.context = (<Tls>held).context
    (<Tls>held).session = kept
    return 1


@final
cdef class Session:
    def __dealloc__(self):
        if self.session != NULL:
            SSL_SESSION_free(self.session)


@final
cdef class Door:
    def __init__(self, ServerTls default_tls not None, find_server):
        self.default_tls = default_tls
        self.find_server = find_server


# ---------------------------------------------------------------- one connection

@final
cdef class Tls:
    def __dealloc__(self):
        if self.ssl != NULL:
            SSL_set_ex_data(self.ssl, ssl_index, NULL)
            SSL_free(self.ssl)

    cdef Py_ssize_t read(self, const char* p, size_t n) noexcept:
        cdef size_t got = 0
        cdef int rc
        cdef int error
        if self.is_broken:
            return -1
        self.is_begun = True
        self.in_p = p
        self.in_n = n
        while got < PLAIN_BYTES:
            ERR_clear_error()
            rc = SSL_read(self.ssl, plain + got, <int>(PLAIN_BYTES - got))
            if rc > 0:
                got += <size_t>rc
                continue
            error = SSL_get_error(self.ssl, rc)
            if error == SSL_ERROR_ZERO_RETURN:
                self.is_ended = True
            elif error != SSL_ERROR_WANT_READ:
                self.is_broken = True
                self.reason = why().encode()
            break
        self.in_n = 0
        if not self.is_ready and SSL_is_init_finished(self.ssl):
            self.is_ready = True
        if self.is_broken and got == 0:
            return -1
        return <Py_ssize_t>got

    cdef int seal(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        """Encrypt p, then q. 0, or -1. Give at most 256 KiB at a time."""
        cdef size_t k
        cdef size_t most = self.record_bytes
        if self.is_broken or self.is_finished:
            return -1
        ERR_clear_error()
        while n and m and n < most:      # a head and a body share records
            memcpy(joined, p, n)
            k = most - n
            if k > m:
                k = m
            memcpy(joined + n, q, k)
            if SSL_write(self.ssl, joined, <int>(n + k)) <= 0:
                self.is_broken = True
                return -1
            n = 0
            q += k
            m -= k
        while n:
            k = n if n < most else most
            if SSL_write(self.ssl, p, <int>k) <= 0:
                self.is_broken = True
                return -1
            p += k
            n -= k
        while m:
            k = m if m < most else most
            if SSL_write(self.ssl, q, <int>k) <= 0:
                self.is_broken = True
                return -1
            q += k
            m -= k
        return 0

    cdef void finish(self) noexcept:
        """close_notify."""
        if not self.is_finished and self.is_ready and not self.is_broken:
            self.is_finished = True
            ERR_clear_error()
            SSL_shutdown(self.ssl)
            ERR_clear_error()

    cdef bytes check_peer(self, bytes name):
        """proxy_ssl_verify. nginx's words."""
        cdef X509* certificate = SSL_get0_peer_certificate(self.ssl)
        if SSL_get_verify_result(self.ssl) != X509_V_OK:
            return b"upstream SSL certificate verify error: " + self.verify_reason()
        if certificate == NULL or X509_check_host(
                certificate, <const char*>name, <size_t>len(name), 0, NULL) != 1:
            return b'upstream SSL certificate does not match "' + name + b'"'
        return None

    cdef bytes verify_reason(self):
        """"(18:self-signed certificate)"."""
        cdef long result = SSL_get_verify_result(self.ssl)
        return b"(%d:%s)" % (result, <bytes>X509_verify_cert_error_string(result))

    cdef int client_fault(self, ServerTls chosen) noexcept:
        """What a server that verifies answers to this client: 0 nothing, or 421, 495, 496."""
        cdef int fault
        if chosen is None or chosen.verify == 0:
            return 0
        fault = fault_of(chosen, self.server_tls, SSL_get_verify_result(self.ssl),
                         SSL_get0_peer_certificate(self.ssl) != NULL)
        if fault == 495 or fault == 496:
            SSL_CTX_remove_session(SSL_get_SSL_CTX(self.ssl), SSL_get0_session(self.ssl))
        return fault


cdef Tls begin(Context context):
    cdef Tls tls = Tls.__new__(Tls)
    cdef BIO* bio
    tls.ssl = SSL_new(context.ctx)
    bio = BIO_new(bio_method)
    if tls.ssl == NULL or bio == NULL:
        raise MemoryError
    BIO_set_data(bio, <void*>tls)
    BIO_set_init(bio, 1)
    SSL_set_bio(tls.ssl, bio, bio)
    SSL_set_ex_data(tls.ssl, ssl_index, <void*>tls)
    tls.context = context
    tls.record_bytes = RECORD_BYTES
    return tls


cdef Tls begin_server(Door door):
    """A client came to this door."""
    cdef Context context = door.default_tls.context
    cdef Tls tls = begin(context)
    tls.door = door
    tls.server_tls = door.default_tls
    tls.record_bytes = door.default_tls.record_bytes
    SSL_set_accept_state(tls.ssl)
    return tls


cdef Tls begin_client(Context context, bytes sni, Session session):
    """Towards an upstream; the first read(NULL, 0) leaves the ClientHello in `sealed`."""
    cdef Tls tls = begin(context)
    SSL_set_connect_state(tls.ssl)
    if sni:
        SSL_set_tlsext_host_name(tls.ssl, <const char*>sni)
    if session is not None and session.context is context:
        SSL_set_session(tls.ssl, session.session)
    return tls


cdef int choose_listed(
    SSL* ssl, const unsigned char** out, unsigned char* out_n, const unsigned char* offered,
    unsigned int n, void* listed
) noexcept:
    """ALPN of a stream: the first of ours that the client offers (RFC 7301 §3.2)."""
    cdef bytes names = <bytes><object>listed
    if SSL_select_next_proto(<unsigned char**>out, out_n, <const unsigned char*>names,
                             <unsigned int>len(names), offered, n) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_OK


LISTED = {}                                      # what contexts point at, one of each


def prepare(Context context not None, bint has_alpn=True, bytes listed=b""):
    """Give a new context the callbacks that live here. Without ALPN, and with no names `listed` as
    ALPN writes them, whatever a client offers by it is passed over."""
    if context.is_server:
        SSL_CTX_set_client_hello_cb(context.ctx, on_client_hello, NULL)
        SSL_CTX_set_tlsext_servername_callback(context.ctx, on_server_name)
        if has_alpn:
            SSL_CTX_set_alpn_select_cb(context.ctx, choose_protocol, NULL)
        elif listed:
            listed = LISTED.setdefault(listed, listed)
            SSL_CTX_set_alpn_select_cb(context.ctx, choose_listed, <void*>listed)
    else:
        SSL_CTX_sess_set_new_cb(context.ctx, on_new_session)
