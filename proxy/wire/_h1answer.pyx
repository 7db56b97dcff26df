# Writes status line, our own fields, the upstream's that pass, and those made here.

from libc.string cimport memcpy

from proxy.base._clock cimport clock
from proxy.base._request cimport OutField
from proxy.base.head cimport *
from proxy.base.span cimport text
from proxy.base.verdict cimport NO_MEMORY
from proxy.wire._h1write cimport *

from proxy import VERSION

cdef bytes long_name = b"headrace/" + VERSION.encode()
cdef uint64_t FRAMING = (
    1 << F_CONTENT_LENGTH | 1 << F_TRANSFER_ENCODING | 1 << F_CONNECTION | 1 << F_KEEP_ALIVE
)


cdef Str server_text(bint has_version) noexcept:
    if has_version:
        return text(<const char*>long_name, len(long_name))
    return text(b"headrace", 8)


cdef void frame_answer(Request r, uint8_t version) noexcept:
    cdef int status = r.status
    r.is_header_only = r.head.method == M_HEAD or status == 204 or status == 304 or status < 200
    if r.is_upgraded:
        r.is_header_only = False
        r.out_kind = BODY_UNTIL_CLOSE
    elif r.length >= 0:
        r.out_kind = BODY_LENGTH
    elif version >= 11 and (r.location is None or r.location.chunked_ok):
        r.out_kind = BODY_CHUNKED
    else:
        r.out_kind = BODY_UNTIL_CLOSE
        if not r.is_header_only:
            r.keep_alive = False


cdef inline char* put_out(char* at, OutField* f) noexcept nogil:
    return put_field(at, f.name, f.value)


cdef int write_answer_head(Request r, char* out, size_t cap) noexcept:
    cdef char* at = out
    cdef size_t size = MAX_OWN_BYTES + r.reason.n + r.content_type.n
    cdef Field* f
    cdef uint16_t i
    cdef uint64_t seen = 0
    cdef Head* h = &r.answer
    cdef const char* p
    cdef bint is_offered = False  # another protocol, by an Upgrade field
    cdef bint is_passing = h.fields != NULL and not r.is_answer_ours
    if is_passing:
        size += h.size
    for i in range(r.n_out):
        size += r.out[i].name.n + r.out[i].value.n + 4
        if r.out[i].id:
            seen |= <uint64_t>1 << r.out[i].id
    if size > cap:
        return NO_MEMORY
    if r.reason.n:
        at = put_response_line(at, r.status, r.reason)
    else:
        at = put_status_line(at, r.status)
    if is_passing:
        for i in range(h.n_fields):
            f = &h.fields[i]
            if f.id and not f.flags:
                seen |= <uint64_t>1 << f.id
            elif f.id == F_UPGRADE and f.flags == F_IS_HOP:
                is_offered = True
    if not seen >> F_SERVER & 1:
        at = put_field(at, text(b"Server", 6), server_text(
            r.location is None or r.location.server_tokens))
    if not seen >> F_DATE & 1:
        at = put_bytes(at, b"Date: ", 6)
        memcpy(at, clock.date, 29)
        at = put_end(at + 29)
    if r.content_type.n and not seen >> F_CONTENT_TYPE & 1:
        at = put_field(at, text(b"Content-Type", 12), r.content_type)
    if r.out_kind == BODY_LENGTH and r.status != 204 and r.status != 304 and r.status >= 200:
        at = put_bytes(at, b"Content-Length: ", 16)
        at = put_end(put_decimal(at, <uint64_t>r.length))
    if r.last_modified >= 0 and not seen >> F_LAST_MODIFIED & 1:
        at = put_bytes(at, b"Last-Modified: ", 15)
        at = put_end(put_date(at, r.last_modified))
    if r.out_kind == BODY_CHUNKED and not r.is_header_only or (
            r.out_kind == BODY_CHUNKED and r.head.method == M_HEAD and r.status >= 200
            and r.status != 204 and r.status != 304):
        at = put_bytes(at, b"Transfer-Encoding: chunked\r\n", 28)
    if r.is_upgraded or r.status == 101:
        at = put_bytes(at, b"Connection: upgrade\r\n", 21)
    elif r.keep_alive:
        at = put_bytes(at, b"Connection: keep-alive\r\n", 24)
        if is_offered:
            at = put_bytes(at - 2, b", upgrade\r\n", 11)
        if r.location is not None and r.location.keepalive_header_s:
            at = put_bytes(at, b"Keep-Alive: timeout=", 20)
            at = put_end(put_decimal(at, r.location.keepalive_header_s))
    else:
        at = put_bytes(at, b"Connection: close\r\n", 19)
        if is_offered:
            at = put_bytes(at - 2, b", upgrade\r\n", 11)
    if is_passing:
        for i in range(h.n_fields):
            f = &h.fields[i]
            if FRAMING >> f.id & 1 or f.flags and not (
                    f.id == F_UPGRADE and f.flags == F_IS_HOP):
                continue                         # RFC 9110 §7.8: 101 says what to, 426 what for
            p = h.base
            memcpy(at, p + f.name, f.name_n)
            at += f.name_n
            at[0] = c":"
            at[1] = c" "
            memcpy(at + 2, p + f.value, f.value_n)
            at = put_end(at + 2 + f.value_n)
    for i in range(r.n_out):
        if r.out[i].name.n:
            at = put_out(at, &r.out[i])
    return <int>(put_end(at) - out)


cdef int write_hints(Request r, char* out, size_t cap) noexcept:
    cdef Head* h = &r.answer
    cdef char* at = put_bytes(out, b"HTTP/1.1 103 Early Hints\r\n", 26)
    cdef char* begin = at
    cdef Field* f
    cdef uint16_t i
    if h.size + MAX_OWN_BYTES > cap:
        return 0
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not f.flags and not FRAMING >> f.id & 1:
            at = put_field(at, name_of(h, f), value_of(h, f))
    return 0 if at == begin else <int>(put_end(at) - out)


cdef int write_trailers(Request r, char* out, size_t cap) noexcept:
    cdef char* at = out
    cdef size_t size = 5
    cdef uint16_t i
    for i in range(r.n_trailers):
        size += r.trailers[i].name.n + r.trailers[i].value.n + 4
    if size > cap:
        return NO_MEMORY
    at = put_bytes(at, b"0\r\n", 3)
    for i in range(r.n_trailers):
        at = put_out(at, &r.trailers[i])
    return <int>(put_end(at) - out)
