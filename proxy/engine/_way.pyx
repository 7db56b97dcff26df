# TLS of our side begins here, and is judged once its handshake is done.

from proxy.base.span cimport to_bytes
from proxy.engine._certificates cimport Certificates, KeyPair, put_pair
from proxy.engine._openssl cimport SSL, SSL_get_servername, TLSEXT_NAMETYPE_host_name
from proxy.engine._tls cimport Session, begin_client
from proxy.variables._variables cimport Template, evaluate

cdef extern from "<openssl/ssl.h>" nogil:
    int SSL_set_alpn_protos(SSL*, const unsigned char*, unsigned int)


cdef enum:
    PROTOCOL_MOST = 255           # its length is a byte


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
    if way.alpn is not None:
        offer(way, r, tls)
    if way.context.certificates is not None:
        for pair in (<Certificates>way.context.certificates).find(r):
            put_pair((<Tls>tls).ssl, <KeyPair>pair)
    return tls, way.bare_name(name).encode("latin-1")


cdef offer(Way way, Request r, Tls tls):
    """ALPN as RFC 7301 §3.1 writes it; one that is empty now, or too long, is not offered."""
    cdef Str value
    cdef bytes offered = b""
    for it in way.alpn:
        if evaluate(<Template>it, r, &value) < 0:
            raise ValueError("proxy_ssl_alpn cannot be told")
        if 0 < value.n <= PROTOCOL_MOST:
            offered += b"%c%b" % (value.n, to_bytes(value))
    if offered and SSL_set_alpn_protos(tls.ssl, <const unsigned char*><const char*>offered,
                                       <unsigned int>len(offered)) != 0:
        raise MemoryError


cdef const char* asked_name(Tls tls) noexcept:
    return SSL_get_servername(tls.ssl, TLSEXT_NAMETYPE_host_name)


cdef bytes wrong_peer(Way way, Tls tls, bytes name):
    return tls.check_peer(name) if way.verifies else None
