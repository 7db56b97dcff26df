# Way: TLS towards upstreams, for what speaks no HTTP: whose certificate is wanted, what is sent.

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.engine._tls cimport Tls
from proxy.engine._tls_context cimport Context
from proxy.variables._variables cimport Template


cdef class Way:
    cdef public Context context
    cdef public Template name             # proxy_ssl_name; None: the host that is passed to
    cdef public object bare_name          # policy: text → what is verified
    cdef public object sent_name          # … → what SNI says, or None
    cdef public list alpn                 # proxy_ssl_alpn, Templates; None: none is offered
    cdef public bint verifies             # proxy_ssl_verify
    cdef public bint reuses               # proxy_ssl_session_reuse


# A Tls of our side, and the name that its certificate must have; host: where the connection goes,
# session: one of before, or None. Raises what OpenSSL and names make Python raise.
cdef tuple begin_way(Way way, Request r, Str host, object session)
# The name that the client of a handshake asked for by SNI, or NULL; it lives as long as the Tls.
cdef const char* asked_name(Tls tls) noexcept
# None, or why the peer, whose handshake is done, is not who it should be.
cdef bytes wrong_peer(Way way, Tls tls, bytes name)
