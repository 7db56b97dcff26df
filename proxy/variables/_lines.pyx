# The variables that stand for one named line: header fields either way, cookies, arguments,
# and what the upstreams that were tried had to say ($upstream_*).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport take
from proxy.base._request cimport Attempt, OutField, Request
from proxy.base.head cimport (
    BODY_CHUNKED, F_CONTENT_LENGTH, F_CONTENT_TYPE, F_IS_HIDDEN, F_IS_HOP, F_IS_INVALID,
    F_COOKIE, F_SET_COOKIE, Field, Head, find_field, name_of, value_of)
from proxy.base.span cimport Str, is_same_word, lower
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._variables cimport NO_CACHE, declare, declare_prefix
from proxy.variables._write cimport (
    tell, tell_number, write_number, write_seconds)


cdef inline bint is_variable_of(Str name, const Str* wanted) noexcept:
    # A field name as a variable writes it: lower case, "-" as "_".
    cdef uint32_t i
    cdef uint8_t c
    if name.n != wanted.n:
        return False
    for i in range(name.n):
        c = lower(<uint8_t>name.p[i])
        if c == c"-":
            c = c"_"
        if c != <uint8_t>wanted.p[i]:
            return False
    return True


cdef inline bint counts(const Field* f, uint8_t without) noexcept:
    return not f.flags & (F_IS_INVALID | without)


cdef int join_fields(
    Request r, const Head* h, uint8_t without, const OutField* made, uint16_t n_made,
    const Str* wanted, char separator, Str* out,
) noexcept:
    # Fields of a head and fields made by us, several values joined as nginx joins them.
    cdef uint32_t count = 0
    cdef size_t total = 0
    cdef uint16_t i
    cdef char* p
    cdef uint16_t n = h.n_fields if h.fields != NULL else 0
    for i in range(n):
        if counts(&h.fields[i], without) and is_variable_of(name_of(h, &h.fields[i]), wanted):
            if count == 0:
                out[0] = value_of(h, &h.fields[i])
            count += 1
            total += h.fields[i].value_n + 2
    for i in range(n_made):
        if is_variable_of(made[i].name, wanted):
            if count == 0:
                out[0] = made[i].value
            count += 1
            total += made[i].value.n + 2
    if count <= 1:
        return count
    p = <char*>take(&r.arena, total)
    if p == NULL:
        return NO_MEMORY
    out.p = p
    out.n = <uint32_t>total - 2
    for i in range(n):
        if counts(&h.fields[i], without) and is_variable_of(name_of(h, &h.fields[i]), wanted):
            memcpy(p, h.base + h.fields[i].value, h.fields[i].value_n)
            p += h.fields[i].value_n
            p[0] = separator
            p[1] = c" "
            p += 2
    for i in range(n_made):
        if is_variable_of(made[i].name, wanted):
            memcpy(p, made[i].value.p, made[i].value.n)
            p += made[i].value.n
            p[0] = separator
            p[1] = c" "
            p += 2
    return 1


cdef int get_http(Request r, uint64_t data, Str* out) noexcept:
    cdef Str* wanted = <Str*>data
    cdef char separator = c","
    if wanted.n == 6 and is_same_word(wanted.p, "cookie", 6):
        separator = c";"
    return join_fields(r, &r.head, 0, NULL, 0, wanted, separator, out)


cdef int get_field(Request r, uint64_t id, Str* out) noexcept:
    cdef const Field* f
    if r.head.fields == NULL:
        return 0
    f = find_field(&r.head, <uint8_t>id)
    if f == NULL:
        return 0
    out[0] = value_of(&r.head, f)
    return 1


cdef int get_content_length(Request r, uint64_t data, Str* out) noexcept:
    if get_field(r, F_CONTENT_LENGTH, out):
        return 1
    if r.head.content_length >= 0:
        return tell_number(r, <uint64_t>r.head.content_length, out)
    # a chunked body has a length once it was read whole
    if r.is_body_read and r.is_body_done and r.body_n:
        return tell_number(r, <uint64_t>r.body_n, out)
    return 0


cdef int find_pair(Str line, const Str* name, char separator, Str* out) noexcept:
    # The value of `name=value` among pairs that `separator` parts: a cookie (RFC 6265 §4.2.1).
    cdef uint32_t at = 0
    cdef uint32_t end
    while at < line.n:
        if line.n - at >= name.n and is_same_word(line.p + at, name.p, name.n):
            end = at + name.n
            while end < line.n and line.p[end] == c" ":
                end += 1
            if end < line.n and line.p[end] == c"=":
                end += 1
                while end < line.n and line.p[end] == c" ":
                    end += 1
                at = end
                while end < line.n and line.p[end] != separator:
                    end += 1
                return tell(out, line.p + at, end - at)
        if separator == 0:
            return 0
        while at < line.n and line.p[at] != separator:
            at += 1
        at += 1
        while at < line.n and line.p[at] == c" ":
            at += 1
    return 0


cdef int get_cookie(Request r, uint64_t data, Str* out) noexcept:
    cdef uint16_t i
    if r.head.fields == NULL or (<Str*>data).n == 0:
        return 0
    for i in range(r.head.n_fields):
        if r.head.fields[i].id == F_COOKIE and counts(&r.head.fields[i], 0):
            if find_pair(value_of(&r.head, &r.head.fields[i]), <Str*>data, c";", out):
                return 1
    return 0


cdef int get_arg(Request r, uint64_t data, Str* out) noexcept:
    cdef Str* name = <Str*>data
    cdef const char* p = r.args.p
    cdef uint32_t n = r.args.n
    cdef uint32_t at = 0
    cdef uint32_t end
    if name.n == 0:
        return 0
    while at + name.n < n:
        if p[at + name.n] == c"=" and is_same_word(p + at, name.p, name.n):
            at += name.n + 1
            end = at
            while end < n and p[end] != c"&":
                end += 1
            return tell(out, p + at, end - at)
        while at < n and p[at] != c"&":
            at += 1
        at += 1
    return 0


# -- what we send ------------------------------------------------------------------------

cdef int get_sent_http(Request r, uint64_t data, Str* out) noexcept:
    return join_fields(
        r, &r.answer, F_IS_HIDDEN | F_IS_HOP, r.out, r.n_out, <Str*>data, c",", out)


cdef int get_sent_trailer(Request r, uint64_t data, Str* out) noexcept:
    cdef Head none
    none.fields = NULL
    return join_fields(r, &none, 0, r.trailers, r.n_trailers, <Str*>data, c",", out)


cdef int sent_by_name(Request r, const char* name, uint32_t n, Str* out) noexcept:
    cdef Str wanted
    wanted.p = name
    wanted.n = n
    return get_sent_http(r, <uint64_t>&wanted, out)


cdef int get_sent_content_type(Request r, uint64_t data, Str* out) noexcept:
    if r.content_type.n:
        out[0] = r.content_type
        return 1
    return sent_by_name(r, "content_type", 12, out)


cdef int get_sent_content_length(Request r, uint64_t data, Str* out) noexcept:
    if r.length >= 0:
        return tell_number(r, <uint64_t>r.length, out)
    return sent_by_name(r, "content_length", 14, out)


cdef int get_sent_last_modified(Request r, uint64_t data, Str* out) noexcept:
    cdef char* p
    if r.last_modified < 0:
        return sent_by_name(r, "last_modified", 13, out)
    p = <char*>take(&r.arena, 32)
    if p == NULL:
        return NO_MEMORY
    write_date(p, r.last_modified)
    return tell(out, p, 29)


cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        int tm_wday
    tm* gmtime_r(const long*, tm*)


cdef extern from "<stdio.h>" nogil:
    int snprintf(char*, size_t, const char*, ...)


cdef void write_date(char* p, int64_t seconds) noexcept:
    # IMF-fixdate, RFC 9110 §5.6.7
    cdef tm t
    cdef long s = seconds
    gmtime_r(&s, &t)
    snprintf(p, 32, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
             <const char*>b"SunMonTueWedThuFriSat" + 3 * t.tm_wday, t.tm_mday,
             <const char*>b"JanFebMarAprMayJunJulAugSepOctNovDec" + 3 * t.tm_mon,
             t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec)


cdef int get_sent_connection(Request r, uint64_t data, Str* out) noexcept:
    if r.status == 101:
        return tell(out, "upgrade", 7)
    if r.keep_alive:
        return tell(out, "keep-alive", 10)
    return tell(out, "close", 5)


cdef int get_sent_keep_alive(Request r, uint64_t data, Str* out) noexcept:
    cdef char* p
    if not r.keep_alive or r.location is None or not r.location.keepalive_header_s:
        return 0
    p = <char*>take(&r.arena, 32)
    if p == NULL:
        return NO_MEMORY
    memcpy(p, b"timeout=", 8)
    return tell(out, p, 8 + write_number(p + 8, r.location.keepalive_header_s))


cdef int get_sent_transfer_encoding(Request r, uint64_t data, Str* out) noexcept:
    if r.out_kind == BODY_CHUNKED:
        return tell(out, "chunked", 7)
    return 0


# -- upstreams that were tried -----------------------------------------------------------

cdef enum Told:
    T_ADDR = 0
    T_STATUS = 1
    T_CONNECT = 2
    T_HEADER = 3
    T_RESPONSE = 4
    T_LENGTH = 5
    T_RECEIVED = 6
    T_SENT = 7


cdef inline uint32_t write_ms(char* p, int64_t ms) noexcept:
    if ms < 0:
        p[0] = c"-"
        return 1
    return write_seconds(p, <uint64_t>ms)


cdef int get_attempts(Request r, uint64_t what, Str* out) noexcept:
    cdef size_t room = 0
    cdef uint16_t i
    cdef char* p
    cdef char* start
    cdef Attempt* a
    if r.n_attempts == 0:
        return 0
    for i in range(r.n_attempts):
        room += 28 if what != T_ADDR else r.attempts[i].peer.n + 3
    start = p = <char*>take(&r.arena, room)
    if p == NULL:
        return NO_MEMORY
    for i in range(r.n_attempts):
        a = &r.attempts[i]
        if i:
            if a.is_redirect:
                memcpy(p, b" : ", 3)
                p += 3
            else:
                memcpy(p, b", ", 2)
                p += 2
        if what == T_ADDR:
            memcpy(p, a.peer.p, a.peer.n)
            p += a.peer.n
        elif what == T_STATUS:
            if a.status:
                p += write_number(p, a.status)
            else:
                p[0] = c"-"
                p += 1
        elif what == T_CONNECT:
            p += write_ms(p, a.connect_ms)
        elif what == T_HEADER:
            p += write_ms(p, a.header_ms)
        elif what == T_RESPONSE:
            p += write_ms(p, a.response_ms)
        elif what == T_LENGTH:
            p += write_number(p, <uint64_t>a.length)
        elif what == T_RECEIVED:
            p += write_number(p, <uint64_t>a.bytes_received)
        else:
            p += write_number(p, <uint64_t>a.bytes_sent)
    return tell(out, start, <uint32_t>(p - start))


cdef int get_upstream_http(Request r, uint64_t data, Str* out) noexcept:
    return join_fields(r, &r.answer, 0, NULL, 0, <Str*>data, c",", out)


cdef int get_upstream_cookie(Request r, uint64_t data, Str* out) noexcept:
    cdef uint16_t i
    if r.answer.fields == NULL:
        return 0
    for i in range(r.answer.n_fields):
        if r.answer.fields[i].id == F_SET_COOKIE and counts(&r.answer.fields[i], 0):
            # only the pair at its beginning is the cookie: the rest are attributes
            if find_first_pair(value_of(&r.answer, &r.answer.fields[i]), <Str*>data, out):
                return 1
    return 0


cdef int find_first_pair(Str line, const Str* name, Str* out) noexcept:
    cdef uint32_t n = 0
    while n < line.n and line.p[n] != c";":
        n += 1
    line.n = n
    return find_pair(line, name, 0, out)


# A value that points into a head is never kept: heads move (keep_head), and nobody follows them.
declare_prefix(b"http_", get_http, NO_CACHE)
declare_prefix(b"cookie_", get_cookie, NO_CACHE)
declare_prefix(b"arg_", get_arg, NO_CACHE)
declare_prefix(b"sent_http_", get_sent_http, NO_CACHE)
declare_prefix(b"sent_trailer_", get_sent_trailer, NO_CACHE)
declare_prefix(b"upstream_http_", get_upstream_http, NO_CACHE)
declare_prefix(b"upstream_trailer_", get_sent_trailer, NO_CACHE)
declare_prefix(b"upstream_cookie_", get_upstream_cookie, NO_CACHE)
declare(b"content_type", get_field, F_CONTENT_TYPE, NO_CACHE)
declare(b"content_length", get_content_length, 0, NO_CACHE)
declare(b"sent_http_content_type", get_sent_content_type, 0, NO_CACHE)
declare(b"sent_http_content_length", get_sent_content_length, 0, NO_CACHE)
declare(b"sent_http_last_modified", get_sent_last_modified, 0, NO_CACHE)
declare(b"sent_http_connection", get_sent_connection, 0, NO_CACHE)
declare(b"sent_http_keep_alive", get_sent_keep_alive, 0, NO_CACHE)
declare(b"sent_http_transfer_encoding", get_sent_transfer_encoding, 0, NO_CACHE)
declare(b"upstream_addr", get_attempts, T_ADDR, NO_CACHE)
declare(b"upstream_status", get_attempts, T_STATUS, NO_CACHE)
declare(b"upstream_connect_time", get_attempts, T_CONNECT, NO_CACHE)
declare(b"upstream_header_time", get_attempts, T_HEADER, NO_CACHE)
declare(b"upstream_response_time", get_attempts, T_RESPONSE, NO_CACHE)
declare(b"upstream_response_length", get_attempts, T_LENGTH, NO_CACHE)
declare(b"upstream_bytes_received", get_attempts, T_RECEIVED, NO_CACHE)
declare(b"upstream_bytes_sent", get_attempts, T_SENT, NO_CACHE)
