# What frames of HTTP/2 are made of: the numbers of RFC 9113 §6, and a frame's head in bytes.

from libc.stdint cimport uint8_t, uint32_t


cdef enum Kind:               # §6
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    PRIORITY_UPDATE = 16      # RFC 9218 §7.1

cdef enum Flag:
    END_STREAM = 1
    IS_ACK = 1
    END_HEADERS = 4
    IS_PADDED = 8
    HAS_PRIORITY = 32

cdef enum Setting:
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441 §3
    NO_RFC7540_PRIORITIES = 9  # RFC 9218 §2.1


cdef inline bint may_be_wide(uint8_t kind) noexcept nogil:
    """Only bodies and heads come in frames that are wider than all must take (§4.2): of those with
    a size of their own, and of unknown ones, none is held."""
    return kind == DATA or kind == HEADERS or kind == CONTINUATION


cdef inline void put_u32(char* out, uint32_t value) noexcept nogil:
    out[0] = <char>(value >> 24)
    out[1] = <char>(value >> 16)
    out[2] = <char>(value >> 8)
    out[3] = <char>value


cdef inline void put_setting(char** at, Setting name, uint32_t value) noexcept nogil:
    at[0][0] = 0
    at[0][1] = <char>name
    put_u32(at[0] + 2, value)
    at[0] += 6


cdef inline uint32_t u32(const char* p) noexcept nogil:
    return (<uint32_t><uint8_t>p[0] << 24 | <uint32_t><uint8_t>p[1] << 16
            | <uint32_t><uint8_t>p[2] << 8 | <uint8_t>p[3])


cdef inline void put_head(
    char* out, uint32_t n, Kind kind, uint8_t flags, uint32_t id
) noexcept nogil:
    out[0] = <char>(n >> 16)
    out[1] = <char>(n >> 8)
    out[2] = <char>n
    out[3] = <char>kind
    out[4] = <char>flags
    put_u32(out + 5, id)
