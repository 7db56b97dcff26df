# An HTTP-date, read.

from libc.stdint cimport int64_t

from proxy.base.span cimport Str


# Seconds since 1970 of an HTTP-date in any of its three forms (RFC 9110 §5.6.7), -1: none.
cdef int64_t read_date(Str s) noexcept nogil


cdef inline bint skip(const char** p, const char* end, char c) noexcept nogil:
    """Past this byte, if it comes next."""
    if p[0] < end and p[0][0] == c:
        p[0] += 1
        return True
    return False
