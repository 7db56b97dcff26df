# Chunked bodies (RFC 9112 §7.1): a decoder fed in any split, and the prefix of a chunk.
#
#     while n and not is_over:
#         rc = read_chunked(&c, p, n, &used, &piece)
#         p += used; n -= used
#         rc == CHUNK_PIECE: piece is payload, in place; CHUNK_END: the body is over, what
#         is left behind p belongs to the next message; CHUNK_MORE: all n bytes are used;
#         < 0: BAD_CHUNK (an upstream's: say UPSTREAM_BAD_CHUNK) or HEAD_TOO_LARGE, close.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base.span cimport Str


cdef enum ChunkStep:
    CHUNK_MORE = 0
    CHUNK_PIECE = 1
    CHUNK_END = 2


cdef struct Chunked:
    uint64_t left          # bytes of the current chunk that are still to come
    char* trailer          # room for the trailer section, or NULL: checked, then dropped
    uint32_t trailer_cap   # a longer trailer section is refused (HEAD_TOO_LARGE)
    uint32_t trailer_n     # bytes captured; for read_trailers of _h1 when not 0
    uint32_t extension_n   # bytes of extensions seen in the whole body
    uint8_t state
    uint8_t digits         # of the chunk size seen so far


cdef inline void begin_chunked(Chunked* c, char* trailer, uint32_t trailer_cap) noexcept nogil:
    """Make a decoder ready; without room (NULL) trailers of up to trailer_cap bytes pass."""
    c.left = 0
    c.trailer = trailer
    c.trailer_cap = trailer_cap
    c.trailer_n = 0
    c.extension_n = 0
    c.state = 0
    c.digits = 0


# One step of the loop above; n may be 0 (CHUNK_MORE, or CHUNK_END again after the end).
cdef int read_chunked(
    Chunked* c, const char* p, uint32_t n, uint32_t* used, Str* piece
) noexcept nogil


cdef inline uint32_t chunk_prefix(char* out, uint64_t size) noexcept nogil:
    """Write the size line of a chunk (at most 18 bytes); its data and CRLF are the caller's.

    A size of 0 begins the end of a body: the trailer section or a CRLF follows.
    """
    cdef uint32_t n = 1, i
    cdef uint64_t rest = size >> 4
    cdef uint8_t digit
    while rest:
        n += 1
        rest >>= 4
    i = n
    while i:
        i -= 1
        digit = size & 15
        out[i] = <char>(digit + (48 if digit < 10 else 87))
        size >>= 4
    out[n] = b"\r"
    out[n + 1] = b"\n"
    return n + 2
