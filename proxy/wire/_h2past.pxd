# Streams of a connection that are over: how they ended, and what may still come on them.

from libc.stdint cimport uint8_t, uint32_t

from proxy.wire._h2 cimport (
    BUCKETS, FRAME_HEAD, HEARD_OUT, REMEMBERED, H2Past, H2State, H2Unwanted, Http2,
)
from proxy.wire._h2frame cimport RST_STREAM, u32


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


cdef inline bint is_taken_back(const char* p, uint32_t n, uint32_t id) noexcept nogil:
    """Behind the end of its answer a server resets the stream, and means more than that nobody
    needs the rest of the request (RFC 9113 §8.1): by its code, or twice (§5.1)."""
    cdef uint32_t resets = 0
    while n >= FRAME_HEAD + 4 and p[3] == RST_STREAM and u32(p + 5) == id and (
            p[0] == 0 and p[1] == 0 and p[2] == 4):
        resets += 1
        if resets > 1 or u32(p + FRAME_HEAD):
            return True
        p += FRAME_HEAD + 4
        n -= FRAME_HEAD + 4
    return False


cdef inline H2State* find(Http2* c, uint32_t id) noexcept nogil:
    cdef H2State* s = c.buckets[id >> 1 & (BUCKETS - 1)]
    while s != NULL and s.id != id:
        s = s.next
    return s


cdef inline void close_stream(Http2* c, H2State* s, Past how) noexcept nogil:
    cdef H2State** at = &c.buckets[s.id >> 1 & (BUCKETS - 1)]
    while at[0] != NULL and at[0] != s:
        at = &at[0].next
    if at[0] == NULL:
        return
    at[0] = s.next
    c.n_open -= 1
    if c.data_of == s:
        c.data_of = NULL
    remember(c, s.id, how)
    s.id = 0
