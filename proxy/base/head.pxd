# A message head as parsed in place: offsets from one base, never pointers.
#
# The base lies in the worker's shared read buffer while the head is being read; a
# head that outlives the callback moves to its request's arena by one memcpy of the
# bytes and one of the fields, and every offset stays right.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from proxy.base.span cimport Str, text


cdef enum Method:
    M_OTHER = 0
    M_GET = 1
    M_HEAD = 2
    M_POST = 3
    M_PUT = 4
    M_DELETE = 5
    M_OPTIONS = 6
    M_PATCH = 7
    M_TRACE = 8
    M_CONNECT = 9
    M_PROPFIND = 10
    M_MKCOL = 11
    M_COPY = 12
    M_MOVE = 13
    M_PROPPATCH = 14
    M_LOCK = 15
    M_UNLOCK = 16


cdef enum FieldId:
    # names that compiled code asks for; the table that finds them is in wire/_fields
    F_OTHER = 0
    F_HOST = 1
    F_CONNECTION = 2
    F_CONTENT_LENGTH = 3
    F_TRANSFER_ENCODING = 4
    F_EXPECT = 5
    F_UPGRADE = 6
    F_KEEP_ALIVE = 7
    F_TE = 8
    F_TRAILER = 9
    F_PROXY_CONNECTION = 10
    F_PROXY_AUTHORIZATION = 11
    F_PROXY_AUTHENTICATE = 12
    F_DATE = 13
    F_SERVER = 14
    F_CONTENT_TYPE = 15
    F_LOCATION = 16
    F_REFRESH = 17
    F_SET_COOKIE = 18
    F_ETAG = 19
    F_LAST_MODIFIED = 20
    F_ACCEPT_RANGES = 21
    F_CONTENT_RANGE = 22
    F_CONTENT_ENCODING = 23
    F_CACHE_CONTROL = 24
    F_EXPIRES = 25
    F_VARY = 26
    F_RANGE = 27
    F_IF_RANGE = 28
    F_IF_MODIFIED_SINCE = 29
    F_IF_UNMODIFIED_SINCE = 30
    F_IF_MATCH = 31
    F_IF_NONE_MATCH = 32
    F_ACCEPT = 33
    F_ACCEPT_ENCODING = 34
    F_ACCEPT_LANGUAGE = 35
    F_USER_AGENT = 36
    F_REFERER = 37
    F_COOKIE = 38
    F_AUTHORIZATION = 39
    F_X_FORWARDED_FOR = 40
    F_X_REAL_IP = 41
    F_X_ACCEL_REDIRECT = 42
    F_X_ACCEL_EXPIRES = 43
    F_X_ACCEL_BUFFERING = 44
    F_X_ACCEL_CHARSET = 45
    F_X_ACCEL_LIMIT_RATE = 46
    F_WWW_AUTHENTICATE = 47
    F_STATUS = 48
    F_LINK = 49
    F_ORIGIN = 50
    F_X_REQUEST_ID = 51
    F_TRACEPARENT = 52
    F_CONTENT_DISPOSITION = 53
    F_ALLOW = 54
    F_AGE = 55
    F_HTTP2_SETTINGS = 56
    F_COUNT = 64


cdef enum FieldFlag:
    F_IS_HOP = 1          # hop-by-hop: by its name, or named in Connection (RFC 9110 §7.6.1)
    F_IS_INVALID = 2      # ignored by ignore_invalid_headers / underscores_in_headers
    F_IS_HIDDEN = 4       # not passed on: proxy_hide_header, or replaced


cdef struct Field:
    uint32_t name         # offset from head.base
    uint32_t value        # offset; leading and trailing white space is outside
    uint32_t value_n
    uint16_t name_n
    uint8_t id            # FieldId
    uint8_t flags         # FieldFlag


cdef enum HeadFlag:
    H_CHUNKED = 1         # the body is chunked; content_length is -1
    H_KEEP_ALIVE = 2      # after HTTP version and Connection
    H_UPGRADE = 4         # Connection: upgrade together with an Upgrade field
    H_EXPECT_CONTINUE = 8
    H_HAS_HOST = 16
    H_ABSOLUTE = 32       # absolute-form target; its authority overrides Host (RFC 9112 §3.2.2)
    H_CONNECTION_CLOSE = 64
    H_HAS_TRAILER = 128
    H_TE_TRAILERS = 256   # TE: trailers


cdef enum BodyKind:
    BODY_NONE = 0         # no byte of body follows
    BODY_LENGTH = 1       # head.content_length bytes, more than none
    BODY_CHUNKED = 2
    BODY_UNTIL_CLOSE = 3  # a response that its connection's end ends


cdef struct Head:
    char* base            # first byte of the head
    uint32_t size         # bytes of the head, its empty line included; valid when complete
    Field* fields
    uint16_t n_fields
    uint16_t cap_fields
    # parsing state: where the next unread line starts, 0 at the beginning
    uint32_t at
    uint8_t has_start_line
    uint8_t version       # 10 or 11
    uint8_t method        # Method
    uint8_t method_n      # offset of the method is method_off
    uint32_t method_off
    uint32_t target       # request-target as sent
    uint32_t target_n
    uint32_t line_n       # start line without its end (for $request)
    uint32_t line_off
    uint32_t path         # target without scheme and authority: what routing reads
    uint32_t path_n
    uint32_t host         # authority of the target, else the Host value; port included
    uint32_t host_n
    uint16_t status       # responses
    uint32_t reason
    uint32_t reason_n
    uint32_t flags        # HeadFlag
    int64_t content_length  # -1: none given


cdef inline Str span(const Head* h, uint32_t off, uint32_t n) noexcept nogil:
    return text(h.base + off, n)


cdef inline Str name_of(const Head* h, const Field* f) noexcept nogil:
    return text(h.base + f.name, f.name_n)


cdef inline Str value_of(const Head* h, const Field* f) noexcept nogil:
    return text(h.base + f.value, f.value_n)


cdef inline const Field* find_field(const Head* h, uint8_t id) noexcept nogil:
    """The first field of this id that counts, or NULL."""
    cdef uint16_t i
    for i in range(h.n_fields):
        if h.fields[i].id == id and not h.fields[i].flags & F_IS_INVALID:
            return &h.fields[i]
    return NULL
