# Frames on their way out: what the owner of a connection of HTTP/2 writes, and `_h2` itself.

from libc.stdint cimport uint8_t, uint32_t

from proxy.wire._h2 cimport UPDATES_FOR_FRAME, H2Code, H2State, Http2
from proxy.wire._h2frame cimport Kind


cdef enum:
    IS_BROKEN = 3             # Http2.state: nothing more is read, or written
    MOST_UPDATES = 16384      # that may be saved up


cdef bint make_room(Http2* c, size_t n) noexcept nogil
# A frame with room for its payload, which the caller writes; NULL: no memory.
cdef char* put_frame(Http2* c, uint32_t n, Kind kind, uint8_t flags, uint32_t id) noexcept nogil
cdef void put_number(Http2* c, Kind kind, uint32_t id, uint32_t value) noexcept nogil

# Room for a header block of up to n bytes behind a frame head, then the block as frames; the
# first one asks for 1 byte more (is_resized). NULL: no memory.
cdef char* begin_headers(Http2* c, size_t n) noexcept nogil
cdef int end_headers(Http2* c, H2State* s, size_t n, bint is_end) noexcept nogil

# As many bytes as windows allow, in frames of up to `frame` bytes. How many; -1: no memory.
cdef Py_ssize_t put_data(
    Http2* c, H2State* s, const char* p, size_t n, uint32_t frame
) noexcept nogil
cdef int end_stream(Http2* c, H2State* s) noexcept nogil
cdef void go_away(Http2* c, uint32_t last_id, H2Code code) noexcept nogil


cdef inline void forget_out(Http2* c) noexcept nogil:
    """All of `out` is on its way."""
    c.out_n = 0
    c.tail_id = 0


cdef inline void expect_updates(Http2* c) noexcept nogil:
    """What was sent, or is asked for, may be answered by WINDOW_UPDATEs."""
    if c.n_updates < MOST_UPDATES:
        c.n_updates += UPDATES_FOR_FRAME
