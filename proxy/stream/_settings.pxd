# One server of stream { }, frozen: what a session reads of it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.variables._variables cimport Template


cdef class StreamServer:
    cdef public object upstream           # upstream.Upstream, or None
    cdef public Template url              # proxy_pass with variables, or None
    cdef public object targets            # dynamic.DynamicTargets of such a proxy_pass
    cdef public bytes name                # the first server_name
    cdef public list sets                 # of set: (number of the variable, Template), or None
    cdef public Template text             # return, or None
    cdef public Template bind             # proxy_bind, or None
    cdef public object way                # engine: Way, of proxy_ssl; None: plain
    cdef public uint32_t connect_ms
    cdef public uint32_t silence_ms       # proxy_timeout
    cdef public uint32_t header_ms        # proxy_protocol_timeout
    cdef public uint32_t preread_ms
    cdef public uint32_t handshake_ms
    cdef public uint32_t preread_bytes
    cdef public bint prereads             # ssl_preread
    cdef public bint tries_next           # proxy_next_upstream
    cdef public uint64_t upload_rate      # bytes a second, 0: no limit
    cdef public uint64_t download_rate
    cdef public Template upload_rate_text     # … that are variables, or None
    cdef public Template download_rate_text
    cdef public uint32_t next_tries
    cdef public uint32_t next_timeout_ms
    cdef public uint8_t proxy_version     # of the PROXY header that we send, 0: none
    cdef public bint half_closes
    cdef public bint so_keepalive
    cdef public object location           # base Location: logs, limits, access
    cdef public object tls                # engine: ServerTls
    cdef public object block              # its conf Block
