# Context: certificates, keys and rules of one server block or of one way to an upstream.

from cython cimport final
from libc.stdint cimport uint8_t, uint64_t

from proxy.engine._openssl cimport (
    EVP_PKEY,
    SSL,
    SSL_CTX,
    SSL_SESSION,
    X509,
    X509_STORE_CTX,
    stack_st_X509,
)
from proxy.engine._sessions cimport SessionCache

cdef enum:
    MAX_TICKET_KEYS = 8
    RECORD_BYTES = 16384      # the most plain bytes of a record (RFC 8446 §5.1)


cdef struct TicketKey:
    unsigned char[16] name
    unsigned char[32] aes
    unsigned char[32] hmac
    uint8_t aes_n             # 16 or 32; the same count of hmac is used


@final
cdef class Context:
    cdef SSL_CTX* ctx
    cdef TicketKey[8] keys
    cdef uint8_t n_keys       # 0: derived from the secret that all workers share
    cdef uint64_t epoch
    cdef SessionCache cache   # shared by all workers, or None
    cdef readonly bint is_server
    cdef public object certificates   # Certificates, named by variables; None: they are fixed

    cdef TicketKey* find_key(self, const unsigned char* name) noexcept


@final
cdef class ServerTls:
    """What a server block says of TLS; hangs on Server.tls."""
    cdef public Context context       # None: the default server's is used
    cdef public size_t record_bytes   # ssl_buffer_size; RECORD_BYTES at most
    cdef public int verify            # 0 off, 1 on, 2 optional, 3 optional_no_ca
    cdef public bint is_h2            # ALPN may choose HTTP/2
    cdef public bint is_h3            # http3
    cdef public bint rejects          # ssl_reject_handshake
    cdef public object rules          # equal where client certificates are verified alike


cdef int ssl_index                    # ex_data of an SSL: PyObject* of its Tls, borrowed
cdef object why()                     # what OpenSSL has to say, as text
# A certificate in PEM, and the chain behind it, perhaps NULL; both are the caller's. ValueError.
cdef X509* read_certificate(bytes pem, stack_st_X509** chain) except NULL
# A key in PEM; passwords: bytes, tried in turn. was_locked: one was asked for. ValueError.
cdef EVP_PKEY* read_key(bytes pem, passwords, bint* was_locked) except NULL
# A bad certificate of a client is recorded, and answered by HTTP: no handshake breaks (nginx).
cdef int always_go_on(int ok, X509_STORE_CTX* store) noexcept
