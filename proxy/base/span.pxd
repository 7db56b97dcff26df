# What travels, smallest first: borrowed bytes (Str) and their comparisons.
#
# A Str borrows: it points into the shared read buffer, an arena or the plan, and
# whoever keeps one longer than the current callback copies it to an arena first.
# Every body here is inline and nothing here can fail.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp


cdef struct Str:
    const char* p
    uint32_t n


cdef inline Str text(const char* p, Py_ssize_t n) noexcept nogil:
    cdef Str s
    s.p = p
    s.n = <uint32_t>n
    return s


cdef inline Str of_bytes(bytes b) noexcept:
    """Borrow from a bytes object that outlives the Str (plan data)."""
    cdef Str s
    s.p = <const char*>b
    s.n = <uint32_t>len(b)
    return s


cdef inline bytes to_bytes(Str s):
    return s.p[:s.n] if s.n else b""


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if 65 <= c <= 90 else c


cdef inline bint is_equal(Str a, Str b) noexcept nogil:
    return a.n == b.n and (a.n == 0 or memcmp(a.p, b.p, a.n) == 0)


cdef inline bint is_same_word(const char* a, const char* b, uint32_t n) noexcept nogil:
    """ASCII case-insensitive comparison of n bytes."""
    cdef uint32_t i
    for i in range(n):
        if lower(<uint8_t>a[i]) != lower(<uint8_t>b[i]):
            return False
    return True


cdef inline bint is_word(Str a, const char* word, uint32_t n) noexcept nogil:
    return a.n == n and is_same_word(a.p, word, n)
