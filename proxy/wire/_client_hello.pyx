# Reads a ClientHello out of its records (RFC 8446 §4.1.2, §5.1; RFC 6066 §3; RFC 7301 §3.1).
#
# It may come in any pieces and lie in several records. Nothing of it is trusted: each length is
# held against what contains it, and a message that contradicts itself is none.

from libc.string cimport memcpy, memset

cdef enum:
    HANDSHAKE = 22                # ContentType
    CLIENT_HELLO = 1              # HandshakeType
    SERVER_NAME = 0               # ExtensionType
    ALPN = 16
    SUPPORTED_VERSIONS = 43
    HOST_NAME = 0                 # NameType

cdef uint8_t[64 * 1024] joined    # the handshake without its records


cdef struct Span:
    const uint8_t* p
    uint32_t n


cdef int read_client_hello(const char* p, uint32_t n, ClientHello* out) noexcept:
    cdef const uint8_t* at = <const uint8_t*>p
    cdef const uint8_t* end = at + n
    cdef uint32_t have = 0
    cdef uint32_t want = 4
    cdef uint32_t size
    cdef uint32_t there
    memset(out, 0, sizeof(ClientHello))
    if n and at[0] & 0x80:
        return read_old(at, n, out)
    while at < end:
        there = <uint32_t>(end - at)
        if at[0] != HANDSHAKE or (there > 1 and at[1] != 3):
            return HELLO_NONE
        if there < 5:
            return HELLO_MORE
        size = <uint32_t>at[3] << 8 | at[4]
        if size == 0:                            # RFC 8446 §5.1: no empty fragments
            return HELLO_NONE
        at += 5
        there = <uint32_t>(end - at)
        if size < there:
            there = size
        if there > HELLO_MAX - have:
            return HELLO_NONE
        memcpy(joined + have, at, there)
        have += there
        at += there
        if have and joined[0] != CLIENT_HELLO:
            return HELLO_NONE
        if have >= 4:
            want = 4 + (<uint32_t>joined[1] << 16 | <uint32_t>joined[2] << 8 | joined[3])
            if want > HELLO_MAX:
                return HELLO_NONE
            if have >= want:
                return read_message(joined + 4, want - 4, out)
        if there < size:
            return HELLO_MORE
    return HELLO_MORE


cdef int read_old(const uint8_t* p, uint32_t n, ClientHello* out) noexcept:
    """A hello of SSL 2 that may offer more (RFC 5246 §E.2)."""
    if n > 2 and p[2] != CLIENT_HELLO or n > 3 and p[3] != 0 and p[3] != 3:
        return HELLO_NONE
    if n < 5:
        return HELLO_MORE
    out.major = p[3]
    out.minor = p[4]
    return HELLO_READ


cdef bint take(Span* s, uint32_t length_bytes, Span* out) noexcept:
    """A vector of `s` with its length before it."""
    cdef uint32_t size = 0
    cdef uint32_t i
    if s.n < length_bytes:
        return False
    for i in range(length_bytes):
        size = size << 8 | s.p[i]
    if size > s.n - length_bytes:
        return False
    out.p = s.p + length_bytes
    out.n = size
    s.p = out.p + size
    s.n -= length_bytes + size
    return True


cdef int read_message(const uint8_t* p, uint32_t n, ClientHello* out) noexcept:
    cdef Span s
    cdef Span vector
    cdef Span all_of_them
    cdef uint32_t kind
    if n < 34:
        return HELLO_NONE
    out.major = p[0]
    out.minor = p[1]
    s.p = p + 34                                 # legacy_version, random
    s.n = n - 34
    if not take(&s, 1, &vector) or not take(&s, 2, &vector) or not take(&s, 1, &vector):
        return HELLO_NONE                        # session id, cipher suites, compression
    if s.n == 0:                                 # before TLS 1.3 extensions may be missing
        return HELLO_READ
    if not take(&s, 2, &all_of_them) or s.n:
        return HELLO_NONE
    while all_of_them.n:
        if all_of_them.n < 4:
            return HELLO_NONE
        kind = <uint32_t>all_of_them.p[0] << 8 | all_of_them.p[1]
        all_of_them.p += 2
        all_of_them.n -= 2
        if not take(&all_of_them, 2, &vector):   # cut short: what is there is read, as in nginx
            vector.p = all_of_them.p + 2
            vector.n = all_of_them.n - 2
            all_of_them.n = 0
        if kind == SERVER_NAME:
            if not read_name(vector, out):
                return HELLO_NONE
        elif kind == ALPN:
            if not read_alpn(vector, out):
                return HELLO_NONE
        elif kind == SUPPORTED_VERSIONS and not read_versions(vector, out):
            return HELLO_NONE
    return HELLO_READ


cdef bint is_printable(Span s) noexcept:
    cdef uint32_t i
    for i in range(s.n):
        if s.p[i] <= 32 or s.p[i] >= 127:
            return False
    return True


cdef bint read_name(Span s, ClientHello* out) noexcept:
    """RFC 6066 §3: the first host_name. What cannot be a name is taken for none."""
    cdef Span names
    cdef Span name
    cdef uint32_t kind
    if s.n == 0:
        return True
    if not take(&s, 2, &names) or s.n:
        return False
    while names.n:
        kind = names.p[0]
        names.p += 1
        names.n -= 1
        if not take(&names, 2, &name):
            return False
        if kind == HOST_NAME and out.name_n == 0 and 0 < name.n <= NAME_MAX and is_printable(name):
            memcpy(out.name, name.p, name.n)
            out.name_n = <uint8_t>name.n
    return True


cdef bint read_alpn(Span s, ClientHello* out) noexcept:
    cdef Span names
    cdef Span name
    cdef uint32_t at = 0
    if not take(&s, 2, &names) or s.n:
        return False
    while names.n:
        if not take(&names, 1, &name) or name.n == 0:
            return False
        if not is_printable(name):               # GREASE (RFC 8701)
            continue
        if at + name.n + 1 > ALPN_MAX:
            break
        if at:
            out.alpn[at] = c","
            at += 1
        memcpy(out.alpn + at, name.p, name.n)
        at += name.n
    out.alpn_n = <uint16_t>at
    return True


cdef bint read_versions(Span s, ClientHello* out) noexcept:
    """RFC 8446 §4.2.1: what stands here counts, not legacy_version; GREASE is passed over."""
    cdef Span versions
    if not take(&s, 1, &versions) or s.n or versions.n & 1:
        return False
    while versions.n:
        if versions.p[0] == 3 and versions.p[1] > out.minor and versions.p[1] < 0x10:
            out.minor = versions.p[1]
        elif versions.p[0] == 0x7F and out.minor < 4:        # a draft of TLS 1.3
            out.minor = 4
        versions.p += 2
        versions.n -= 2
    return True


def read(bytes data not None):
    """(verdict, name, alpn, version) of the bytes so far; verdict 0: more, 1: read, -1: none."""
    cdef ClientHello h
    cdef int verdict = read_client_hello(data, <uint32_t>len(data), &h)
    if verdict != HELLO_READ:
        return verdict, b"", b"", (0, 0)
    return verdict, h.name[:h.name_n], h.alpn[:h.alpn_n], (h.major, h.minor)
