# Header blocks of HTTP/2 to and from what the stages know: a Head, and a Request's answer.
#
# Everything that RFC 9113 §8.2 and §8.3 ask of a request is asked here, so that nothing is left
# that could mean something else in HTTP/1.1: what is malformed ends its stream.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from proxy.base._request cimport Request
from proxy.base.head cimport Field, Head
from proxy.base.span cimport Str
from proxy.wire._h1 cimport Limits
from proxy.wire._hpack cimport TABLE_BYTES, HpackTable


cdef enum BlockResult:
    BLOCK_GOOD = 0
    BLOCK_WRONG = 1           # no HPACK: the connection ends (COMPRESSION_ERROR)
    BLOCK_MALFORMED = 2       # its stream ends (PROTOCOL_ERROR, RFC 9113 §8.1.1)
    BLOCK_NO_CONNECT = 4      # malformed: a CONNECT as RFC 9113 §8.5 does not know it
    BLOCK_CUT = 3             # it ends within an integer: FRAME_SIZE_ERROR, as nginx says
    # < 0: a FaultCode, which is answered

cdef enum:
    # of Head.flags: a value has a control byte that is none of CR, LF and NUL. RFC 9113 §8.2.1
    # lets it in, as nginx does; but no HTTP/1.1 would say it, so it is passed to nobody
    H_HAS_CONTROLS = 1 << 30
    URGENCY = 3               # where nobody says another (RFC 9218 §4.1)
    URGENCY_LEAST = 7
    KEY_BYTES = 24            # of a Sec-WebSocket-Key


cdef struct HeadRoom:         # where heads are read to: the worker's, one for all connections
    char* bytes
    size_t n                  # room_for(lim.max_head, the longest block) or more
    Field* fields
    uint16_t cap_fields
    uint8_t urgency           # of the request that was read last
    uint8_t is_incremental    # … and whether its pieces are of use before it is whole
    uint8_t is_connect        # it was an extended CONNECT (RFC 8441), now an upgrade …
    uint32_t key              # … whose Sec-WebSocket-Key is written there, KEY_BYTES of it
    Head* head
    Limits lim


cdef inline size_t room_for(size_t max_head, size_t block_n) noexcept nogil:
    """Fields, cookies joined behind them, the request line; and one field that is too long."""
    return 4 * max_head + block_n * 8 // 5 + TABLE_BYTES + 192


# The block of a request: room.head says it as if HTTP/1.1 had carried it, but in version 20. An
# extended CONNECT for a WebSocket is the GET that would ask for the upgrade; its key is not made.
cdef int read_request_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room
) noexcept nogil

# The block of an answer, or of the trailer section behind one: room.head says it as if HTTP/1.1
# had carried it, but in version 20.
cdef int read_answer_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room, bint is_trailer
) noexcept nogil

# A block that is read only so that the table stays right, or a trailer section, which must have
# no pseudo-field. What it says is dropped.
cdef int skip_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room, bint is_trailer
) noexcept nogil

# u= of a priority field (RFC 9218 §4): the urgency, or `otherwise`.
cdef uint8_t read_urgency(const char* p, uint32_t n, uint8_t otherwise) noexcept nogil
# i of the same.
cdef bint read_incremental(const char* p, uint32_t n) noexcept nogil

# The block of r's answer, and of its trailers; as much room is needed as is said.
cdef size_t room_for_answer(Request r) noexcept
cdef int write_answer_block(Request r, char* out) noexcept
cdef size_t room_for_hints(Request r) noexcept
cdef int write_hint_block(Request r, char* out) noexcept    # 103, of r.answer; 0: it has nothing
cdef size_t room_for_trailers(Request r) noexcept
cdef int write_trailer_block(Request r, char* out) noexcept

# A value that variables made, without what ends a line or blanks at its ends (RFC 9113 §8.2.1).
cdef Str cleaned(Request r, Str value) noexcept
