"""gzip: which answers are compressed, what their heads say then, and the bodies piece by piece."""

from zlib import DEFLATED, Z_SYNC_FLUSH, compressobj

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base._arena cimport copy, take
from proxy.base._clock cimport clock
from proxy.base._pcre cimport Pattern, match
from proxy.base._request cimport BLOCKED, BodyFilter, Request
from proxy.base._told cimport R_ALERT, tell_error
from proxy.base.head cimport *
from proxy.base.span cimport Str, text, to_bytes
from proxy.base.verdict cimport GO, INTERNAL, NO_MEMORY
from proxy.filters._grpc_web cimport is_web
from proxy.variables._variables cimport NO_CACHE, declare
from proxy.wire._date cimport read_date
from proxy.wire._h1write cimport put_decimal

cdef enum:
    SLICE = 16 * 1024         # given to zlib at once; what it gives goes out before the next
    SENT_LEAST = 4096         # less waits for more, or for the end
    WRAPPED = 16              # added to zlib's window bits: a gzip header and trailer
    WINDOW_BITS = 15
    MEMORY_LEVEL = 8          # both are less for an answer that is known to be small, as in nginx
    LOOKAHEAD = 262           # zlib's MIN_LOOKAHEAD

# `*` in gzip_types does not mean them: each message is waited for, or compressed already
NEVER_ALL = (b"text/event-stream", b"application/grpc")


cdef class GzipSettings:
    pass


cdef class BodyFilters:
    pass


cdef class GzipFilter(BodyFilter):
    cdef int body(self, Request r, const char* p, size_t n) noexcept:
        cdef size_t part
        cdef int rc
        cdef int blocked = 0
        while n:
            part = n if n < SLICE else SLICE
            try:
                piece = self.compressor.compress(p[:part])
                if part == n and self.is_stream:
                    piece += self.compressor.flush(Z_SYNC_FLUSH)
            except Exception as error:
                tell_error(R_ALERT, r, "compressing an answer", error)
                return INTERNAL
            self.taken += <int64_t>part
            self.held = piece if self.held is None else self.held + piece
            if len(self.held) >= SENT_LEAST or self.is_stream:
                rc = self.give(r)
                if rc < 0:
                    return rc
                blocked |= rc
            p += part
            n -= part
        return BLOCKED if blocked else 0

    cdef int end(self, Request r) noexcept:
        cdef int rc
        if self.is_ended:
            return GO
        self.is_ended = True
        try:
            piece = self.compressor.flush()
            self.held = piece if self.held is None else self.held + piece
        except Exception as error:
            tell_error(R_ALERT, r, "compressing an answer", error)
            return INTERNAL
        self.compressor = None                   # its memory is not needed for the log
        rc = self.give(r)
        return rc if rc < 0 else GO              # the stream keeps what it could not send

    cdef int pump(self, Request r) noexcept:
        return GO

    cdef int give(self, Request r) noexcept:
        cdef bytes piece = self.held
        self.held = None
        if not piece:
            return 0
        self.given += len(piece)
        return r.stream.send_body(r, piece, <size_t>len(piece))


# ---------------------------------------------------------------- which

cdef Field* passing(Request r, uint8_t id) noexcept:
    """A field of the upstream's answer that goes out."""
    cdef uint16_t i
    if r.answer.fields != NULL and not r.is_answer_ours:
        for i in range(r.answer.n_fields):
            if r.answer.fields[i].id == id and not r.answer.fields[i].flags:
                return &r.answer.fields[i]
    return NULL


cdef bytes answered(Request r, uint8_t id):
    """The value that the answer's field has by now, None without one."""
    cdef Field* f = passing(r, id)
    cdef uint16_t i
    for i in range(r.n_out):
        if r.out[i].id == id:
            return to_bytes(r.out[i].value)
    return None if f == NULL else to_bytes(value_of(&r.answer, f))


cdef bytes asked(Request r, uint8_t id):
    cdef const Field* f = find_field(&r.head, id)
    return None if f == NULL else to_bytes(value_of(&r.head, f))


cdef bint takes_gzip(bytes value):
    """Accept-Encoding (RFC 9110 §12.5.3): is gzip named, and not with a weight of 0?"""
    for part in value.lower().split(b","):
        name, *parameters = part.split(b";")
        if name.strip() == b"gzip":
            for it in parameters:
                key, _, weight = it.strip().partition(b"=")
                if key == b"q":
                    return weight.strip(b" \t0.") != b""
            return True
    return False


cdef bint is_proxied_out(GzipSettings s, Request r):
    """gzip_proxied: does a request that came by a proxy (Via) get its answer as it is?"""
    cdef bint has_via = False
    cdef uint16_t i
    for i in range(r.head.n_fields):
        if r.head.fields[i].name_n == 3 and to_bytes(
                name_of(&r.head, &r.head.fields[i])).lower() == b"via":
            has_via = True
    if not has_via or s.proxied & PROXIED_ANY:
        return False
    if s.proxied == 0:
        return True
    if s.proxied & PROXIED_AUTH and find_field(&r.head, F_AUTHORIZATION) != NULL:
        return False
    expires = answered(r, F_EXPIRES)
    if expires is not None:
        return not s.proxied & PROXIED_EXPIRED or not is_past(expires)
    control = answered(r, F_CACHE_CONTROL)
    if control is not None:
        words = {it.partition(b"=")[0].strip() for it in control.lower().split(b",")}
        return not (s.proxied & PROXIED_NO_CACHE and b"no-cache" in words
                    or s.proxied & PROXIED_NO_STORE and b"no-store" in words
                    or s.proxied & PROXIED_PRIVATE and b"private" in words)
    return bool(s.proxied & PROXIED_NO_LAST_MODIFIED and (
        r.last_modified >= 0 or answered(r, F_LAST_MODIFIED) is not None)
        or s.proxied & PROXIED_NO_ETAG and answered(r, F_ETAG) is not None)


cdef bint is_past(bytes date):
    cdef int64_t at = read_date(text(<const char*>date, len(date)))
    return 0 <= at < <int64_t>clock.wall_s


cdef bint is_disabled(GzipSettings s, Request r):
    cdef bytes agent
    cdef Pattern pattern
    if not s.disabled:
        return False
    agent = asked(r, F_USER_AGENT)
    if agent is None:
        return False
    for pattern in s.disabled:
        if match(pattern, agent, <uint32_t>len(agent), NULL, 0) != 0:
            return True
    return False


cdef bint is_of_types(GzipSettings s, Request r):
    cdef Field* f = passing(r, F_CONTENT_TYPE) if r.content_type.n == 0 else NULL
    cdef Str value = r.content_type if f == NULL else value_of(&r.answer, f)
    kind = to_bytes(value).partition(b";")[0].strip().lower()
    if s.types is None:
        return kind != b"" and not kind.startswith(NEVER_ALL)
    return kind in s.types


cdef int begin_gzip(GzipSettings s, Request r) noexcept:
    cdef GzipFilter filter
    cdef BodyFilter last
    cdef bytes value
    cdef int64_t length = r.length
    cdef int bits = WINDOW_BITS
    cdef int level = MEMORY_LEVEL
    if r is not r.main or r.is_upgraded or is_web(r) or r.length >= 0 and r.length < s.least or (
            r.status != 200 and r.status != 403 and r.status != 404):
        return 0
    try:
        if answered(r, F_CONTENT_ENCODING) or not is_of_types(s, r):
            return 0
        if s.is_vary and r.add_field(text(b"Vary", 4), text(b"Accept-Encoding", 15), 0) == NULL:
            return NO_MEMORY
        value = asked(r, F_ACCEPT_ENCODING)
        if value is None or not takes_gzip(value) or r.head.version < s.version or (
                is_proxied_out(s, r) or is_disabled(s, r)):
            return 0
        if r.head.method != M_HEAD:
            filter = GzipFilter.__new__(GzipFilter)
            filter.is_stream = length < 0 and not r.is_answer_ours
            while length > 0 and length < (1 << (bits - 1)) - LOOKAHEAD:
                bits -= 1
                level -= 1
            filter.compressor = compressobj(s.level, DEFLATED, bits + WRAPPED, max(level, 1))
            if r.filters is None:
                r.filters = filter
            else:
                last = <BodyFilter>r.filters
                while last.next is not None:
                    last = last.next
                last.next = filter
    except Exception as error:
        tell_error(R_ALERT, r, "beginning to compress an answer", error)
        return INTERNAL
    return say_gzip(r)


cdef int say_gzip(Request r) noexcept:
    """What compressing makes of the head: no length, no ranges, a weak entity tag."""
    cdef Field* f = passing(r, F_ETAG)
    cdef Str tag
    cdef uint16_t i
    r.length = -1
    if f != NULL:
        f.flags |= F_IS_HIDDEN
        tag = weak(r, value_of(&r.answer, f))
        if tag.n and r.add_field(text(b"ETag", 4), tag, 0) == NULL:
            return NO_MEMORY
    f = passing(r, F_ACCEPT_RANGES)
    if f != NULL:
        f.flags |= F_IS_HIDDEN
    for i in range(r.n_out):
        if r.out[i].id == F_ETAG:
            r.out[i].value = weak(r, r.out[i].value)
        if r.out[i].id == F_ACCEPT_RANGES or r.out[i].id == F_ETAG and r.out[i].value.n == 0:
            r.out[i].name.n = 0
            r.out[i].id = 0
    if r.add_field(text(b"Content-Encoding", 16), text(b"gzip", 4), F_CONTENT_ENCODING) == NULL:
        return NO_MEMORY
    return 0


cdef Str weak(Request r, Str tag) noexcept:
    """W/ before it; empty for what is no entity tag."""
    cdef char* room
    if tag.n > 2 and tag.p[0] == c"W" and tag.p[1] == c"/":
        return copy(&r.arena, tag)
    room = <char*>take(&r.arena, tag.n + 2)
    if room == NULL or tag.n < 2 or tag.p[0] != c'"':
        return text(b"", 0)
    room[0] = c"W"
    room[1] = c"/"
    for i in range(tag.n):
        room[2 + i] = tag.p[i]
    return text(room, tag.n + 2)


# ---------------------------------------------------------------- $gzip_ratio

cdef int get_ratio(Request r, uint64_t _, Str* out) noexcept:
    """Bytes taken per byte given, with two digits (nginx)."""
    cdef BodyFilter at = <BodyFilter>r.filters
    cdef GzipFilter filter
    cdef char* p
    cdef char* end
    cdef uint64_t ratio
    while at is not None and type(at) is not GzipFilter:
        at = at.next
    if at is None:
        return 0
    filter = <GzipFilter>at
    p = <char*>take(&r.arena, 32)
    if p == NULL or filter.given == 0:
        return 0
    ratio = <uint64_t>filter.taken * 100 // <uint64_t>filter.given
    end = put_decimal(p, ratio // 100)
    end[0] = c"."
    end[1] = <char>(48 + ratio // 10 % 10)
    end[2] = <char>(48 + ratio % 10)
    out[0] = text(p, end + 3 - p)
    return 1


declare(b"gzip_ratio", get_ratio, 0, NO_CACHE)
