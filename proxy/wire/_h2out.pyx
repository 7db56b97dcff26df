"""Writes frames of HTTP/2 into a connection's `out`: what windows and the peer's frames allow."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove

from proxy.wire._h2 cimport *
from proxy.wire._h2frame cimport *
from proxy.wire._h2past cimport *

cdef enum:
    FIRST_OUT = 1024          # bytes of `out` to begin with
    MAX_OUT = 8 << 20         # far above what the owner lets wait: a bound for all the same


cdef bint make_room(Http2* c, size_t n) noexcept nogil:
    cdef size_t cap = c.out_cap if c.out_cap else FIRST_OUT
    cdef char* larger
    if c.out_n + n <= c.out_cap:
        return True
    while cap < c.out_n + n:
        cap *= 2
    if cap > MAX_OUT:
        return False
    larger = <char*>realloc(c.out, cap)
    if larger == NULL:
        return False
    c.out = larger
    c.out_cap = cap
    return True


cdef char* put_frame(Http2* c, uint32_t n, Kind kind, uint8_t flags, uint32_t id) noexcept nogil:
    cdef char* at
    if not make_room(c, FRAME_HEAD + n):
        c.state = IS_BROKEN
        return NULL
    at = c.out + c.out_n
    put_head(at, n, kind, flags, id)
    c.out_n += FRAME_HEAD + n
    c.tail_id = 0
    return at + FRAME_HEAD


cdef void put_number(Http2* c, Kind kind, uint32_t id, uint32_t value) noexcept nogil:
    cdef char* at = put_frame(c, 4, kind, 0, id)
    if at != NULL:
        put_u32(at, value)


cdef void go_away(Http2* c, uint32_t last_id, H2Code code) noexcept nogil:
    cdef char* at = put_frame(c, 8, GOAWAY, 0, 0)
    c.last_taken = last_id
    if at != NULL:
        put_u32(at, last_id)
        put_u32(at + 4, code)


cdef char* begin_headers(Http2* c, size_t n) noexcept nogil:
    # a frame head for each piece of the block, one more byte for the size update
    if not make_room(c, n + 1 + (n // FRAME_BYTES + 2) * FRAME_HEAD):
        return NULL
    c.tail_at = c.out_n
    if c.is_resized:
        return c.out + c.out_n + FRAME_HEAD
    c.out[c.out_n + FRAME_HEAD] = 0x20           # RFC 7541 §6.3: size 0
    return c.out + c.out_n + FRAME_HEAD + 1


cdef int end_headers(Http2* c, H2State* s, size_t n, bint is_end) noexcept nogil:
    cdef char* at = c.out + c.out_n
    cdef uint8_t flags = END_STREAM if is_end else 0
    cdef size_t rest
    if not c.is_resized:
        c.is_resized = True
        n += 1
    if n <= c.peer_frame:
        put_head(at, <uint32_t>n, HEADERS, flags | END_HEADERS, s.id)
        c.out_n += FRAME_HEAD + n
    else:
        put_head(at, c.peer_frame, HEADERS, flags, s.id)
        at += FRAME_HEAD + c.peer_frame
        rest = n - c.peer_frame
        while rest:
            memmove(at + FRAME_HEAD, at, rest)
            n = rest if rest < c.peer_frame else c.peer_frame
            rest -= n
            put_head(at, <uint32_t>n, CONTINUATION, 0 if rest else END_HEADERS, s.id)
            at += FRAME_HEAD + n
        c.out_n = at - c.out
    c.tail_id = s.id
    if is_end:
        said_all(c, s)
    return 0


cdef inline void said_all(Http2* c, H2State* s) noexcept nogil:
    s.is_answered = True
    if s.is_wrong:
        put_number(c, RST_STREAM, s.id, H2_PROTOCOL_ERROR)
        close_stream(c, s, WAS_REFUSED)
    elif s.is_ended:
        close_stream(c, s, WAS_ENDED)


cdef Py_ssize_t put_data(
    Http2* c, H2State* s, const char* p, size_t n, uint32_t frame
) noexcept nogil:
    cdef size_t done = 0
    cdef int64_t size
    cdef int64_t have
    if frame > c.peer_frame:
        frame = c.peer_frame
    while done < n:
        have = 0
        if c.tail_id == s.id and c.out[c.tail_at + 3] == DATA:
            # pieces (a message's head, the message) become one frame while it waits here
            have = <int64_t>(c.out_n - c.tail_at) - FRAME_HEAD
            if have >= frame:
                have = 0
        size = s.send_window if s.send_window < c.send_window else c.send_window
        if size <= 0:
            break
        if size > frame - have:
            size = frame - have
        if size > <int64_t>(n - done):
            size = <int64_t>(n - done)
        if have:
            if not make_room(c, <size_t>size):
                return -1
            c.out_n += <size_t>size
            put_head(c.out + c.tail_at, <uint32_t>(have + size), DATA, 0, s.id)
        elif put_frame(c, <uint32_t>size, DATA, 0, s.id) == NULL:
            return -1
        else:
            c.tail_id = s.id
            c.tail_at = c.out_n - FRAME_HEAD - <size_t>size
            expect_updates(c)
        memcpy(c.out + c.out_n - size, p + done, <size_t>size)
        s.send_window -= size
        c.send_window -= size
        done += <size_t>size
    return <Py_ssize_t>done


cdef int end_stream(Http2* c, H2State* s) noexcept nogil:
    """END_STREAM, on the stream's last frame if that still waits here. 0, or -1: no memory."""
    if c.tail_id == s.id:
        c.out[c.tail_at + 4] |= END_STREAM
    elif put_frame(c, 0, DATA, END_STREAM, s.id) == NULL:
        return -1
    said_all(c, s)
    return 0
