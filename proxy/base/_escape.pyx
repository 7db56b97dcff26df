# Escaping in URIs: which bytes each place needs percent-encoded, and back (RFC 3986 §2.1).
#
# Called by whoever writes a URI. Nothing here allocates; a place is a bit in one table.

from libc.stdint cimport uint8_t, uint32_t


cdef uint8_t[256] MUST           # bit `Escape`: this byte is escaped
cdef const char* DIGITS = b"0123456789ABCDEF"


cdef void fill_tables():
    cdef int c, kind
    never = b' "<>\\^`{|}'
    more = (b"#%?", b"#%?&+;", b"", b"#%'", b"'")
    for c in range(256):
        is_odd = c <= 0x20 or c >= 0x7F or c in never
        HEX[c] = 255
        for kind in range(5):
            if is_odd or c in more[kind]:
                MUST[c] |= 1 << kind
        if not (c < 128 and chr(c).isalnum()) and c not in b"-._~":
            MUST[c] |= 1 << ESCAPE_COMPONENT
    for c in range(10):
        HEX[48 + c] = c
    for c in range(6):
        HEX[65 + c] = HEX[97 + c] = 10 + c


fill_tables()


cdef uint32_t escaped_size(const char* s, uint32_t n, int kind) noexcept:
    cdef uint32_t size = n
    cdef uint32_t i
    for i in range(n):
        size += 2 * (MUST[<uint8_t>s[i]] >> kind & 1)
    return size


cdef uint32_t escape_uri(char* out, const char* s, uint32_t n, int kind) noexcept:
    cdef uint32_t u = 0
    cdef uint32_t i
    cdef uint8_t c
    for i in range(n):
        c = <uint8_t>s[i]
        if not MUST[c] >> kind & 1:
            out[u] = <char>c
            u += 1
            continue
        out[u] = 37
        out[u + 1] = DIGITS[c >> 4]
        out[u + 2] = DIGITS[c & 15]
        u += 3
    return u


cdef uint32_t unescape_uri(
    char* out, const char* s, uint32_t n, int kind, uint32_t* used
) noexcept:
    # A "%" that no two hex digits follow vanishes: with the digit behind it, if there is
    # one, as in nginx. So the result is never longer than s.
    cdef uint32_t u = 0
    cdef uint32_t i = 0
    cdef uint8_t c, d, first
    while i < n:
        c = <uint8_t>s[i]
        i += 1
        if c == 37:
            if i == n:
                break
            first = <uint8_t>s[i]
            i += 1
            if HEX[first] == 255:
                out[u] = <char>first
                u += 1
                continue
            if i == n:
                break
            d = <uint8_t>s[i]
            i += 1
            if HEX[d] == 255:
                continue
            c = <uint8_t>(HEX[first] << 4 | HEX[d])
            if kind == UNESCAPE_REDIRECT and (c <= 37 or c >= 0x7F):
                out[u] = 37
                out[u + 1] = <char>first
                out[u + 2] = <char>d
                u += 3
                continue
        out[u] = <char>c
        u += 1
        if c == 63 and kind != UNESCAPE_ALL:
            break
    if used != NULL:
        used[0] = i
    return u


def escape(bytes s not None, str kind="uri"):
    """Percent-encode; kind: uri, args, component, html or refresh."""
    cdef int k = ("uri", "args", "component", "html", "refresh").index(kind)
    cdef bytearray room = bytearray(escaped_size(<const char*>s, <uint32_t>len(s), k) + 1)
    cdef char* out = room
    return out[:escape_uri(out, <const char*>s, <uint32_t>len(s), k)]


def unescape(bytes s not None, str kind="all"):
    """Percent-decode; kind: all, uri (stops behind "?") or redirect (decodes only plain ASCII)."""
    cdef int k = ("all", "uri", "redirect").index(kind)
    cdef bytearray room = bytearray(len(s) + 1)
    cdef char* out = room
    return out[:unescape_uri(out, <const char*>s, <uint32_t>len(s), k, NULL)]
