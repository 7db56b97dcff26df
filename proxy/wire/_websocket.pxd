# WebSocket frames on their way through (RFC 6455 §5): checked as they come, never gathered.
#
#     while True:
#         rc = read_websocket(&f, p, n, &used)
#         p += used; n -= used
#         rc == FRAME_HEAD: a head is whole, its frame stands in f (also one without payload);
#         FRAME_END: the frame is over; FRAME_MORE: nothing more to do with these n bytes;
#         < 0: a fault, which is minus the code that closes the connection (RFC 6455 §7.4)
#
# Nobody who reads an opcode here needs the payload: it stays where it is.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum FrameStep:
    FRAME_MORE = 0
    FRAME_HEAD = 1
    FRAME_END = 2


cdef enum FrameFault:
    FRAME_WRONG = -1002       # against the protocol
    FRAME_NOT_TEXT = -1007    # text, or a reason to close, that is no UTF-8
    FRAME_TOO_LARGE = -1009   # a message of more than `most` bytes


cdef enum Opcode:
    WS_CONTINUATION = 0
    WS_TEXT = 1
    WS_BINARY = 2
    WS_CLOSE = 8
    WS_PING = 9
    WS_PONG = 10


cdef enum FrameState:
    IN_HEAD = 0               # between two frames while head_n is 0
    IN_PAYLOAD = 1
    FRAMES_OVER = 2           # behind a Close: what follows means nothing (RFC 6455 §5.5.1)


cdef enum:
    HEAD_MOST = 14            # bytes of a head
    CLOSE_MOST = 8            # bytes that put_close writes
    PING_MOST = 6             # bytes that put_ping writes


cdef struct Frames:           # one direction of one connection
    uint64_t most             # bytes of a message; 0: no bound
    uint64_t message          # payload of the message so far, with all of the frame at hand
    uint64_t length           # payload of the frame at hand
    uint64_t left             # of that, what is still to come
    uint8_t head[14]          # as far as it came
    uint8_t mask[12]          # three times the key: eight bytes from any of its four on
    uint8_t state
    uint8_t head_n
    uint8_t head_size         # known from the second byte on
    uint8_t is_masked         # a client's frames are, an upstream's are not
    uint8_t is_deflate        # permessage-deflate was agreed upon: RSV1 may begin a message
    uint8_t opcode
    uint8_t is_final
    uint8_t message_opcode    # of the message that is not whole yet, 0: none
    uint8_t is_text           # the message at hand is checked for UTF-8
    uint8_t missing           # bytes of a character that did not come yet …
    uint8_t low               # … and the bounds of the next one
    uint8_t high
    uint16_t close_code       # what a Close says; 1005: none


cdef inline void begin_frames(Frames* f, bint is_masked, bint is_deflate,
                              uint64_t most) noexcept nogil:
    f.most = most
    f.message = f.length = f.left = 0
    f.state = IN_HEAD
    f.head_n = f.head_size = 0
    f.is_masked = is_masked
    f.is_deflate = is_deflate
    f.opcode = f.message_opcode = f.is_final = f.is_text = f.missing = 0
    f.low = 0x80
    f.high = 0xBF
    f.close_code = 0


# One step of the loop above; n may be 0.
cdef int read_websocket(Frames* f, const char* p, uint32_t n, uint32_t* used) noexcept nogil


cdef inline uint32_t put_control(char* out, uint8_t opcode, uint32_t n, bint is_masked,
                                 uint32_t key) noexcept nogil:
    """The head of a control frame with n bytes of payload: 2 or 6 bytes."""
    cdef uint32_t i
    out[0] = <char>(0x80 | opcode)
    out[1] = <char>(n | (0x80 if is_masked else 0))
    if not is_masked:
        return 2
    for i in range(4):
        out[2 + i] = <char>(key >> (8 * i))
    return 6


cdef inline uint32_t put_close(char* out, uint16_t code, bint is_masked,
                               uint32_t key) noexcept nogil:
    """A Close without words; towards an upstream it is masked with `key`, drawn at random."""
    cdef uint32_t at = put_control(out, WS_CLOSE, 2, is_masked, key)
    out[at] = <char>(code >> 8)
    out[at + 1] = <char>code
    if is_masked:
        out[at] ^= out[2]
        out[at + 1] ^= out[3]
    return at + 2


cdef inline uint32_t put_ping(char* out) noexcept nogil:
    """A Ping for a client."""
    return put_control(out, WS_PING, 0, False, 0)
