# What one location says of WebSockets that pass through it (websocket_…), frozen for the fast path.

from cython cimport final
from libc.stdint cimport uint32_t, uint64_t

from proxy.base.head cimport Head


cdef enum:
    N_CLOSE_CODES = 18        # 1000 … 1015, 3xxx, 4xxx


@final
cdef class WebSocketSettings:
    cdef public uint64_t most_bytes       # of a client's message, 0: no bound
    cdef public uint32_t rate             # a client's frames, 1/1000 a second, 0: no bound
    cdef public uint32_t burst            # 1/1000 frames
    cdef public uint32_t ping_ms          # a client's silence before it is asked, 0: never
    # numbers of plain counters, given when the first one is opened; 0: nothing is counted
    cdef public uint32_t open_counter
    cdef public uint32_t[2] message_counters   # from clients, from upstreams
    cdef public uint32_t[2] byte_counters
    cdef public dict close_labels
    cdef uint32_t[18] close_counters      # by close_number, 0: did not happen yet

cdef struct Tokens:           # what a client may still send at once
    uint64_t at_ms
    uint32_t excess           # 1/1000 frames


# May one more frame come? It costs a token then.
cdef bint take_token(WebSocketSettings s, Tokens* t, uint64_t now_ms) noexcept
# Did the upstream's head switch to WebSocket (RFC 6455 §4.2.2)?
cdef bint is_websocket(Head* answer) noexcept
# Was permessage-deflate agreed upon (RFC 7692 §5)?
cdef bint is_deflate(Head* answer) noexcept


cdef inline int close_number(uint32_t code) noexcept nogil:
    """Which counter a code of a Close has."""
    if 1000 <= code <= 1015:
        return code - 1000
    return 16 if code < 4000 else 17
