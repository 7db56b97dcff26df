# TLS of our side begins here, and is judged once its handshake is done.

from proxy.base.span cimport to_bytes
from proxy.engine._openssl cimport SSL_get_servername, TLSEXT_NAMETYPE_host_name
from proxy.engine._tls cimport Session, begin_client
from proxy.variables._variables cimport evaluate


cdef class Way:
    pass


cdef tuple begin_way(Way way, Request r, Str host, object session):
    cdef Str value = host
    cdef bytes sni = None
    cdef Session before = None
    if way.name is not None and evaluate(way.name, r, &value) < 0:
        raise ValueError("proxy_ssl_name cannot be told")
    name = to_bytes(value).decode("latin-1")
    sent = way.sent_name(name)
    if sent is not None:
        sni = sent.encode("latin-1")
    if way.reuses:
        before = session                         # of whatever settings: begin_client looks
    tls = begin_client(way.context, sni, before)
    return tls, way.bare_name(name).encode("latin-1")


cdef const char* asked_name(Tls tls) noexcept:
    return SSL_get_servername(tls.ssl, TLSEXT_NAMETYPE_host_name)


cdef bytes wrong_peer(Way way, Tls tls, bytes name):
    return tls.check_peer(name) if way.verifies else None
