# Regular expressions: libpcre2-8, compiled with JIT, matched under limits.
#
# One thread uses this module (all matches share one block of match data), and nothing
# here runs Python code while it matches.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base.span cimport Str


cdef enum:
    MOST_GROUPS = 20      # group 0 (the whole match) and 1 to 19; more are matched, not told


cdef struct Captures:
    # What the last successful match captured. Offsets count from p; an unset group is
    # 0:0, an empty string. Whoever moves the subject sets p again, nothing else.
    const char* p         # the subject, borrowed
    PyObject* pattern     # the Pattern, borrowed: whose named groups these are; NULL: none yet
    uint32_t n            # groups told, group 0 included; 0: nothing matched yet
    uint32_t off[40]      # start, end of group i at 2*i, 2*i+1


cdef class Pattern:
    cdef void* code
    cdef readonly bytes source
    cdef readonly bint is_caseless
    cdef readonly uint32_t n_groups    # capture groups, group 0 not counted
    cdef readonly tuple names          # ((name, group number), …) by number
    cdef public object owner           # free for the plan: who sets variables from the names


# Number of groups written (group 0 included, at most `most`; 1 when most is 0), 0: no
# match, negative: a fault (PCRE2_ERROR_MATCHLIMIT …), to be answered with 500.
# captures: 2 * most numbers, or NULL.
cdef int match(Pattern p, const char* s, uint32_t n, uint32_t* captures, int most) noexcept

# The same into a Captures, which stays as it was unless the match succeeds.
cdef int match_into(Pattern p, const char* s, uint32_t n, Captures* c) noexcept


cdef inline Str group(const Captures* c, uint32_t i) noexcept nogil:
    """Group i, borrowed from the subject; p is NULL when nothing of that number was told."""
    cdef Str s
    s.p = NULL
    s.n = 0
    if i < c.n:
        s.p = c.p + c.off[2 * i]
        s.n = c.off[2 * i + 1] - c.off[2 * i]
    return s
