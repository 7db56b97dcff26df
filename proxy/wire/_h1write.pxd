# Writers of a message head into a caller's buffer: each gives the byte behind its last.
#
# Nobody here checks for room: the caller has counted it before (MAX_… below).

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from proxy.base.span cimport Str
from proxy.wire._scan cimport scan_text


cdef enum Room:
    MAX_STATUS_LINE = 64
    MAX_DECIMAL = 20
    DATE_BYTES = 29


cdef inline char* put_bytes(char* out, const char* p, uint32_t n) noexcept nogil:
    memcpy(out, p, n)
    return out + n


cdef inline char* put_str(char* out, Str s) noexcept nogil:
    if s.n:
        memcpy(out, s.p, s.n)
    return out + s.n


cdef inline char* put_text(char* out, Str s) noexcept nogil:
    """A value that variables made: CR, LF and NUL become spaces, or they would begin another
    line (RFC 9110 §5.5)."""
    cdef char* at = out
    cdef char* end = put_str(out, s)
    while True:
        at = <char*>scan_text(at, end)
        if at == end:
            return end
        if at[0] == 13 or at[0] == 10 or at[0] == 0:
            at[0] = b" "
        at += 1


cdef inline char* put_end(char* out) noexcept nogil:
    """The end of a line."""
    out[0] = b"\r"
    out[1] = b"\n"
    return out + 2


cdef inline char* put_field(char* out, Str name, Str value) noexcept nogil:
    """A whole field line; room: both sizes and 4."""
    out = put_str(out, name)
    out[0] = b":"
    out[1] = b" "
    return put_end(put_text(out + 2, value))


cdef inline char* put_decimal(char* out, uint64_t value) noexcept nogil:
    cdef uint32_t n = 1, i
    cdef uint64_t rest = value
    while rest >= 10:
        rest //= 10
        n += 1
    i = n
    while i:
        i -= 1
        out[i] = <char>(48 + value % 10)
        value //= 10
    return out + n


# "HTTP/1.1 200 OK\r\n" with nginx's reason; a status without one gets an empty reason.
cdef char* put_status_line(char* out, uint16_t status) noexcept nogil

# The same line in place, empty for a status that is not in the table.
cdef Str status_line(uint16_t status) noexcept nogil

# IMF-fixdate of a Unix time in seconds, e.g. "Sun, 06 Nov 1994 08:49:37 GMT"
# (RFC 9110 §5.6.7); one second after the other costs a copy of 29 bytes.
cdef char* put_date(char* out, int64_t second) noexcept nogil


cdef inline char* put_response_line(char* out, uint16_t status, Str reason) noexcept nogil:
    """The status line with an upstream's own reason; room: MAX_STATUS_LINE and reason.n."""
    out = put_bytes(out, b"HTTP/1.1 ", 9)
    out = put_decimal(out, status)
    out[0] = b" "
    return put_end(put_str(out + 1, reason))
