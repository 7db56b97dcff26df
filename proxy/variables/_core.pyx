# The variables that every request has: its line, its connection, its times and counts.
# nginx: ngx_http_core_module, ngx_http_realip_module, the limits' status.

import socket

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset, strlen
from posix.unistd cimport getpid

from proxy.base._arena cimport take
from proxy.base._client cimport Address, address_binary, address_text
from proxy.base._clock cimport clock
from proxy.base._request cimport Request
from proxy.base.head cimport F_AUTHORIZATION, M_GET, find_field, span, value_of
from proxy.base.span cimport Str, is_same_word, of_bytes, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._variables cimport CHANGEABLE, NO_CACHE, declare, declare_setter
from proxy.variables._write cimport tell, tell_kept, tell_number, tell_seconds

from proxy import VERSION


cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void*, size_t, unsigned int)


cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_INFO
    struct tcp_info:
        uint32_t tcpi_rtt
        uint32_t tcpi_rttvar
        uint32_t tcpi_snd_cwnd
        uint32_t tcpi_rcv_space


cdef extern from "<sys/socket.h>" nogil:
    int getsockopt(int, int, int, void*, unsigned int*)


cdef enum:
    IPPROTO_TCP = 6


# -- the request line --------------------------------------------------------------------

cdef int get_host(Request r, uint64_t data, Str* out) noexcept:
    out[0] = r.host
    if r.host.n == 0 and r.server is not None:
        out[0] = r.server.name_s
    return 1


cdef int get_uri(Request r, uint64_t data, Str* out) noexcept:
    out[0] = r.uri
    # refused for its target: there was one, though nothing that could be shown (nginx)
    return 1 if r.uri.n or r.head.line_n else 0


cdef int get_request_uri(Request r, uint64_t data, Str* out) noexcept:
    out[0] = r.main.target if r.main is not None else r.target
    return 1 if out.n else 0


cdef int get_args(Request r, uint64_t data, Str* out) noexcept:
    out[0] = r.args
    return 1 if r.args.n else 0


cdef int put_args(Request r, uint64_t data, Str value) noexcept:
    r.args = value
    # the target as sent is no longer what goes upstream
    r.is_rewritten = 1
    return 0


cdef int get_is_args(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "?", 1 if r.args.n else 0)


cdef int get_request(Request r, uint64_t data, Str* out) noexcept:
    out[0] = span(&r.head, r.head.line_off, r.head.line_n)
    return 1 if r.head.line_n else 0


cdef int get_method(Request r, uint64_t data, Str* out) noexcept:
    if r.main.method == M_GET and r.main.head.method != M_GET:   # a redirect inside made it so
        return tell(out, "GET", 3)
    out[0] = span(&r.main.head, r.main.head.method_off, r.main.head.method_n)
    return 1 if out.n else 0


cdef int get_protocol(Request r, uint64_t data, Str* out) noexcept:
    if r.head.version == 11:
        return tell(out, "HTTP/1.1", 8)
    if r.head.version == 10:
        return tell(out, "HTTP/1.0", 8)
    if r.head.version == 20:
        return tell(out, "HTTP/2.0", 8)
    if r.head.version == 30:
        return tell(out, "HTTP/3.0", 8)
    if r.head.version == 9:
        return tell(out, "HTTP/0.9", 8)
    return 0


cdef int get_http2(Request r, uint64_t data, Str* out) noexcept:
    if r.head.version != 20:
        return 0
    return tell(out, "h2", 2) if r.client.is_tls else tell(out, "h2c", 3)


cdef int get_http3(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "h3", 2) if r.head.version == 30 else 0


cdef int get_server_name(Request r, uint64_t data, Str* out) noexcept:
    if r.server is None:
        return 0
    out[0] = r.server.name_s
    return 1


cdef int get_request_port(Request r, uint64_t data, Str* out) noexcept:
    # data 1: ":" when there is a port
    cdef Str host = span(&r.head, r.head.host, r.head.host_n)
    cdef uint32_t at = host.n
    while at and c"0" <= host.p[at - 1] <= c"9":
        at -= 1
    if at == 0 or at == host.n or host.p[at - 1] != c":":
        return tell(out, "", 0)
    if data == 1:
        return tell(out, ":", 1)
    return tell(out, host.p + at, host.n - at)


cdef int read_base64(const char* p, uint32_t n, char* out) noexcept:
    # Bytes decoded, or -1. Padding ends it.
    cdef uint32_t bits = 0
    cdef uint32_t have = 0
    cdef int size = 0
    cdef uint32_t i
    cdef char c
    cdef uint32_t six
    for i in range(n):
        c = p[i]
        if c"A" <= c <= c"Z":
            six = c - c"A"
        elif c"a" <= c <= c"z":
            six = c - c"a" + 26
        elif c"0" <= c <= c"9":
            six = c - c"0" + 52
        elif c == c"+" or c == c"-":
            six = 62
        elif c == c"/" or c == c"_":
            six = 63
        elif c == c"=":
            break
        else:
            return -1
        bits = bits << 6 | six
        have += 6
        if have >= 8:
            have -= 8
            out[size] = <char>(bits >> have & 0xFF)
            size += 1
    return size


cdef int get_remote_user(Request r, uint64_t data, Str* out) noexcept:
    # RFC 7617: what stands before the colon; checked by nobody here
    cdef Str value
    cdef char* p
    cdef int n
    cdef int i
    if r.head.fields == NULL or find_field(&r.head, F_AUTHORIZATION) == NULL:
        return 0
    value = value_of(&r.head, find_field(&r.head, F_AUTHORIZATION))
    if value.n < 7 or not is_same_word(value.p, "basic ", 6):
        return 0
    value.p += 6
    value.n -= 6
    while value.n and value.p[0] == c" ":
        value.p += 1
        value.n -= 1
    p = <char*>take(&r.arena, value.n + 1)
    if p == NULL:
        return NO_MEMORY
    n = read_base64(value.p, value.n, p)
    for i in range(n):
        if p[i] == c":":
            return tell(out, p, i) if i else 0
    return 0


# -- the connection ----------------------------------------------------------------------

cdef enum AddressPart:
    A_TEXT = 0
    A_PORT = 1
    A_BINARY = 2


cdef int tell_address(Request r, const Address* a, uint64_t part, Str* out) noexcept:
    if a.text_n == 0:
        return 0
    if part == A_PORT:
        return tell_number(r, a.port, out) if a.port else tell(out, "", 0)
    out[0] = address_binary(a) if part == A_BINARY else address_text(a)
    # they lie in the Client, which lives longer than its requests but may get another address
    return tell_kept(r, out[0], out)


cdef int get_remote(Request r, uint64_t part, Str* out) noexcept:
    return 0 if r.client is None else tell_address(r, &r.client.address, part, out)


cdef int get_peer(Request r, uint64_t part, Str* out) noexcept:
    return 0 if r.client is None else tell_address(r, &r.client.peer, part, out)


cdef int get_local(Request r, uint64_t part, Str* out) noexcept:
    return 0 if r.client is None else tell_address(r, r.client.local_address(), part, out)


cdef int get_proxy_protocol(Request r, uint64_t which, Str* out) noexcept:
    if r.client is None or r.client.proxy_address.n == 0:
        return 0
    if which == 0:
        return tell_kept(r, r.client.proxy_address, out)
    if which == 1:
        return tell_number(r, r.client.proxy_port, out)
    if which == 2:
        return tell_kept(r, r.client.proxy_server_address, out)
    return tell_number(r, r.client.proxy_server_port, out)


cdef int get_scheme(Request r, uint64_t data, Str* out) noexcept:
    if r.client is not None and r.client.is_tls:
        return tell(out, "https", 5)
    return tell(out, "http", 4)


cdef int get_https(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "on", 2 if r.client is not None and r.client.is_tls else 0)


cdef int get_connection(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, r.client.serial if r.client is not None else r.id, out)


cdef int get_connection_requests(Request r, uint64_t data, Str* out) noexcept:
    if r.connection_requests or r.client is None:
        return tell_number(r, r.connection_requests, out)
    return tell_number(r, r.client.requests, out)


cdef int get_connection_time(Request r, uint64_t data, Str* out) noexcept:
    if r.client is None:
        return 0
    return tell_seconds(r, clock.now_ms - r.client.accepted_ms, out)


cdef int get_tcpinfo(Request r, uint64_t which, Str* out) noexcept:
    cdef tcp_info info
    cdef unsigned int n = sizeof(tcp_info)
    if r.client is None or r.client.fd < 0:
        return 0
    memset(&info, 0, sizeof(tcp_info))
    if getsockopt(r.client.fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0:
        return 0
    if which == 0:
        return tell_number(r, info.tcpi_rtt, out)
    if which == 1:
        return tell_number(r, info.tcpi_rttvar, out)
    if which == 2:
        return tell_number(r, info.tcpi_snd_cwnd, out)
    return tell_number(r, info.tcpi_rcv_space, out)


# -- times, counts, ourselves ------------------------------------------------------------

cdef int get_request_time(Request r, uint64_t data, Str* out) noexcept:
    return tell_seconds(r, clock.now_ms - r.start_ms, out)


cdef int get_msec(Request r, uint64_t data, Str* out) noexcept:
    return tell_seconds(r, <uint64_t>clock.wall_s * 1000 + clock.wall_ms, out)


cdef int get_time_local(Request r, uint64_t data, Str* out) noexcept:
    return tell_kept(r, text(<const char*>clock.log_time, strlen(clock.log_time)), out)


cdef int get_time_iso8601(Request r, uint64_t data, Str* out) noexcept:
    return tell_kept(r, text(<const char*>clock.log_iso, strlen(clock.log_iso)), out)


cdef int get_status(Request r, uint64_t data, Str* out) noexcept:
    cdef uint32_t status = r.told_status if r.told_status else r.status
    cdef char* p = <char*>take(&r.arena, 8)
    if p == NULL:
        return NO_MEMORY
    p[0] = <char>(48 + status // 100 % 10)
    p[1] = <char>(48 + status // 10 % 10)
    p[2] = <char>(48 + status % 10)
    return tell(out, p, 3)


cdef int get_bytes_sent(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, <uint64_t>(r.sent_head + r.sent_body), out)


cdef int get_body_bytes_sent(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, <uint64_t>r.sent_body, out)


cdef int get_request_length(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, <uint64_t>(r.received_head + r.body_n), out)


cdef int get_request_completion(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "OK", 2 if r.is_done else 0)


cdef int get_pipe(Request r, uint64_t data, Str* out) noexcept:
    return tell(out, "p" if r.main.is_pipelined else ".", 1)


cdef uint8_t[256] random_bytes    # a call to the kernel for each id would cost more than the id
cdef uint32_t random_left = 0


cdef int get_request_id(Request r, uint64_t data, Str* out) noexcept:
    global random_left
    cdef uint8_t* raw
    cdef char* p = <char*>take(&r.arena, 32)
    cdef int i
    if random_left == 0:          # nobody asks before a worker has forked
        if getrandom(random_bytes, 256, 0) != 256:
            return NO_MEMORY
        random_left = 256
    if p == NULL:
        return NO_MEMORY
    random_left -= 16
    raw = random_bytes + random_left
    for i in range(16):
        p[2 * i] = b"0123456789abcdef"[raw[i] >> 4]
        p[2 * i + 1] = b"0123456789abcdef"[raw[i] & 15]
    return tell(out, p, 32)


cdef bytes version = VERSION.encode()
cdef bytes hostname = socket.gethostname().lower().encode("utf-8", "surrogateescape")


cdef int get_version(Request r, uint64_t data, Str* out) noexcept:
    out[0] = of_bytes(version)
    return 1


cdef int get_hostname(Request r, uint64_t data, Str* out) noexcept:
    out[0] = of_bytes(hostname)
    return 1


cdef int get_pid(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, <uint64_t>getpid(), out)


cdef int get_limit_rate(Request r, uint64_t data, Str* out) noexcept:
    return tell_number(r, r.limit_rate, out)


cdef int put_limit_rate(Request r, uint64_t data, Str value) noexcept:
    # a size as in the conf; anything else is not heeded, as nginx
    cdef uint64_t rate = 0
    cdef uint32_t n = value.n
    cdef uint32_t shift = 0
    cdef uint32_t i
    if n and value.p[n - 1] in (c"k", c"K"):
        shift = 10
    elif n and value.p[n - 1] in (c"m", c"M"):
        shift = 20
    if shift:
        n -= 1
    if n == 0 or n > 15:
        return 0
    for i in range(n):
        if value.p[i] < c"0" or value.p[i] > c"9":
            return 0
        rate = rate * 10 + <uint64_t>(value.p[i] - c"0")
    r.limit_rate = rate << shift
    return 0


cdef const char** REQ_STATUS = [
    "", "PASSED", "DELAYED", "REJECTED", "DELAYED_DRY_RUN", "REJECTED_DRY_RUN", "REJECTED"]
cdef const char** CONN_STATUS = ["", "PASSED", "REJECTED", "REJECTED_DRY_RUN", "REJECTED"]


cdef int get_limit_req_status(Request r, uint64_t data, Str* out) noexcept:
    if r.limit_req_status == 0 or r.limit_req_status > 6:
        return 0
    return tell(out, REQ_STATUS[r.limit_req_status], strlen(REQ_STATUS[r.limit_req_status]))


cdef int get_limit_conn_status(Request r, uint64_t data, Str* out) noexcept:
    if r.limit_conn_status == 0 or r.limit_conn_status > 4:
        return 0
    return tell(out, CONN_STATUS[r.limit_conn_status], strlen(CONN_STATUS[r.limit_conn_status]))


declare(b"host", get_host, 0, NO_CACHE)
declare(b"uri", get_uri, 0, NO_CACHE)
declare(b"document_uri", get_uri, 0, NO_CACHE)
declare(b"request_uri", get_request_uri, 0, NO_CACHE)
declare(b"query_string", get_args, 0, NO_CACHE)
declare(b"args", get_args, 0, NO_CACHE | CHANGEABLE)
declare_setter(b"args", put_args)
declare(b"is_args", get_is_args, 0, NO_CACHE)
declare(b"request", get_request, 0, NO_CACHE)
declare(b"request_method", get_method, 0, NO_CACHE)
declare(b"server_protocol", get_protocol, 0, 0)
declare(b"server_name", get_server_name, 0, NO_CACHE)
declare(b"request_port", get_request_port, 0, NO_CACHE)
declare(b"is_request_port", get_request_port, 1, NO_CACHE)
declare(b"remote_user", get_remote_user, 0, 0)
declare(b"remote_addr", get_remote, A_TEXT, 0)
declare(b"remote_port", get_remote, A_PORT, 0)
declare(b"binary_remote_addr", get_remote, A_BINARY, 0)
declare(b"realip_remote_addr", get_peer, A_TEXT, 0)
declare(b"realip_remote_port", get_peer, A_PORT, 0)
declare(b"server_addr", get_local, A_TEXT, 0)
declare(b"server_port", get_local, A_PORT, 0)
declare(b"proxy_protocol_addr", get_proxy_protocol, 0, 0)
declare(b"proxy_protocol_port", get_proxy_protocol, 1, 0)
declare(b"proxy_protocol_server_addr", get_proxy_protocol, 2, 0)
declare(b"proxy_protocol_server_port", get_proxy_protocol, 3, 0)
declare(b"scheme", get_scheme, 0, 0)
declare(b"http2", get_http2, 0, 0)
declare(b"http3", get_http3, 0, 0)
declare(b"https", get_https, 0, 0)
declare(b"connection", get_connection, 0, 0)
declare(b"connection_requests", get_connection_requests, 0, 0)
declare(b"connection_time", get_connection_time, 0, NO_CACHE)
declare(b"tcpinfo_rtt", get_tcpinfo, 0, NO_CACHE)
declare(b"tcpinfo_rttvar", get_tcpinfo, 1, NO_CACHE)
declare(b"tcpinfo_snd_cwnd", get_tcpinfo, 2, NO_CACHE)
declare(b"tcpinfo_rcv_space", get_tcpinfo, 3, NO_CACHE)
declare(b"request_time", get_request_time, 0, NO_CACHE)
declare(b"msec", get_msec, 0, NO_CACHE)
declare(b"time_local", get_time_local, 0, NO_CACHE)
declare(b"time_iso8601", get_time_iso8601, 0, NO_CACHE)
declare(b"status", get_status, 0, NO_CACHE)
declare(b"bytes_sent", get_bytes_sent, 0, NO_CACHE)
declare(b"body_bytes_sent", get_body_bytes_sent, 0, NO_CACHE)
declare(b"request_length", get_request_length, 0, NO_CACHE)
declare(b"request_completion", get_request_completion, 0, NO_CACHE)
declare(b"pipe", get_pipe, 0, 0)
declare(b"request_id", get_request_id, 0, 0)
declare(b"nginx_version", get_version, 0, 0)
declare(b"hostname", get_hostname, 0, 0)
declare(b"pid", get_pid, 0, 0)
declare(b"limit_rate", get_limit_rate, 0, NO_CACHE | CHANGEABLE)
declare_setter(b"limit_rate", put_limit_rate)
declare(b"limit_req_status", get_limit_req_status, 0, NO_CACHE)
declare(b"limit_conn_status", get_limit_conn_status, 0, NO_CACHE)
