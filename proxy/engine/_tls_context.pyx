# Makes TLS contexts from what a conf says: versions, certificates, authorities, sessions.
#
# OpenSSL is bound here directly, not through the ssl module: verification must be set per
# connection, tickets must have one key in all workers, and an idle connection must be small.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memset
from libc.time cimport time as wall_s

from proxy.base._shm cimport Zone
from proxy.engine._openssl cimport *
from proxy.engine._sessions cimport SESSION_MOST, SessionCache


cdef enum:
    NAME_BYTES = 16

VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
DEFINED_COMMANDS = (
    SSL_CONF_FLAG_FILE | SSL_CONF_FLAG_CLIENT | SSL_CONF_FLAG_SERVER
    | SSL_CONF_FLAG_CERTIFICATE | SSL_CONF_FLAG_SHOW_ERRORS
)

cdef int context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL)
ssl_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL)
cdef unsigned char[32] secret
cdef unsigned char[64] scratch
cdef uint64_t birth_s = 0     # epochs are counted from here, in all workers
cdef bint was_asked = False   # for a password, by OpenSSL
RAND_bytes(secret, 32)


def share_secret(zone: Zone):
    """Take the tickets' secret from a zone, so that all workers of a master have the same,
    over reloads too."""
    HMAC(EVP_sha512(), b"tickets", 7, <const unsigned char*>&zone.head.seed[0], 16, scratch, NULL)
    memcpy(secret, scratch, 32)
    global birth_s
    cdef uint64_t* birth = <uint64_t*>zone.data()
    if birth[0] == 0:
        birth[0] = <uint64_t>wall_s(NULL)
    birth_s = birth[0]


cdef object why():
    """What OpenSSL has queued, the cause first; empties the queue."""
    cdef char[256] line
    cdef unsigned long code = ERR_get_error()
    said = []
    while code and len(said) < 8:
        ERR_error_string_n(code, line, 256)
        said.append((<bytes>line).decode("latin-1"))
        code = ERR_get_error()
    ERR_clear_error()
    return "SSL: " + " ".join(said) if said else "SSL: no reason"


cdef int always_go_on(int ok, X509_STORE_CTX* store) noexcept:
    """A bad certificate is recorded and answered by HTTP, not by a broken handshake (nginx)."""
    return 1


cdef int give_password(char* out, int size, int is_writing, void* password) noexcept:
    cdef bytes word
    global was_asked
    was_asked = True
    if password == NULL:
        return 0
    word = <bytes>password
    if len(word) > size:
        return 0
    memcpy(out, <const char*>word, len(word))
    return <int>len(word)


cdef X509* read_certificate(bytes pem, stack_st_X509** chain) except NULL:
    cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
    cdef X509* leaf
    cdef X509* found
    chain[0] = NULL
    ERR_clear_error()
    try:
        leaf = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)
        if leaf == NULL:
            raise ValueError(f"PEM_read_bio_X509_AUX() failed ({why()})")
        while True:
            found = PEM_read_bio_X509(bio, NULL, NULL, NULL)
            if found == NULL:
                break
            if chain[0] == NULL:
                chain[0] = sk_X509_new_null()
            if sk_X509_push(chain[0], found) == 0:
                X509_free(found)
                break
        if ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE:
            X509_free(leaf)
            sk_X509_pop_free(chain[0], X509_free)
            chain[0] = NULL
            raise ValueError(f"PEM_read_bio_X509() failed ({why()})")
        ERR_clear_error()
    finally:
        BIO_free(bio)
    return leaf


cdef EVP_PKEY* read_key(bytes pem, passwords, bint* was_locked) except NULL:
    global was_asked
    cdef BIO* bio
    cdef EVP_PKEY* key = NULL
    was_asked = False
    for word in list(passwords) or [b""]:
        ERR_clear_error()
        bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
        key = PEM_read_bio_PrivateKey(bio, NULL, give_password, <PyObject*>word)
        BIO_free(bio)
        if key != NULL:
            break
    if key == NULL:
        raise ValueError(f"PEM_read_bio_PrivateKey() failed ({why()})")
    was_locked[0] = was_asked
    return key


cdef int seal_ticket(
    SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
    EVP_MAC_CTX* mac, int is_new
) noexcept:
    """RFC 5077 §4: 1 use, 2 use and send a new one, 0 not ours, -1 failed."""
    cdef void* held = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), context_index)
    cdef Context context
    cdef TicketKey* key
    cdef OSSL_PARAM[3] parameters
    cdef const EVP_CIPHER* kind
    if held == NULL:
        return -1
    context = <Context>held
    context.find_key(NULL)
    if is_new:
        key = &context.keys[0]
        if RAND_bytes(iv, 16) != 1:
            return -1
        memcpy(name, key.name, NAME_BYTES)
    else:
        key = context.find_key(name)
        if key == NULL:
            return 0
    kind = EVP_aes_256_cbc() if key.aes_n == 32 else EVP_aes_128_cbc()
    parameters[0] = OSSL_PARAM_construct_octet_string("key", key.hmac, key.aes_n)
    parameters[1] = OSSL_PARAM_construct_utf8_string("digest", <char*>"SHA256", 0)
    parameters[2] = OSSL_PARAM_construct_end()
    if EVP_MAC_CTX_set_params(mac, parameters) != 1:
        return -1
    if is_new:
        return 1 if EVP_EncryptInit_ex(cipher, kind, NULL, key.aes, iv) == 1 else -1
    if EVP_DecryptInit_ex(cipher, kind, NULL, key.aes, iv) != 1:
        return -1
    # TLS 1.3 tickets are for one use (RFC 8446 §C.4); an older key is on its way out
    return 2 if SSL_version(ssl) == TLS1_3_VERSION or key != &context.keys[0] else 1


# ---------------------------------------------------------------- ssl_session_cache shared

cdef inline SessionCache cache_of(SSL_CTX* ctx):
    cdef void* held = SSL_CTX_get_ex_data(ctx, context_index)
    return (<Context>held).cache if held != NULL else None


cdef int keep_session(SSL* ssl, SSL_SESSION* session) noexcept:
    cdef SSL_CTX* ctx = SSL_get_SSL_CTX(ssl)
    cdef SessionCache cache = cache_of(ctx)
    cdef unsigned char[SESSION_MOST] room
    cdef unsigned char* end = room
    cdef const unsigned char* id
    cdef unsigned int id_n = 0
    cdef int n = i2d_SSL_SESSION(session, NULL)
    if cache is None or n <= 0 or n > SESSION_MOST:
        return 0
    i2d_SSL_SESSION(session, &end)
    id = SSL_SESSION_get_id(session, &id_n)
    cache.put(id, id_n, room, <uint32_t>n,
              <uint32_t>(wall_s(NULL) + SSL_CTX_get_timeout(ctx)))
    return 0                                     # OpenSSL keeps its reference


cdef SSL_SESSION* find_session(
    SSL* ssl, const unsigned char* id, int id_n, int* is_copied
) noexcept:
    cdef SessionCache cache = cache_of(SSL_get_SSL_CTX(ssl))
    cdef unsigned char[SESSION_MOST] room
    cdef const unsigned char* p = room
    cdef uint32_t n
    is_copied[0] = 0
    if cache is None or id_n <= 0:
        return NULL
    n = cache.get(id, <unsigned int>id_n, room, <uint32_t>wall_s(NULL))
    return d2i_SSL_SESSION(NULL, &p, n) if n else NULL


cdef void forget_session(SSL_CTX* ctx, SSL_SESSION* session) noexcept:
    cdef SessionCache cache = cache_of(ctx)
    cdef unsigned int id_n = 0
    cdef const unsigned char* id = SSL_SESSION_get_id(session, &id_n)
    if cache is not None and id_n:
        cache.remove(id, id_n)


@final
cdef class Context:
    """An SSL_CTX. Methods raise ValueError with OpenSSL's reason."""

    def __cinit__(self, bint is_server):
        self.ctx = SSL_CTX_new(TLS_method())
        if self.ctx == NULL:
            raise MemoryError
        self.is_server = is_server
        SSL_CTX_set_ex_data(self.ctx, context_index, <PyObject*>self)
        SSL_CTX_set_mode(self.ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        SSL_CTX_set_options(self.ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION
                            | SSL_OP_IGNORE_UNEXPECTED_EOF)
        SSL_CTX_set_verify(self.ctx, SSL_VERIFY_NONE, NULL)
        SSL_CTX_set_default_passwd_cb(self.ctx, give_password)
        if is_server:
            SSL_CTX_set_tlsext_ticket_key_evp_cb(self.ctx, seal_ticket)

    def __dealloc__(self):
        if self.ctx != NULL:
            SSL_CTX_set_ex_data(self.ctx, context_index, NULL)
            SSL_CTX_free(self.ctx)

    # ---------------------------------------------------------------- what is spoken

    def set_versions(self, names):
        """names: of VERSIONS; SSLv2 and SSLv3 are not in OpenSSL any more and are passed over."""
        if not any(name in VERSIONS for name in names):
            raise ValueError("no TLS version that OpenSSL has")
        SSL_CTX_set_min_proto_version(self.ctx, TLS1_VERSION)
        SSL_CTX_set_max_proto_version(self.ctx, TLS1_3_VERSION)
        if "TLSv1" not in names:
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TLSv1)
        if "TLSv1.1" not in names:
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TLSv1_1)
        if "TLSv1.2" not in names:
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TLSv1_2)
        if "TLSv1.3" not in names:
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TLSv1_3)

    def offer(self, bytes protocol not None):
        """As a client: ALPN offers this one."""
        cdef bytes offered = bytes([len(protocol)]) + protocol
        if SSL_CTX_set_alpn_protos(self.ctx, <const unsigned char*><const char*>offered,
                                   <unsigned int>len(offered)) != 0:
            raise MemoryError

    def set_ciphers(self, str text, bint prefers_ours=False):
        """For TLS 1.2 and below, in OpenSSL's words."""
        ERR_clear_error()
        if SSL_CTX_set_cipher_list(self.ctx, text.encode()) != 1:
            raise ValueError(f'SSL_CTX_set_cipher_list("{text}") failed ({why()})')
        if prefers_ours:
            SSL_CTX_set_options(self.ctx, SSL_OP_CIPHER_SERVER_PREFERENCE)

    def set_curves(self, str text):
        ERR_clear_error()
        if SSL_CTX_set1_curves_list(self.ctx, text.encode()) != 1:
            raise ValueError(f'SSL_CTX_set1_curves_list("{text}") failed ({why()})')

    def set_dhparam(self, bytes pem):
        cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
        cdef EVP_PKEY* key
        ERR_clear_error()
        key = PEM_read_bio_Parameters(bio, NULL)
        BIO_free(bio)
        if key == NULL or SSL_CTX_set0_tmp_dh_pkey(self.ctx, key) != 1:
            EVP_PKEY_free(key)
            raise ValueError(f"PEM_read_bio_DHparams() failed ({why()})")

    def command(self, str name, str value, str path):
        """One ssl_conf_command; path: the value where it turns out to be a file's name."""
        cdef SSL_CONF_CTX* commands = SSL_CONF_CTX_new()
        cdef int rc
        ERR_clear_error()
        SSL_CONF_CTX_set_flags(commands, DEFINED_COMMANDS)
        SSL_CONF_CTX_set_ssl_ctx(commands, self.ctx)
        rc = SSL_CONF_cmd_value_type(commands, name.encode())
        if rc == SSL_CONF_TYPE_FILE or rc == SSL_CONF_TYPE_DIR:
            value = path
        rc = SSL_CONF_cmd(commands, name.encode(), value.encode())
        if rc > 0:
            rc = SSL_CONF_CTX_finish(commands)
        SSL_CONF_CTX_free(commands)
        if rc <= 0:
            raise ValueError(f'SSL_CONF_cmd("{name}", "{value}") failed ({why()})')

    # ---------------------------------------------------------------- certificates

    def add_certificate(self, bytes pem):
        """A certificate and the chain behind it. Call add_key next."""
        cdef stack_st_X509* chain = NULL
        cdef X509* leaf = read_certificate(pem, &chain)
        cdef int i
        try:
            if SSL_CTX_use_certificate(self.ctx, leaf) != 1:
                raise ValueError(f"SSL_CTX_use_certificate() failed ({why()})")
            for i in range(sk_X509_num(chain)):
                if SSL_CTX_add1_chain_cert(self.ctx, sk_X509_value(chain, i)) != 1:
                    raise ValueError(f"SSL_CTX_add1_chain_cert() failed ({why()})")
        finally:
            X509_free(leaf)
            sk_X509_pop_free(chain, X509_free)

    def add_key(self, bytes pem, passwords):
        """The key of the certificate added last; passwords: bytes, tried in turn."""
        cdef bint was_locked = False
        cdef EVP_PKEY* key = read_key(pem, passwords, &was_locked)
        cdef int rc = SSL_CTX_use_PrivateKey(self.ctx, key)
        EVP_PKEY_free(key)
        if rc != 1:
            raise ValueError(f"SSL_CTX_use_PrivateKey() failed ({why()})")

    # ---------------------------------------------------------------- who is trusted

    def verify_peer(self):
        """Ask for a certificate and record what is found of it."""
        SSL_CTX_set_verify(self.ctx, SSL_VERIFY_PEER, always_go_on)

    def set_depth(self, int depth):
        SSL_CTX_set_verify_depth(self.ctx, depth)

    def add_authorities(self, bytes pem, bint are_named=False):
        """The certificates of a PEM text are trusted, its lists of revoked ones obeyed.
        are_named: clients are told whom we trust (RFC 8446 §4.2.4), each name once."""
        cdef BIO* bio = BIO_new_mem_buf(<const char*>pem, <int>len(pem))
        cdef X509_STORE* store = SSL_CTX_get_cert_store(self.ctx)
        cdef stack_st_X509_INFO* found
        cdef X509_INFO* it
        cdef int i
        cdef int n_used = 0
        cdef set names = set()
        ERR_clear_error()
        found = PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL)
        BIO_free(bio)
        if found == NULL:
            raise ValueError(why())
        for i in range(sk_X509_INFO_num(found)):
            it = sk_X509_INFO_value(found, i)
            if it.crl != NULL:
                n_used += X509_STORE_add_crl(store, it.crl)
            if it.x509 != NULL:
                n_used += X509_STORE_add_cert(store, it.x509)
                name = one_line(X509_get_subject_name(it.x509))
                if are_named and name not in names:
                    names.add(name)
                    SSL_CTX_add_client_CA(self.ctx, it.x509)
        sk_X509_INFO_pop_free(found, X509_INFO_free)
        if n_used == 0:
            raise ValueError("SSL: no certificate or crl found")
        ERR_clear_error()

    def check_revoked(self):
        """Every certificate of a chain is held against the lists that were loaded."""
        X509_STORE_set_flags(SSL_CTX_get_cert_store(self.ctx),
                             X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)

    # ---------------------------------------------------------------- sessions

    def keep_sessions(self, bytes id_context, int timeout_s, bint is_off, long count,
                      SessionCache cache, bint has_tickets, ticket_keys=()):
        """Of a server. id_context: at most 32 bytes, equal where sessions may be shared;
        count: sessions kept in this worker, 0 none; cache: those that all workers share;
        ticket_keys: 48 or 80 bytes each, the first seals. Without keys they come from the
        shared secret and change by themselves."""
        cdef bytes data
        SSL_CTX_set_session_id_context(self.ctx, <const unsigned char*>id_context,
                                       <unsigned int>len(id_context))
        SSL_CTX_set_timeout(self.ctx, timeout_s)
        if is_off:
            SSL_CTX_set_session_cache_mode(self.ctx, SSL_SESS_CACHE_OFF)
        elif count or cache is not None:
            SSL_CTX_set_session_cache_mode(
                self.ctx, SSL_SESS_CACHE_SERVER | (0 if count else SSL_SESS_CACHE_NO_INTERNAL))
            SSL_CTX_sess_set_cache_size(self.ctx, count)
            if cache is not None:
                self.cache = cache
                SSL_CTX_sess_set_new_cb(self.ctx, keep_session)
                SSL_CTX_sess_set_get_cb(self.ctx, find_session)
                SSL_CTX_sess_set_remove_cb(self.ctx, forget_session)
        else:
            SSL_CTX_set_session_cache_mode(
                self.ctx, SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_AUTO_CLEAR
                | SSL_SESS_CACHE_NO_INTERNAL_STORE)
        if not has_tickets:
            SSL_CTX_set_options(self.ctx, SSL_OP_NO_TICKET)
        self.n_keys = 0
        for data in ticket_keys[:MAX_TICKET_KEYS]:
            write_key(&self.keys[self.n_keys], data)
            self.n_keys += 1

    def resume_sessions(self):
        """Of a client: new sessions are handed to whoever dialed."""
        SSL_CTX_set_session_cache_mode(
            self.ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)

    cdef TicketKey* find_key(self, const unsigned char* name) noexcept:
        cdef uint64_t epoch
        cdef uint64_t step
        cdef int i
        cdef int n = self.n_keys
        if n == 0:
            step = <uint64_t>SSL_CTX_get_timeout(self.ctx)
            if step == 0:
                step = 1
            # a key seals tickets for one session timeout, and opens them for one more
            epoch = (<uint64_t>wall_s(NULL) - birth_s) // step + 1
            if epoch != self.epoch:
                derive_key(&self.keys[0], epoch)
                derive_key(&self.keys[1], epoch - 1)
                derive_key(&self.keys[2], epoch + 1)  # of a worker whose second came first
                self.epoch = epoch
            n = 3
        if name != NULL:
            for i in range(n):
                if memcmp(self.keys[i].name, name, NAME_BYTES) == 0:
                    return &self.keys[i]
        return NULL


cdef void derive_key(TicketKey* key, uint64_t epoch) noexcept:
    cdef unsigned char[9] asked
    memcpy(asked + 1, &epoch, 8)
    asked[0] = c"n"
    HMAC(EVP_sha512(), secret, 32, asked, 9, scratch, NULL)
    memcpy(key.name, scratch, 16)
    memcpy(key.aes, scratch + 16, 32)
    asked[0] = c"h"
    HMAC(EVP_sha512(), secret, 32, asked, 9, scratch, NULL)
    memcpy(key.hmac, scratch, 32)
    key.aes_n = 32


cdef write_key(TicketKey* key, bytes data):
    """A file of ssl_session_ticket_key: name, then AES and HMAC (80 bytes) or HMAC and AES
    (48 bytes), in nginx's order."""
    cdef const unsigned char* p = <const unsigned char*>data
    memset(key, 0, sizeof(TicketKey))
    memcpy(key.name, p, 16)
    if len(data) == 48:
        key.aes_n = 16
        memcpy(key.aes, p + 16, 16)
        memcpy(key.hmac, p + 32, 16)
    elif len(data) == 80:
        key.aes_n = 32
        memcpy(key.hmac, p + 16, 32)
        memcpy(key.aes, p + 48, 32)
    else:
        raise ValueError("must be 48 or 80 bytes")


cdef bytes one_line(X509_NAME* name):
    cdef char* line = X509_NAME_oneline(name, NULL, 0)
    cdef bytes copied = line if line != NULL else b""
    OPENSSL_free(line)
    return copied


@final
cdef class ServerTls:
    def __init__(self):
        self.record_bytes = RECORD_BYTES
