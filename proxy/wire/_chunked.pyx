"""Chunked bodies: strict where a lenient reader and its neighbour could disagree.

A size is 1 to 16 hex digits and nothing else; every line ends in CRLF; extensions are
checked, bounded over the whole body and dropped; the trailer section is checked like a
head and captured whole. Payload is handed out in place.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base.span cimport Str, text
from proxy.base.verdict cimport BAD_CHUNK, HEAD_TOO_LARGE
from proxy.wire._scan cimport IS_NAME, class_of

cdef enum:
    MAX_EXTENSION_BYTES = 4096  # of one body: many tiny chunks with long extensions

cdef enum State:
    SIZE = 0           # hex digits
    EXT_SPACE          # white space that only ";" may follow
    EXT_NAME_START     # after ";"
    EXT_NAME
    EXT_NAME_SPACE     # white space that only "=" or ";" may follow
    EXT_VALUE_START    # after "="
    EXT_VALUE
    EXT_QUOTED
    EXT_QUOTED_PAIR
    EXT_AFTER_QUOTED   # only ";", white space or CR
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    LINE_START         # of a trailer line
    NAME
    VALUE
    VALUE_LF
    LAST_LF
    OVER


cdef inline int hex_value(uint8_t c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    c |= 0x20
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef inline bint is_text(uint8_t c) noexcept nogil:
    return (c >= 0x20 and c != 0x7f) or c == 9


cdef int read_chunked(
    Chunked* c, const char* p, uint32_t n, uint32_t* used, Str* piece
) noexcept nogil:
    cdef uint32_t i = 0, size
    cdef uint8_t b
    cdef int digit
    cdef uint8_t state = c.state
    piece.p = NULL
    piece.n = 0
    while i < n:
        if state == DATA:
            size = n - i if n - i < c.left else <uint32_t>c.left
            piece[0] = text(p + i, size)
            c.left -= size
            c.state = DATA_CR if c.left == 0 else DATA
            used[0] = i + size
            return CHUNK_PIECE
        if state == OVER:
            break
        b = <uint8_t>p[i]
        i += 1
        if state == SIZE:
            digit = hex_value(b)
            if digit >= 0:
                c.digits += 1
                if c.digits > 16 or c.left >> 59:  # more than 63 bits
                    return BAD_CHUNK
                c.left = c.left << 4 | <uint64_t>digit
                continue
            if c.digits == 0:
                return BAD_CHUNK
            state = after_size(b, EXT_SPACE)
        elif state == DATA_CR:
            state = DATA_LF if b == 13 else OVER + 1
        elif state == DATA_LF:
            state = SIZE if b == 10 else OVER + 1
            c.digits = 0
        elif state == SIZE_LF:
            if b != 10:
                return BAD_CHUNK
            state = DATA if c.left else LINE_START
        elif state >= LINE_START:
            c.trailer_n += 1
            if c.trailer_n > c.trailer_cap and not (
                    c.trailer_n <= 2 and (b == 13 or b == 10)):
                return HEAD_TOO_LARGE
            if c.trailer != NULL and c.trailer_n <= c.trailer_cap:
                c.trailer[c.trailer_n - 1] = <char>b
            if state == LINE_START:
                state = LAST_LF if b == 13 else NAME if class_of(<char>b) & IS_NAME else OVER + 1
            elif state == NAME:
                if b == 58:
                    state = VALUE
                elif not class_of(<char>b) & IS_NAME:
                    return BAD_CHUNK
            elif state == VALUE:
                if b == 13:
                    state = VALUE_LF
                elif not is_text(b):
                    return BAD_CHUNK
            elif state == VALUE_LF:
                state = LINE_START if b == 10 else OVER + 1
            elif b == 10:  # LAST_LF
                if c.trailer_n == 2:
                    c.trailer_n = 0  # nothing but the empty line
                state = OVER
            else:
                return BAD_CHUNK
        else:
            c.extension_n += 1
            if c.extension_n > MAX_EXTENSION_BYTES:
                return BAD_CHUNK
            state = after_extension(state, b)
        if state > OVER:
            return BAD_CHUNK
    c.state = state
    used[0] = i
    return CHUNK_END if state == OVER else CHUNK_MORE


cdef inline uint8_t after_size(uint8_t b, uint8_t space) noexcept nogil:
    """What may stand behind a chunk size, an extension name or value."""
    if b == 13:
        return SIZE_LF
    if b == 59:
        return EXT_NAME_START
    if b == 32 or b == 9:
        return space
    return OVER + 1


cdef uint8_t after_extension(uint8_t state, uint8_t b) noexcept nogil:
    """One byte of `*( BWS ";" BWS name [ BWS "=" BWS value ] )` (RFC 9112 §7.1.1)."""
    cdef bint is_space = b == 32 or b == 9
    cdef bint is_name = class_of(<char>b) & IS_NAME != 0
    if state == EXT_SPACE:
        return EXT_NAME_START if b == 59 else EXT_SPACE if is_space else OVER + 1
    if state == EXT_NAME_START:
        return EXT_NAME if is_name else EXT_NAME_START if is_space else OVER + 1
    if state == EXT_NAME:
        if is_name:
            return EXT_NAME
        if b == 61:
            return EXT_VALUE_START
        return after_size(b, EXT_NAME_SPACE)
    if state == EXT_NAME_SPACE:
        if b == 61:
            return EXT_VALUE_START
        return EXT_NAME_START if b == 59 else EXT_NAME_SPACE if is_space else OVER + 1
    if state == EXT_VALUE_START:
        if b == 34:
            return EXT_QUOTED
        return EXT_VALUE if is_name else EXT_VALUE_START if is_space else OVER + 1
    if state == EXT_VALUE:
        return EXT_VALUE if is_name else after_size(b, EXT_SPACE)
    if state == EXT_QUOTED:
        if b == 34:
            return EXT_AFTER_QUOTED
        if b == 92:
            return EXT_QUOTED_PAIR
        return EXT_QUOTED if is_text(b) else OVER + 1
    if state == EXT_QUOTED_PAIR:
        return EXT_QUOTED if is_text(b) else OVER + 1
    return after_size(b, EXT_SPACE)  # EXT_AFTER_QUOTED
