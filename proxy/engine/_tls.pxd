# Tls: one connection's encryption, between the bytes of a Link and those its owner reads.
#
# Contract: no socket and no clock here. `read` eats what came and leaves plain bytes in
# `plain`; `seal` and `finish` leave what must be sent in `sealed`. Both buffers are the
# worker's, one each: empty `sealed` and use `plain` up before the next call for anybody.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport uint8_t

from proxy.engine._openssl cimport SSL, SSL_SESSION
from proxy.engine._tls_context cimport Context, ServerTls

cdef enum:
    PLAIN_BYTES = 320 * 1024          # the worker's read buffer, and a record that waited
    SEALED_MAX = 1024 * 1024

cdef char* plain
cdef char* sealed
cdef size_t take_sealed() noexcept    # how many bytes; none are left


@final
cdef class Session:
    """A session of ours as a client, to be resumed."""
    cdef SSL_SESSION* session
    cdef Context context


@final
cdef class Door:
    """TLS of one listen address: the default server's context, and how SNI finds another."""
    cdef public ServerTls default_tls
    cdef public object find_server    # callable(bytes name) → object with .tls, or None


@final
cdef class Tls:
    cdef SSL* ssl
    cdef const char* in_p             # what the BIO hands out next
    cdef size_t in_n
    cdef Door door                    # None: we are the client
    cdef Context context
    cdef size_t record_bytes          # plain bytes of one of our records
    cdef PyObject* who                # its Client, borrowed: one Link owns both; as a client NULL
    cdef public object server         # what SNI chose, None: nothing
    cdef ServerTls server_tls         # of the server that rules the handshake
    cdef Session session              # a new one came (as a client)
    cdef bytes reason                 # why it broke
    cdef uint8_t is_begun
    cdef uint8_t is_ready             # the handshake is done
    cdef uint8_t is_ended             # close_notify came
    cdef uint8_t is_broken
    cdef uint8_t is_rejected
    cdef uint8_t is_h2                # ALPN chose HTTP/2
    cdef uint8_t is_finished          # we sent close_notify

    # Bytes in `plain`; -1: broken, but `sealed` may hold an alert that should still go out.
    cdef Py_ssize_t read(self, const char* p, size_t n) noexcept
    cdef int seal(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef void finish(self) noexcept
    # Is the chain good, and is it the certificate of `name`? None, or what is wrong.
    cdef bytes check_peer(self, bytes name)
    cdef int client_fault(self, ServerTls chosen) noexcept
    cdef bytes verify_reason(self)


cdef Tls begin_server(Door door)
cdef Tls begin_client(Context context, bytes sni, Session session)
