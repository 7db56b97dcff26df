# The variables that stream { } alone has, and those that it has under names of its own.
# nginx: ngx_stream_ssl_preread_module, ngx_stream_variables.

from libc.stdint cimport uint64_t

from proxy.base._clock cimport clock
from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.variables._variables cimport NO_CACHE, declare
from proxy.variables._write cimport tell, tell_number, tell_seconds

from proxy.variables._variables import names_beginning, tell_stream, tell_stream_prefix


cdef class Preread:
    pass


cdef int get_name(Request r, uint64_t which, Str* out) noexcept:
    cdef Preread p
    if type(r.call) is not Preread:
        return 0
    p = <Preread>r.call
    if which == 0:
        return tell(out, p.hello.name, p.hello.name_n)
    return tell(out, p.hello.alpn, p.hello.alpn_n)


cdef int get_version(Request r, uint64_t data, Str* out) noexcept:
    cdef Preread p
    if type(r.call) is not Preread:
        return 0
    p = <Preread>r.call
    if p.hello.major == 0 and p.hello.minor == 2:
        return tell(out, "SSLv2", 5)
    if p.hello.major == 3:
        if p.hello.minor == 0:
            return tell(out, "SSLv3", 5)
        if p.hello.minor == 1:
            return tell(out, "TLSv1", 5)
        if p.hello.minor == 2:
            return tell(out, "TLSv1.1", 7)
        if p.hello.minor == 3:
            return tell(out, "TLSv1.2", 7)
        if p.hello.minor == 4:
            return tell(out, "TLSv1.3", 7)
    return tell(out, "", 0)


cdef int get_received(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, <uint64_t>r.body_n, out)


cdef int get_session_time(Request r, uint64_t data, Str* out) noexcept:
    return tell_seconds(r, clock.now_ms - r.start_ms, out)


cdef int get_protocol(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "TCP", 3)


cdef int get_server_name(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, r.server_name.p, r.server_name.n)


# No name in a conf has a colon: http { } cannot reach these.
for _name, _data in ((b"ssl_preread_server_name", 0), (b"ssl_preread_alpn_protocols", 1)):
    declare(b"stream:" + _name, get_name, _data, 0)
    tell_stream(_name, b"stream:" + _name)
declare(b"stream:ssl_preread_protocol", get_version, 0, 0)
declare(b"stream:bytes_received", get_received, 0, NO_CACHE)
declare(b"stream:session_time", get_session_time, 0, NO_CACHE)
declare(b"stream:protocol", get_protocol, 0, 0)
declare(b"stream:server_name", get_server_name, 0, NO_CACHE)
for _name in (b"ssl_preread_protocol", b"bytes_received", b"session_time", b"protocol",
              b"server_name"):
    tell_stream(_name, b"stream:" + _name)
for _name in (
    b"remote_addr", b"remote_port", b"binary_remote_addr", b"server_addr", b"server_port",
    b"proxy_protocol_addr", b"proxy_protocol_port", b"proxy_protocol_server_addr",
    b"proxy_protocol_server_port", b"bytes_sent", b"status", b"connection", b"nginx_version",
    b"hostname", b"pid", b"msec", b"time_iso8601", b"time_local", b"limit_conn_status",
    b"upstream_addr", b"upstream_bytes_sent", b"upstream_bytes_received",
    b"upstream_connect_time", b"realip_remote_addr", b"realip_remote_port",
):
    tell_stream(_name, _name)
tell_stream_prefix(b"proxy_protocol_tlv_")
tell_stream(b"upstream_first_byte_time", b"upstream_header_time")
tell_stream(b"upstream_session_time", b"upstream_response_time")


def tell_tls_names():
    """$ssl_…, once the engine has declared them."""
    for name in names_beginning(b"ssl_"):
        tell_stream(name, name)
