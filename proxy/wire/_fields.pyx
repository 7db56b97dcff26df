"""The table of field names that compiled code knows, filled once at import."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from proxy.base.head cimport *

cdef Known slots[256]
cdef Known* by_id[64]
cdef Known nobody
known_names = slots
names_by_id = by_id

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
    """Raise ValueError when a name was lost because two share a slot of the table."""
    for name, number, _ in NAMES:
        if find_name(name, <uint32_t>len(name)) != <uint8_t>number:
            raise ValueError(f"{name} shares its slot")


def field_id(name: bytes) -> int:
    """The FieldId of a name, 0 when compiled code does not know it."""
    return find_name(name, <uint32_t>len(name))


cdef fill():
    cdef bytes name
    cdef Known* known
    cdef int i
    memset(slots, 0, sizeof(slots))
    memset(&nobody, 0, sizeof(nobody))
    for i in range(64):
        by_id[i] = &nobody
    for name, number, trait in NAMES:
        known = &slots[slot_of(name, <uint32_t>len(name))]
        known.n = <uint8_t>len(name)
        known.id = <uint8_t>number
        known.traits = <uint8_t>trait
        memcpy(known.name, <const char*>name, len(name))
        by_id[known.id] = known


fill()
