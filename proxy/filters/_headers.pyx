# Writes add_header, add_trailer and expires onto an answer, whoever made it.
#
# Called by the conductor for requests of clients only: the answer of a sub-request has no
# head of its own. nginx: ngx_http_headers_filter_module.

from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from proxy.base._arena cimport copy, take
from proxy.base._clock cimport clock
from proxy.base._told cimport R_ALERT, tell_error
from proxy.base.head cimport *
from proxy.base.span cimport Str, of_bytes, text, to_bytes
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._variables cimport evaluate
from proxy.wire._fields cimport find_name
from proxy.wire._h1write cimport put_bytes, put_date, put_decimal

cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_isdst
    char* strptime(const char*, const char*, tm*)
    long timegm(tm*)
    long mktime(tm*)
    tm* localtime_r(const long*, tm*)


cdef class Line:
    def __init__(self, bytes name not None, Template value not None, bint is_always):
        cdef uint8_t id = find_name(name, <uint32_t>len(name))
        self.name = name
        self.value = value
        self.is_always = is_always
        self.id = id if id in (F_CACHE_CONTROL, F_LINK, F_LAST_MODIFIED, F_ETAG) else 0


cdef class HeaderSettings:
    def __cinit__(self):
        self.fields = []
        self.trailers = []


cdef inline bint is_plain_status(int status) noexcept:
    """What fields without `always` are added to."""
    return status in (200, 201, 204, 206, 301, 302, 303, 304, 307, 308)


cdef void forget_field(Request r, uint8_t id) noexcept:
    """The answer has this field no more, whoever set it."""
    cdef uint16_t i
    if r.answer.fields != NULL and not r.is_answer_ours:
        for i in range(r.answer.n_fields):
            if r.answer.fields[i].id == id:
                r.answer.fields[i].flags |= F_IS_HIDDEN
    for i in range(r.n_out):
        if r.out[i].id == id:
            r.out[i].name.n = 0
            r.out[i].id = 0


cdef int add_one(Request r, Line line, Str value) noexcept:
    if line.id == F_LAST_MODIFIED or line.id == F_ETAG:
        forget_field(r, line.id)
        if line.id == F_LAST_MODIFIED:
            r.last_modified = -1
    if value.n == 0:
        return 0
    return 0 if r.add_field(of_bytes(line.name), value, line.id) != NULL else NO_MEMORY


cdef int add_fields(Request r) noexcept:
    cdef HeaderSettings s
    cdef Line line
    cdef Str value
    cdef bint is_plain
    cdef int rc
    if r.location is None or r.location.headers is None:
        return 0
    s = <HeaderSettings>r.location.headers
    is_plain = is_plain_status(r.status)
    if s.expires != EXPIRES_OFF and is_plain:
        rc = set_expires(s, r)
        if rc < 0:
            return rc
    for line in s.fields:
        if not is_plain and not line.is_always:
            continue
        rc = evaluate(line.value, r, &value)
        if rc >= 0:
            rc = add_one(r, line, copy(&r.arena, value))
        if rc < 0:
            return rc
    return 0


cdef void expect_trailers(Request r) noexcept:
    cdef Line line
    if r.length < 0 or r.head.version < 11 or not r.location.chunked_ok or (
            r.head.method == M_HEAD or r.status == 204 or r.status == 304):
        return
    for line in (<HeaderSettings>r.location.headers).trailers:
        if line.is_always or is_plain_status(r.status):
            r.length = -1
            return


cdef int add_trailers(Request r) noexcept:
    cdef HeaderSettings s
    cdef Line line
    cdef Str value
    cdef bint is_plain
    cdef int rc
    if r.location is None or r.location.headers is None:
        return 0
    s = <HeaderSettings>r.location.headers
    if not s.trailers:
        return 0
    is_plain = is_plain_status(r.status)
    for line in s.trailers:
        if not is_plain and not line.is_always:
            continue
        rc = evaluate(line.value, r, &value)
        if rc < 0:
            return rc
        if value.n and r.add_trailer(of_bytes(line.name), copy(&r.arena, value)) == NULL:
            return NO_MEMORY
    return 0


# -- expires -----------------------------------------------------------------------------

cdef int64_t modified_at(Request r) noexcept:
    """Seconds of Last-Modified, ours or the upstream's; -1 without one."""
    cdef const Field* f
    cdef char date[32]
    cdef tm t
    if r.last_modified >= 0:
        return r.last_modified
    if r.is_answer_ours or r.answer.fields == NULL:
        return -1
    f = find_field(&r.answer, F_LAST_MODIFIED)
    if f == NULL or f.value_n >= sizeof(date):
        return -1
    memcpy(date, r.answer.base + f.value, f.value_n)
    date[f.value_n] = 0
    memset(&t, 0, sizeof(t))
    if strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &t) == NULL:
        return -1
    return timegm(&t)


cdef int64_t next_time(int64_t second_of_day) noexcept:
    """When this second of the local day comes next."""
    cdef long now = <long>clock.wall_s
    cdef tm t
    cdef long found
    localtime_r(&now, &t)
    t.tm_hour = <int>(second_of_day // 3600)
    t.tm_min = <int>(second_of_day // 60 % 60)
    t.tm_sec = <int>(second_of_day % 60)
    t.tm_isdst = -1
    found = mktime(&t)
    if found <= now:
        t.tm_mday += 1
        t.tm_isdst = -1
        found = mktime(&t)
    return found


cdef int put_expires(Request r, Str date, Str control) noexcept:
    forget_field(r, F_EXPIRES)
    forget_field(r, F_CACHE_CONTROL)
    if r.add_field(text(b"Expires", 7), date, F_EXPIRES) == NULL:
        return NO_MEMORY
    if r.add_field(text(b"Cache-Control", 13), control, F_CACHE_CONTROL) == NULL:
        return NO_MEMORY
    return 0


cdef int set_expires(HeaderSettings s, Request r) noexcept:
    cdef uint8_t kind = s.expires
    cdef int64_t after_s = s.expires_s
    cdef int64_t now = clock.wall_s
    cdef int64_t at
    cdef int64_t age
    cdef Str value
    cdef char* p
    cdef int rc
    if s.expires_text is not None:
        rc = evaluate(s.expires_text, r, &value)
        if rc < 0:
            return rc
        try:
            found = s.read_expires(to_bytes(value).decode("latin-1"), kind == EXPIRES_MODIFIED)
        except Exception as error:
            tell_error(R_ALERT, r, "reading the value of \"expires\"", error)
            return 0
        if found is None or found[0] == EXPIRES_OFF:
            return 0
        kind, after_s = found
    if kind == EXPIRES_EPOCH:
        return put_expires(r, text(b"Thu, 01 Jan 1970 00:00:01 GMT", 29), text(b"no-cache", 8))
    if kind == EXPIRES_MAX:
        return put_expires(r, text(b"Thu, 31 Dec 2037 23:55:55 GMT", 29),
                           text(b"max-age=315360000", 17))
    if kind == EXPIRES_DAILY:
        at = next_time(after_s)
        age = at - now
    elif kind == EXPIRES_MODIFIED and after_s and modified_at(r) >= 0:
        at = modified_at(r) + after_s
        age = at - now
    else:
        at = now + after_s
        age = after_s
    p = <char*>take(&r.arena, 64)
    if p == NULL:
        return NO_MEMORY
    put_date(p, at if at > 0 else 0)
    if after_s < 0 or age < 0:
        return put_expires(r, text(p, 29), text(b"no-cache", 8))
    value.p = put_bytes(p + 32, b"max-age=", 8) - 8
    value.n = <uint32_t>(put_decimal(p + 40, <uint64_t>age) - value.p)
    return put_expires(r, text(p, 29), value)
