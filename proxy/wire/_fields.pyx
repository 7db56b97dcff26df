# cython: language_level=3
"""Field names to numbers: one multiplication, one table look-up, one comparison.

The table is filled once at import. Its three factors were found by trial so that no
two names share a slot; `check_names` says so again, and a test calls it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from proxy.base.head cimport *
from proxy.base.span cimport Str, text

cdef uint8_t slots[256]
cdef const char* names[64]
cdef uint8_t lengths[64]
cdef uint8_t traits[64]
name_traits = traits


cdef inline uint8_t slot_of(const char* p, uint32_t n) noexcept nogil:
    return <uint8_t>(n * 66 + (p[0] | 0x20) * 83 + (p[n - 1] | 0x20) * 125)


cdef inline bint is_same_name(const char* a, const char* b, uint32_t n) noexcept nogil:
    # Among token characters |0x20 joins the two cases of a letter and nothing else
    # that occurs in a known name, so eight bytes are compared at once.
    cdef uint64_t x, y
    cdef uint64_t fold = 0x2020202020202020
    cdef uint32_t i = 0
    if n < 8:
        while i < n:
            if (a[i] | 0x20) != (b[i] | 0x20):
                return False
            i += 1
        return True
    while True:
        memcpy(&x, a + i, 8)
        memcpy(&y, b + i, 8)
        if (x ^ y) & ~fold:
            return False
        if i + 8 == n:
            # the bits that were masked out differ only between the cases of letters
            return True
        i += 8
        if i + 8 > n:
            i = n - 8


cdef uint8_t find_name(const char* p, uint32_t n) noexcept nogil:
    cdef uint8_t id
    if n == 0 or n > 32:
        return F_OTHER
    id = slots[slot_of(p, n)]
    if id != F_OTHER and lengths[id] == n and is_same_name(p, names[id], n):
        return id
    return F_OTHER


cdef Str name_text(uint8_t id) noexcept nogil:
    if id >= 64 or lengths[id] == 0:
        return text(b"", 0)
    return text(names[id], lengths[id])


cdef list NAMES = [
    # name, id, traits
    (b"Host", F_HOST, IS_SINGLE | IS_PROTECTED | IS_NO_TRAILER),
    (b"Connection", F_CONNECTION, IS_HOP | IS_NO_TRAILER),
    (b"Content-Length", F_CONTENT_LENGTH, IS_SINGLE | IS_PROTECTED | IS_NO_TRAILER),
    (b"Transfer-Encoding", F_TRANSFER_ENCODING,
     IS_HOP | IS_SINGLE | IS_PROTECTED | IS_NO_TRAILER),
    (b"Expect", F_EXPECT, IS_SINGLE | IS_NO_TRAILER),
    (b"Upgrade", F_UPGRADE, IS_HOP | IS_NO_TRAILER),
    (b"Keep-Alive", F_KEEP_ALIVE, IS_HOP | IS_NO_TRAILER),
    (b"TE", F_TE, IS_HOP | IS_NO_TRAILER),
    (b"Trailer", F_TRAILER, IS_NO_TRAILER),
    (b"Proxy-Connection", F_PROXY_CONNECTION, IS_HOP | IS_NO_TRAILER),
    (b"Proxy-Authorization", F_PROXY_AUTHORIZATION, IS_HOP | IS_SINGLE | IS_NO_TRAILER),
    (b"Proxy-Authenticate", F_PROXY_AUTHENTICATE, IS_HOP | IS_NO_TRAILER),
    (b"Date", F_DATE, IS_NO_TRAILER),
    (b"Server", F_SERVER, 0),
    (b"Content-Type", F_CONTENT_TYPE, IS_PROTECTED | IS_NO_TRAILER),
    (b"Location", F_LOCATION, IS_NO_TRAILER),
    (b"Refresh", F_REFRESH, IS_NO_TRAILER),
    (b"Set-Cookie", F_SET_COOKIE, IS_NO_TRAILER),
    (b"ETag", F_ETAG, 0),
    (b"Last-Modified", F_LAST_MODIFIED, 0),
    (b"Accept-Ranges", F_ACCEPT_RANGES, 0),
    (b"Content-Range", F_CONTENT_RANGE, IS_SINGLE | IS_PROTECTED | IS_NO_TRAILER),
    (b"Content-Encoding", F_CONTENT_ENCODING, IS_PROTECTED | IS_NO_TRAILER),
    (b"Cache-Control", F_CACHE_CONTROL, IS_PROTECTED | IS_NO_TRAILER),
    (b"Expires", F_EXPIRES, IS_NO_TRAILER),
    (b"Vary", F_VARY, IS_NO_TRAILER),
    (b"Range", F_RANGE, IS_PROTECTED | IS_NO_TRAILER),
    (b"If-Range", F_IF_RANGE, IS_SINGLE | IS_NO_TRAILER),
    (b"If-Modified-Since", F_IF_MODIFIED_SINCE, IS_SINGLE | IS_NO_TRAILER),
    (b"If-Unmodified-Since", F_IF_UNMODIFIED_SINCE, IS_SINGLE | IS_NO_TRAILER),
    (b"If-Match", F_IF_MATCH, IS_SINGLE | IS_NO_TRAILER),
    (b"If-None-Match", F_IF_NONE_MATCH, IS_SINGLE | IS_NO_TRAILER),
    (b"Accept", F_ACCEPT, 0),
    (b"Accept-Encoding", F_ACCEPT_ENCODING, 0),
    (b"Accept-Language", F_ACCEPT_LANGUAGE, 0),
    (b"User-Agent", F_USER_AGENT, 0),
    (b"Referer", F_REFERER, 0),
    (b"Cookie", F_COOKIE, IS_PROTECTED | IS_NO_TRAILER),
    (b"Authorization", F_AUTHORIZATION, IS_SINGLE | IS_PROTECTED | IS_NO_TRAILER),
    (b"X-Forwarded-For", F_X_FORWARDED_FOR, IS_PROTECTED | IS_NO_TRAILER),
    (b"X-Real-IP", F_X_REAL_IP, IS_PROTECTED | IS_NO_TRAILER),
    (b"X-Accel-Redirect", F_X_ACCEL_REDIRECT, IS_NO_TRAILER),
    (b"X-Accel-Expires", F_X_ACCEL_EXPIRES, IS_NO_TRAILER),
    (b"X-Accel-Buffering", F_X_ACCEL_BUFFERING, IS_NO_TRAILER),
    (b"X-Accel-Charset", F_X_ACCEL_CHARSET, IS_NO_TRAILER),
    (b"X-Accel-Limit-Rate", F_X_ACCEL_LIMIT_RATE, IS_NO_TRAILER),
    (b"WWW-Authenticate", F_WWW_AUTHENTICATE, IS_NO_TRAILER),
    (b"Status", F_STATUS, IS_NO_TRAILER),
    (b"Link", F_LINK, 0),
    (b"Origin", F_ORIGIN, IS_PROTECTED | IS_NO_TRAILER),
    (b"X-Request-ID", F_X_REQUEST_ID, 0),
    (b"traceparent", F_TRACEPARENT, 0),
    (b"Content-Disposition", F_CONTENT_DISPOSITION, 0),
    (b"Allow", F_ALLOW, 0),
    (b"Age", F_AGE, IS_NO_TRAILER),
    (b"HTTP2-Settings", F_HTTP2_SETTINGS, IS_HOP | IS_NO_TRAILER),
]


def check_names() -> None:
    """Raise ValueError when two names share a slot of the table."""
    for name, id, _ in NAMES:
        if slots[slot_of(name, <uint32_t>len(name))] != <uint8_t>id:
            raise ValueError(f"{name} shares its slot")


def field_id(name: bytes) -> int:
    """The FieldId of a name, 0 when compiled code does not know it."""
    return find_name(name, <uint32_t>len(name))


cdef fill():
    cdef bytes name
    cdef uint8_t id
    for name, number, trait in NAMES:
        id = number
        slots[slot_of(name, <uint32_t>len(name))] = id
        names[id] = name  # NAMES keeps the bytes alive
        lengths[id] = <uint8_t>len(name)
        traits[id] = trait


fill()
