# Streams of a connection that are over: how they ended, and what may still come on them.

from libc.stdint cimport uint8_t, uint32_t

from proxy.wire._h2 cimport HEARD_OUT, REMEMBERED, H2Past, H2Unwanted, Http2


cdef enum Past:
    WAS_ENDED = 1             # both sides said all
    WAS_CANCELLED = 2         # by the client
    WAS_REFUSED = 3           # by us: what the client sent before it knew is dropped


cdef inline void remember(Http2* c, uint32_t id, Past how) noexcept nogil:
    cdef H2Past* past = &c.past[c.n_past & (REMEMBERED - 1)]
    past.id = id
    past.how = how
    c.n_past += 1


cdef inline uint8_t how_over(const Http2* c, uint32_t id) noexcept nogil:
    """How a stream ended that is not open any more; 0: it is not known any more."""
    cdef uint32_t i
    for i in range(REMEMBERED):
        if c.past[i].id == id:
            return c.past[i].how
    return 0


cdef inline H2Unwanted* find_unwanted(Http2* c, uint32_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(HEARD_OUT if c.n_unwanted else 0):
        if c.unwanted[i].id == id:
            return &c.unwanted[i]
    return NULL


cdef inline void learn(Http2* c, uint32_t id, Past how) noexcept nogil:
    """The client said itself that a stream of ours that was refused is over."""
    cdef H2Unwanted* u = find_unwanted(c, id)
    cdef uint32_t i
    if u != NULL:
        u.id = 0
    for i in range(REMEMBERED):
        if c.past[i].id == id and c.past[i].how == WAS_REFUSED:
            c.past[i].how = how
