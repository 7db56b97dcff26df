# Reads and writes the PROXY header (haproxy's proxy-protocol.txt §2.1, §2.2); nothing that is
# read is trusted.

from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from proxy.base._client cimport read_address
from proxy.base.span cimport Str, of_bytes, text

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        AF_INET
        AF_INET6
    const char* inet_ntop(int, const void*, char*, unsigned int)
    int inet_pton(int, const char*, void*)

cdef enum:
    LINE_MAX = 107                # version 1, its line end included
    FIXED = 16                    # version 2: signature, command, family, length

cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


cdef int read_proxy_header(const char* p, uint32_t n, ProxyHeader* out) noexcept:
    memset(out, 0, sizeof(ProxyHeader))
    if n == 0:
        return 0
    if p[0] == SIGNATURE[0]:
        if memcmp(p, SIGNATURE, n if n < 12 else 12) != 0:
            return -1
        return 0 if n < FIXED else read_binary(<const uint8_t*>p, n, out)
    if memcmp(p, b"PROXY ", n if n < 6 else 6) != 0:
        return -1
    return read_line(p, n, out)


cdef int read_line(const char* p, uint32_t n, ProxyHeader* out) noexcept:
    """Version 1: PROXY TCP4|TCP6|UNKNOWN source target port port."""
    cdef const char* end
    cdef const char* at = p + 6
    cdef int family
    n = n if n < LINE_MAX else LINE_MAX
    end = <const char*>memchr(p, 10, n)
    if end == NULL:
        return 0 if n < LINE_MAX and may_become(at, n - 6 if n > 6 else 0) else -1
    if end[-1] != 13 or end - p < 14:
        return -1
    n = <uint32_t>(end - p) + 1
    end -= 1
    if memcmp(at, b"UNKNOWN", 7) == 0 and (at[7] == c" " or at + 7 == end):
        return <int>n
    if memcmp(at, b"TCP4 ", 5) == 0:
        family = AF_INET
    elif memcmp(at, b"TCP6 ", 5) == 0:
        family = AF_INET6
    else:
        return -1
    at += 5
    if (not read_ip(&at, end, family, out.source, &out.source_n)
            or not read_ip(&at, end, family, out.target, &out.target_n)
            or not read_port(&at, end, &out.source_port) or at == end or at[0] != c" "):
        return -1
    at += 1
    if not read_port(&at, end, &out.target_port) or at != end:
        return -1
    out.has_addresses = True
    return <int>n


cdef bint may_become(const char* p, uint32_t n) noexcept:
    """Do these bytes begin a family? Who says something else shall not be waited for."""
    return (memcmp(p, b"TCP4 ", n if n < 5 else 5) == 0
            or memcmp(p, b"TCP6 ", n if n < 5 else 5) == 0
            or memcmp(p, b"UNKNOWN", n if n < 7 else 7) == 0)


cdef bint read_ip(const char** at, const char* end, int family, char* out, uint8_t* n) noexcept:
    """An address and the space behind it."""
    cdef char word[46]
    cdef uint8_t raw[16]
    cdef const char* space = <const char*>memchr(at[0], 32, <size_t>(end - at[0]))
    cdef Py_ssize_t size
    if space == NULL:
        return False
    size = space - at[0]
    if size == 0 or size > 45:
        return False
    memcpy(word, at[0], <size_t>size)
    word[size] = 0
    if inet_pton(family, word, raw) != 1:
        return False
    memcpy(out, word, <size_t>size)
    n[0] = <uint8_t>size
    at[0] = space + 1
    return True


cdef bint read_port(const char** at, const char* end, uint16_t* out) noexcept:
    cdef uint32_t port = 0
    cdef const char* p = at[0]
    while p < end and c"0" <= p[0] <= c"9" and port <= 65535:
        port = port * 10 + <uint32_t>(p[0] - c"0")
        p += 1
    if p == at[0] or port > 65535:
        return False
    out[0] = <uint16_t>port
    at[0] = p
    return True


cdef int read_binary(const uint8_t* p, uint32_t n, ProxyHeader* out) noexcept:
    """Version 2; what follows the addresses (TLVs) is looked at by who asks for one."""
    cdef uint32_t size = FIXED + (<uint32_t>p[14] << 8 | p[15])
    cdef uint32_t at = FIXED
    cdef uint32_t each
    if p[12] >> 4 != 2 or p[12] & 15 > 1 or size > PROXY_HEADER_MAX:
        return -1
    if n < size:
        return 0
    if p[12] & 15 == 0:                          # LOCAL: a health check of the balancer's
        return <int>size
    if p[13] >> 4 == 1 or p[13] >> 4 == 2:
        each = 4 if p[13] >> 4 == 1 else 16
        if size < FIXED + each * 2 + 4:
            return -1
        write_ip(p + at, each, out.source, &out.source_n)
        write_ip(p + at + each, each, out.target, &out.target_n)
        at += each * 2
        out.source_port = <uint16_t>(p[at] << 8 | p[at + 1])
        out.target_port = <uint16_t>(p[at + 2] << 8 | p[at + 3])
        at += 4
        out.has_addresses = True
    elif p[13] >> 4 == 3:
        if size < FIXED + 216:
            return -1
        memcpy(out.source, b"unix:", 5)
        memcpy(out.target, b"unix:", 5)
        out.source_n = out.target_n = 5
        at += 216
        out.has_addresses = True
    if out.has_addresses:
        out.tlvs = <const char*>p + at
        out.tlvs_n = size - at
    return <int>size


cdef void write_ip(const uint8_t* raw, uint32_t size, char* out, uint8_t* n) noexcept:
    cdef char word[64]
    inet_ntop(AF_INET if size == 4 else AF_INET6, raw, word, 64)
    n[0] = <uint8_t>strlen(word)
    memcpy(out, word, n[0])


cdef bint keep_proxy_header(Client client, const ProxyHeader* h) noexcept:
    """In one piece: source, target, TLVs; two Strs point to the first two."""
    try:
        client.proxy_header = (h.source[:h.source_n] + h.target[:h.target_n]
                               + (h.tlvs[:h.tlvs_n] if h.tlvs_n else b""))
    except MemoryError:
        return False
    client.proxy_address = text(<const char*><bytes>client.proxy_header, h.source_n)
    client.proxy_server_address = text(client.proxy_address.p + h.source_n, h.target_n)
    client.proxy_port = h.source_port
    client.proxy_server_port = h.target_port
    return True


cdef Str kept_tlvs(Client client) noexcept:
    cdef Str all_of_it = text(NULL, 0)
    cdef uint32_t n = client.proxy_address.n + client.proxy_server_address.n
    if client.proxy_header is not None:
        all_of_it = of_bytes(<bytes>client.proxy_header)
        all_of_it.p += n
        all_of_it.n -= n
    return all_of_it


cdef Str find_tlv(Str tlvs, uint32_t type) noexcept:
    """§2.2.6: a byte of type, two of length, the value."""
    cdef const uint8_t* p = <const uint8_t*>tlvs.p
    cdef uint32_t left = tlvs.n
    cdef uint32_t n
    while left >= 3:
        n = <uint32_t>p[1] << 8 | p[2]
        left -= 3
        if n > left:
            break
        if p[0] == type:
            return text(<const char*>p + 3, n)
        p += 3 + n
        left -= n
    return text(NULL, 0)


cdef uint32_t write_proxy_header(int version, const Address* source, const Address* target,
                                 char* out) noexcept:
    """Unix sockets have no addresses that anybody could use: UNKNOWN, LOCAL."""
    cdef uint32_t each = source.binary_n
    cdef bint is_known = each != 0 and target.binary_n == each
    if version == 1:
        if not is_known:
            memcpy(out, b"PROXY UNKNOWN\r\n", 15)
            return 15
        return <uint32_t>snprintf(
            out, PROXY_WRITE_MAX, "PROXY TCP%d %.*s %.*s %u %u\r\n", 4 if each == 4 else 6,
            <int>source.text_n, source.text, <int>target.text_n, target.text,
            <unsigned int>source.port, <unsigned int>target.port)
    memcpy(out, SIGNATURE, 12)
    out[12] = <char>(0x21 if is_known else 0x20)             # version 2; PROXY or LOCAL
    out[13] = <char>((0x11 if each == 4 else 0x21) if is_known else 0)   # over a stream
    out[14] = 0
    out[15] = <char>(each * 2 + 4 if is_known else 0)
    if not is_known:
        return FIXED
    memcpy(out + FIXED, source.binary, each)
    memcpy(out + FIXED + each, target.binary, each)
    out += FIXED + each * 2
    out[0] = <char>(source.port >> 8)
    out[1] = <char>(source.port & 255)
    out[2] = <char>(target.port >> 8)
    out[3] = <char>(target.port & 255)
    return FIXED + each * 2 + 4


def write(int version, bytes source, bytes target):
    """The header for addresses as text, with ports (`[::1]:80`). ValueError: they are none."""
    cdef Address a
    cdef Address b
    cdef char[PROXY_WRITE_MAX] room
    if read_address(of_bytes(source), &a) < 0 or read_address(of_bytes(target), &b) < 0:
        raise ValueError("no addresses")
    return room[:write_proxy_header(version, &a, &b, room)]


def find(bytes tlvs, int type):
    """The value of a TLV in a list of them, None: it has none."""
    cdef Str found = find_tlv(of_bytes(tlvs), <uint32_t>type)
    return found.p[:found.n] if found.p != NULL else None


def read_tlvs(bytes data):
    """The list of TLVs of a whole header. ValueError: it is none."""
    cdef ProxyHeader h
    if read_proxy_header(data, <uint32_t>len(data), &h) <= 0:
        raise ValueError("no PROXY header")
    return h.tlvs[:h.tlvs_n] if h.tlvs != NULL else b""


def read(bytes data):
    """(bytes used, None or (source, source port, target, target port)). Used is 0 while more
    must come; ValueError: it is none."""
    cdef ProxyHeader h
    cdef int used = read_proxy_header(data, <uint32_t>len(data), &h)
    if used < 0:
        raise ValueError("no PROXY header")
    if not h.has_addresses:
        return used, None
    return used, (h.source[:h.source_n].decode(), h.source_port,
                  h.target[:h.target_n].decode(), h.target_port)
