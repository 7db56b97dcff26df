# Which version of a function answers a request: tags, affinity, weights.

from cython cimport final
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str


cdef enum:
    PLACES = 10000        # what a client's key is hashed to; 1 % of the weight has 100 of them
    MOST_ARMS = 64


cdef enum Known:          # by what a client is known again
    BY_NOTHING = 0
    BY_COOKIE = 1
    BY_HEADER = 2
    BY_VARIABLE = 3
    BY_ADDRESS = 4


@final
cdef class Affinity:
    """One `sticky`, see upstream/sticky.py."""
    cdef Known known
    cdef bytes name               # of the cookie, the header (as in $http_…), the variable
    cdef Str name_s
    cdef int variable             # its number, or -1
    cdef readonly bytes attributes
    cdef bytes tag_header
    cdef Str tag_header_s
    cdef bytes tag_cookie
    cdef Str tag_cookie_s
    cdef bytes cookie             # NAME=


@final
cdef class Arms:
    """The versions of one function, in the order of its list."""
    cdef readonly uint32_t n
    cdef readonly uint64_t seed   # of the function: not everywhere the same clients are first
    cdef int32_t weights[64]
    cdef int32_t current[64]      # smooth round robin
    cdef int32_t copies[64]       # of 10000 requests that a shadow gets
    cdef int32_t owed[64]
    cdef int32_t total
    cdef readonly bint has_copies
    cdef uint8_t* places          # arm of each place; NULL with less than two that have weight
    cdef int32_t only             # the one arm that has weight, -1: none
    cdef uint32_t cursor
    cdef list tags                # of each arm, bytes
    cdef readonly Affinity affinity

    cdef share_out(self, list names)
    cdef int next(self) noexcept
    cdef uint32_t free_place(self, int arm) noexcept
    cdef int find_tag(self, Str tag) noexcept
    cdef int find_tagged(self, Request r) noexcept


# The arm for this request, -1: no arm has weight, or a fault (below -1). An answer of a
# request that came without its cookie gets one (Request.out).
cdef int choose_arm(Arms a, Request r) noexcept
# The next shadow from arm `from_arm` on that shall get a copy of a request, -1: none (more).
cdef int next_copy(Arms a, int from_arm) noexcept
cdef uint64_t hash_text(uint64_t seed, Str s) noexcept nogil
