# HTTP/1.1 message heads: bytes to a Head, in place, fed in any split of the input.
#
# A reader answers > 0: the size of the whole head; 0: more bytes are needed (call again
# with the same bytes and more behind them, at this address or another); < 0: a FaultCode.
# It never writes to the bytes, never allocates, and reads nothing behind buf[n - 1].

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from proxy.base.head cimport *


cdef struct Limits:
    uint32_t max_line            # bytes of one line, its end included
    uint32_t max_head            # bytes of the whole head
    uint16_t max_fields          # max_headers; 0: as many as Head.cap_fields
    uint8_t ignore_invalid       # ignore_invalid_headers
    uint8_t underscores_allowed  # underscores_in_headers


cdef inline void begin_head(Head* h, Field* fields, uint16_t cap_fields) noexcept nogil:
    """Make a Head ready for its first byte; fields is room for cap_fields of them."""
    h.base = NULL
    h.size = 0
    h.fields = fields
    h.n_fields = 0
    h.cap_fields = cap_fields
    h.at = 0
    h.has_start_line = 0
    h.version = 0
    h.method = M_OTHER
    h.method_n = 0
    h.method_off = 0
    h.target = h.target_n = 0
    h.line_n = h.line_off = 0
    h.path = h.path_n = 0
    h.host = h.host_n = 0
    h.status = 0
    h.reason = h.reason_n = 0
    h.flags = 0
    h.content_length = -1


cdef inline BodyKind body_kind(const Head* h, bint is_head_request) noexcept nogil:
    """How the body after a complete head is framed (RFC 9112 §6.3).

    A Head with status 0 is a request. For a 101 the answer is NONE: what follows is
    no longer HTTP.
    """
    if h.status:
        if is_head_request or h.status < 200 or h.status == 204 or h.status == 304:
            return BODY_NONE
    if h.flags & H_CHUNKED:
        return BODY_CHUNKED
    if h.content_length >= 0:
        return BODY_LENGTH if h.content_length else BODY_NONE
    return BODY_UNTIL_CLOSE if h.status else BODY_NONE


# Head of a request. Faults: BAD_REQUEST, URI_TOO_LARGE, HEAD_TOO_LARGE, TOO_MANY_FIELDS,
# BAD_VERSION, NOT_IMPLEMENTED. Ignored fields (ignore_invalid) are not stored. h.path may
# begin with "?" (absolute-form without a path): the path is "/" then. CONNECT and TRACE
# are read like any other method.
cdef int read_request_head(
    Head* h, const char* buf, uint32_t n, const Limits* lim
) noexcept nogil

# Head of a response. Faults: UPSTREAM_BAD_HEAD, UPSTREAM_HEAD_TOO_LARGE.
cdef int read_response_head(
    Head* h, const char* buf, uint32_t n, const Limits* lim, bint is_head_request
) noexcept nogil

# Fields of a trailer section that Chunked captured: 0, or BAD_CHUNK (more fields than fit).
# Names that a trailer may not carry are dropped (RFC 9110 §6.5.1).
cdef int read_trailers(Head* h, const char* buf, uint32_t n) noexcept nogil

# Host and optional port as nginx and RFC 3986 §3.2.2 have them; empty is not valid.
cdef bint is_valid_host(const char* p, uint32_t n) noexcept nogil

# The number of a method as it is written, M_OTHER when it has none.
cdef uint8_t method_of(const char* p, uint32_t n) noexcept nogil
