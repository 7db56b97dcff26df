"""Frames by RFC 6455 §5, and text by RFC 3629: wrong at the first byte that can be known to be."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    FIN = 0x80
    RSV1 = 0x40
    RSV23 = 0x30
    MASKED = 0x80
    CONTROL = 8               # this bit of an opcode
    CONTROL_MOST = 125        # bytes of a control frame's payload

cdef uint64_t HIGH_BITS = 0x8080808080808080


cdef int read_websocket(Frames* f, const char* p, uint32_t n, uint32_t* used) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint32_t size
    cdef int rc
    if f.state == IN_PAYLOAD:
        size = n if n < f.left else <uint32_t>f.left
        if size:
            rc = check_payload(f, <const uint8_t*>p, size)
            if rc < 0:
                return rc
            f.left -= size
        used[0] = size
        return FRAME_MORE if f.left else end_frame(f)
    if f.state == FRAMES_OVER:
        used[0] = n
        return FRAME_MORE
    while i < n:
        f.head[f.head_n] = <uint8_t>p[i]
        f.head_n += 1
        i += 1
        if f.head_n == 1:
            rc = check_first(f)
        else:
            rc = check_second(f) if f.head_n == 2 else 0
            if rc == 0 and f.head_n == f.head_size - (4 if f.is_masked else 0):
                rc = check_length(f)
        if rc < 0:
            return rc
        if f.head_n > 1 and f.head_n == f.head_size:
            used[0] = i
            return end_head(f)
    used[0] = n
    return FRAME_MORE


cdef int check_first(Frames* f) noexcept nogil:
    """Reserved bits, opcode, and whether such a frame may stand here (RFC 6455 §5.2, §5.4)."""
    cdef uint8_t b = f.head[0]
    f.opcode = b & 15
    f.is_final = b >> 7
    if b & RSV23:
        return FRAME_WRONG
    # RFC 7692 §6: RSV1 on the first frame of a message, nowhere else
    if b & RSV1 and (not f.is_deflate or f.opcode == WS_CONTINUATION or f.opcode & CONTROL):
        return FRAME_WRONG
    if f.opcode & CONTROL:
        return 0 if f.opcode <= WS_PONG and f.is_final else FRAME_WRONG
    if f.opcode > WS_BINARY:
        return FRAME_WRONG
    return 0 if (f.opcode == WS_CONTINUATION) == (f.message_opcode != 0) else FRAME_WRONG


cdef int check_second(Frames* f) noexcept nogil:
    """Masked by clients alone (§5.1); a control frame is short (§5.5). The head's size."""
    cdef uint8_t n = f.head[1] & 127
    if (f.head[1] & MASKED != 0) != f.is_masked:
        return FRAME_WRONG
    if f.opcode & CONTROL and n > CONTROL_MOST:
        return FRAME_WRONG
    f.head_size = 2 + (0 if n < 126 else 2 if n == 126 else 8) + (4 if f.is_masked else 0)
    return 0


cdef int check_length(Frames* f) noexcept nogil:
    """How long is the payload, in the fewest bytes that can say so (§5.2)?"""
    cdef uint32_t i
    f.length = f.head[1] & 127
    if f.length > CONTROL_MOST:
        f.length = 0
        for i in range(2, f.head_n):
            f.length = f.length << 8 | f.head[i]
        if f.length < 126 or f.head_n == 10 and (f.length < 65536 or f.length >> 63):
            return FRAME_WRONG
    return FRAME_WRONG if f.opcode == WS_CLOSE and f.length == 1 else 0


cdef int end_head(Frames* f) noexcept nogil:
    """The head is whole: a message begins or goes on."""
    cdef uint64_t length = f.length
    cdef uint32_t i
    if f.is_masked:
        for i in range(3):
            memcpy(&f.mask[4 * i], &f.head[f.head_n - 4], 4)
    f.left = length
    f.state = IN_PAYLOAD
    f.head_n = f.head_size = 0
    if f.opcode == WS_CLOSE:
        f.close_code = 0 if length else 1005
        f.missing = 0
        return FRAME_HEAD
    if f.opcode & CONTROL:
        return FRAME_HEAD
    if f.opcode != WS_CONTINUATION:
        f.message_opcode = f.opcode
        f.is_text = f.opcode == WS_TEXT and not f.head[0] & RSV1   # else it is compressed
        f.missing = 0
        f.message = 0
    # before it is added: the sum of two lengths may wrap
    if f.most and (length > f.most or f.message > f.most - length):
        return FRAME_TOO_LARGE
    f.message += length
    return FRAME_HEAD


cdef int check_payload(Frames* f, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef uint32_t at
    if not f.opcode & CONTROL:
        return check_text(f, p, n, <uint32_t>(f.length - f.left) & 3) if f.is_text else 0
    if f.opcode != WS_CLOSE:
        return 0
    at = <uint32_t>(f.length - f.left)
    while n and at < 2:
        f.close_code = f.close_code << 8 | (p[0] ^ (f.mask[at] if f.is_masked else 0))
        p += 1
        n -= 1
        at += 1
        if at == 2 and not may_be_sent(f.close_code):
            return FRAME_WRONG
    return check_text(f, p, n, at & 3)


cdef bint may_be_sent(uint16_t code) noexcept nogil:
    """Codes that a Close may carry: RFC 6455 §7.4 and the registry that it began."""
    if code < 3000:
        return 1000 <= code <= 1014 and not 1004 <= code <= 1006
    return code < 5000


cdef int check_text(Frames* f, const uint8_t* p, uint32_t n, uint32_t phase) noexcept nogil:
    """UTF-8 (RFC 3629 §4), on through any cut. phase: which byte of the key the first one has."""
    cdef uint32_t i = 0
    cdef uint64_t word
    cdef uint64_t key = 0
    cdef uint8_t b
    while i < n:
        if f.missing == 0:
            if f.is_masked:
                memcpy(&key, &f.mask[(phase + i) & 3], 8)
            while i + 8 <= n:                    # eight at a time while they are ASCII
                memcpy(&word, p + i, 8)
                if (word ^ key) & HIGH_BITS:
                    break
                i += 8
            if i == n:
                break
        b = p[i]
        if f.is_masked:
            b ^= f.mask[(phase + i) & 3]
        i += 1
        if f.missing:
            if b < f.low or b > f.high:
                return FRAME_NOT_TEXT
            f.missing -= 1
            f.low = 0x80
            f.high = 0xBF
        elif b >= 0x80 and not begin_character(f, b):
            return FRAME_NOT_TEXT
    return 0


cdef inline bint begin_character(Frames* f, uint8_t b) noexcept nogil:
    """The first of several bytes; what may follow, so that nothing is written too long, is a
    surrogate, or lies beyond U+10FFFF."""
    if b < 0xC2 or b > 0xF4:
        return False
    f.missing = 1 if b < 0xE0 else 2 if b < 0xF0 else 3
    f.low = 0xA0 if b == 0xE0 else 0x90 if b == 0xF0 else 0x80
    f.high = 0x9F if b == 0xED else 0x8F if b == 0xF4 else 0xBF
    return True


cdef int end_frame(Frames* f) noexcept nogil:
    f.state = IN_HEAD
    if f.opcode == WS_CLOSE:
        f.state = FRAMES_OVER
        if f.missing:
            return FRAME_NOT_TEXT
    elif not f.opcode & CONTROL and f.is_final:
        f.message_opcode = 0
        if f.is_text and f.missing:
            return FRAME_NOT_TEXT
    return FRAME_END
