# What is found of clients' certificates, and what a server that verifies answers.

from cython cimport final

from proxy.engine._openssl cimport X509
from proxy.engine._tls_context cimport ServerTls


@final
cdef class ClientCertificate:
    """What a client showed over QUIC, whose TLS is not OpenSSL's, judged as over TCP."""
    cdef X509* x509               # NULL: none
    cdef long result              # X509_V_OK, or why it is not believed
    cdef ServerTls server_tls     # whose rules judged it

    cdef int fault(self, ServerTls chosen) noexcept
    cdef bytes reason(self)


# Of Client.tls: over QUIC, what the client showed; None: it was not asked, or came over TCP.
cdef ClientCertificate shown_in(object tls)

# What a server that verifies answers to a client that server_tls judged: 0 nothing, or 421, 495,
# 496.
cdef int fault_of(ServerTls chosen, ServerTls server_tls, long result, bint is_shown) noexcept
