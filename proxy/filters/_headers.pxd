# add_header, add_trailer and expires of one location, frozen, and how an answer gets them.

from cython cimport final
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from proxy.base._request cimport Request
from proxy.variables._variables cimport Template


cdef enum ExpiresKind:
    EXPIRES_OFF = 0
    EXPIRES_EPOCH = 1
    EXPIRES_MAX = 2
    EXPIRES_ACCESS = 3        # so many seconds after now
    EXPIRES_MODIFIED = 4      # so many seconds after Last-Modified
    EXPIRES_DAILY = 5         # at this second of the local day


@final
cdef class Line:
    """One add_header or add_trailer."""
    cdef readonly bytes name
    cdef readonly Template value
    cdef readonly bint is_always
    cdef uint8_t id               # FieldId of the four names that nginx treats apart, else 0


@final
cdef class HeaderSettings:
    cdef public list fields       # Line each
    cdef public list trailers
    cdef public uint8_t expires   # ExpiresKind
    cdef public int64_t expires_s
    cdef public Template expires_text  # a value with variables, or None
    cdef public object read_expires    # callable(str, is_modified) → (kind, seconds) or None


# Before the head of an answer goes out: its fields. 0 or a fault.
cdef int add_fields(Request r) noexcept
# Only a chunked body carries trailers: is this answer to be one? For who has r.location.headers.
cdef void expect_trailers(Request r) noexcept
# Before the last chunk goes out: its trailers. 0 or a fault.
cdef int add_trailers(Request r) noexcept
