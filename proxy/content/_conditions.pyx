# Tests If-* fields and reads Range.
# nginx: ngx_http_not_modified_filter_module, ngx_http_range_filter_module.

from libc.string cimport memcmp

from proxy.base._arena cimport take
from proxy.base.head cimport (
    F_IF_MATCH, F_IF_MODIFIED_SINCE, F_IF_NONE_MATCH, F_IF_RANGE, F_IF_UNMODIFIED_SINCE, F_RANGE,
    Field, find_field, value_of,
)
from proxy.base.span cimport is_equal, is_same_word, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.content._settings cimport SINCE_EXACT, SINCE_OFF
from proxy.wire._date cimport read_date, skip

cdef enum:
    UNBOUNDED = 0x7FFFFFFF    # max_ranges that was not set
    PART_COST = 256           # about what the head of one part of many costs
    PARTS_FREE = 4096

cdef int64_t MOST_BYTES = 0x7FFFFFFFFFFFFFFF


# -- conditions --------------------------------------------------------------------------

cdef bint is_listed(Str etag, Str tags, bint is_weak) noexcept:
    """Is the entity tag in the list of If-Match or If-None-Match? (RFC 9110 §8.8.3.2)"""
    cdef const char* p = tags.p
    cdef const char* end = tags.p + tags.n
    if tags.n == 1 and p[0] == c"*":
        return True
    if etag.n == 0:
        return False
    if is_weak and etag.n > 2 and etag.p[0] == c"W" and etag.p[1] == c"/":
        etag.p += 2
        etag.n -= 2
    while p < end:
        if is_weak and end - p > 2 and p[0] == c"W" and p[1] == c"/":
            p += 2
        if etag.n > <size_t>(end - p):
            return False
        if memcmp(p, etag.p, etag.n) == 0:
            p += etag.n
            while p < end and (p[0] == c" " or p[0] == c"\t"):
                p += 1
            if p == end or p[0] == c",":
                return True
        while p < end and p[0] != c",":
            p += 1
        while p < end and (p[0] == c" " or p[0] == c"\t" or p[0] == c","):
            p += 1
    return False


cdef bint is_modified(Request r, const Field* f, int since) noexcept:
    cdef int64_t at
    if r.last_modified < 0 or since == SINCE_OFF:
        return True
    at = read_date(value_of(&r.head, f))
    if at == r.last_modified:
        return False
    return since == SINCE_EXACT or at < r.last_modified


cdef int check_conditions(Request r, Str etag, int since) noexcept:
    cdef const Field* f = find_field(&r.head, F_IF_UNMODIFIED_SINCE)
    cdef const Field* g
    if f != NULL and (r.last_modified < 0
                      or read_date(value_of(&r.head, f)) < r.last_modified):
        return 412
    f = find_field(&r.head, F_IF_MATCH)
    if f != NULL and not is_listed(etag, value_of(&r.head, f), False):
        return 412
    f = find_field(&r.head, F_IF_MODIFIED_SINCE)
    g = find_field(&r.head, F_IF_NONE_MATCH)
    if f == NULL and g == NULL:
        return 0
    if f != NULL and is_modified(r, f, since):
        return 0
    if g != NULL and not is_listed(etag, value_of(&r.head, g), True):
        return 0
    return 304


# -- ranges ------------------------------------------------------------------------------

cdef int64_t read_offset(const char** p, const char* end) noexcept nogil:
    """Digits, or -1 (none, or more than a file can have)."""
    cdef int64_t value = 0
    cdef int64_t digit
    if p[0] == end or not c"0" <= p[0][0] <= c"9":
        return -1
    while p[0] < end and c"0" <= p[0][0] <= c"9":
        digit = p[0][0] - c"0"
        if value > (MOST_BYTES - digit) // 10:
            return -1
        value = value * 10 + digit
        p[0] += 1
    return value


cdef bint is_range_wanted(Request r, Str etag, int64_t changed) noexcept:
    """If-Range: is what the client has still what we have?"""
    cdef const Field* f = find_field(&r.head, F_IF_RANGE)
    cdef Str value
    if f == NULL:
        return True
    value = value_of(&r.head, f)
    if value.n >= 2 and value.p[value.n - 1] == c'"':
        return etag.n != 0 and is_equal(value, etag)
    return changed >= 0 and read_date(value) == changed


cdef int read_ranges(
    Str s, int64_t size, uint32_t most, Range* ranges, uint32_t* n
) noexcept:
    """What stands behind "bytes="; `ranges` has room for one more than there are commas."""
    cdef const char* p = s.p
    cdef const char* end = s.p + s.n
    cdef int64_t start, stop, last
    cdef int64_t total = 0
    cdef bint is_suffix
    n[0] = 0
    while True:
        while skip(&p, end, c" "):
            pass
        is_suffix = skip(&p, end, c"-")
        start = 0
        stop = size
        if not is_suffix:
            start = read_offset(&p, end)
            if start < 0:
                return RANGES_BAD
            while skip(&p, end, c" "):
                pass
            if not skip(&p, end, c"-"):
                return RANGES_BAD
            while skip(&p, end, c" "):
                pass
        if is_suffix or p < end and p[0] != c",":
            last = read_offset(&p, end)
            if last < 0:
                return RANGES_BAD
            while skip(&p, end, c" "):
                pass
            if p < end and p[0] != c",":
                return RANGES_BAD
            if is_suffix:
                start = size - last if last < size else 0
                last = size - 1
            stop = size if last >= size else last + 1
        if start < stop:
            if n[0] == most:
                return RANGES_NONE
            ranges[n[0]].at = start
            ranges[n[0]].end = stop
            n[0] += 1
            if total > MOST_BYTES - (stop - start):
                return RANGES_BAD
            total += stop - start
        elif start == 0:
            return RANGES_NONE
        if p == end:
            break
        p += 1
    if n[0] == 0:
        return RANGES_BAD
    if n[0] == 1:
        return RANGES_FOUND
    # many small or overlapping ranges must not cost more than the whole (RFC 9110 §14.2)
    if total > size:
        return RANGES_NONE
    if most == UNBOUNDED and total + <int64_t>n[0] * PART_COST > size + PARTS_FREE:
        return RANGES_NONE
    return RANGES_FOUND


cdef int find_ranges(
    Request r, Str etag, int64_t changed, int64_t size, uint32_t most, Range** ranges, uint32_t* n
) noexcept:
    cdef const Field* f = find_field(&r.head, F_RANGE)
    cdef Str value
    cdef uint32_t room = 1
    cdef uint32_t i
    n[0] = 0
    if f == NULL or most == 0:
        return RANGES_NONE
    value = value_of(&r.head, f)
    if value.n < 7 or not is_same_word(value.p, b"bytes=", 6) or (
            not is_range_wanted(r, etag, changed)):
        return RANGES_NONE
    value = text(value.p + 6, value.n - 6)
    for i in range(value.n):
        if value.p[i] == c",":
            room += 1
    if room > most:
        room = most
    ranges[0] = <Range*>take(&r.arena, room * sizeof(Range))
    if ranges[0] == NULL:
        return NO_MEMORY
    return read_ranges(value, size, most, ranges[0], n)


# -- doors for tests ---------------------------------------------------------------------

def ranges_of(bytes value not None, size, unsigned int most=UNBOUNDED):
    """[(start, end), …], None for the whole, or 416."""
    cdef Range[1024] ranges
    cdef uint32_t n = 0
    if value.count(b",") >= 1024:
        raise ValueError("too many for this door")
    cdef int rc = read_ranges(text(<const char*>value, len(value)), size, most, ranges, &n)
    if rc == RANGES_BAD:
        return 416
    return [(ranges[i].at, ranges[i].end) for i in range(n)] if rc == RANGES_FOUND else None


def is_tag_listed(bytes etag not None, bytes tags not None, bint is_weak):
    """is_listed."""
    return bool(is_listed(text(<const char*>etag, len(etag)), text(<const char*>tags, len(tags)),
                          is_weak))
