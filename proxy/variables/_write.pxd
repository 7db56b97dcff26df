# How a getter answers: literals, numbers, seconds, and bytes kept in the request's arena.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport copy, take
from proxy.base._request cimport Request
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport NO_MEMORY


cdef inline int tell(Str* out, const char* p, uint32_t n) noexcept:
    out.p = p
    out.n = n
    return 1


cdef inline int tell_kept(Request r, Str s, Str* out) noexcept:
    """Copy what will not live as long as the request."""
    out[0] = copy(&r.arena, s)
    if out.p == NULL:
        return NO_MEMORY
    return 1


cdef inline uint32_t write_number(char* p, uint64_t number) noexcept nogil:
    """Decimal digits, 20 at most; answers how many."""
    cdef char[20] digits
    cdef uint32_t at = 20
    while True:
        at -= 1
        digits[at] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    memcpy(p, &digits[at], 20 - at)
    return 20 - at


cdef inline uint32_t write_seconds(char* p, uint64_t ms) noexcept nogil:
    """Seconds with three decimals, 24 bytes at most; answers how many."""
    cdef uint32_t n = write_number(p, ms // 1000)
    cdef uint32_t rest = <uint32_t>(ms % 1000)
    p[n] = c"."
    p[n + 1] = <char>(48 + rest // 100)
    p[n + 2] = <char>(48 + rest // 10 % 10)
    p[n + 3] = <char>(48 + rest % 10)
    return n + 4


cdef inline int tell_number(Request r, uint64_t number, Str* out) noexcept:
    cdef char* p = <char*>take(&r.arena, 24)
    if p == NULL:
        return NO_MEMORY
    return tell(out, p, write_number(p, number))


cdef inline int tell_seconds(Request r, uint64_t ms, Str* out) noexcept:
    cdef char* p = <char*>take(&r.arena, 24)
    if p == NULL:
        return NO_MEMORY
    return tell(out, p, write_seconds(p, ms))
