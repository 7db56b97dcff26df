"""HTTP/1.1 heads: one pass from the first byte to the empty line, no second look.

What is ambiguous is refused here, so that nothing behind this file meets it: both
Content-Length and Transfer-Encoding, a repeated one, a folded line, white space
before a colon, a lone CR, NUL and other control bytes, a second Host.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp

from proxy.base.head cimport *
from proxy.base.span cimport is_same_word
from proxy.base.verdict cimport *
from proxy.wire._fields cimport *
from proxy.wire._scan cimport *

cdef enum:
    MAX_EMPTY_BYTES = 64  # empty lines before a request line (RFC 9112 §2.2)
    MAX_NAMED = 32        # other fields that Connection may name

cdef enum Seen:
    # bits of Head.flags that live only while the head is read
    SAW_UPGRADE_TOKEN = 1 << 16
    SAW_UPGRADE_FIELD = 1 << 17
    SAW_KEEP_ALIVE = 1 << 18
    SAW_NAMED = 1 << 19
    SAW_UNKNOWN_CODING = 1 << 20
    SAW_ANY = 0xffff << 16

cdef enum Side:
    OF_REQUEST = 0
    OF_RESPONSE = 1
    OF_TRAILER = 2


cdef bint is_valid_host(const char* p, uint32_t n) noexcept nogil:
    cdef uint32_t i = 0, end, port = 0
    cdef uint32_t dot = n  # where the last dot stood
    if n == 0:
        return False
    if p[0] == b"[":
        i = 1
        while i < n and p[i] != b"]":
            if p[i] == b"%" or not (class_of(p[i]) & IS_HOST or p[i] == b":"):
                return False
            if p[i] == b".":
                if dot == i - 1:
                    return False
                dot = i
            i += 1
        if i >= n or i == 1:
            return False
        i += 1
    else:
        while i < n and p[i] != b":":
            if class_of(p[i]) & IS_PLAIN:
                i += 1
                continue
            if not class_of(p[i]) & IS_HOST:
                return False
            if p[i] == b".":
                if i and dot == i - 1:
                    return False
                dot = i
            i += 1
        end = i
        if dot + 1 == end:
            end -= 1
        if end == 0:
            return False
    if i == n:
        return True
    if p[i] != b":":
        return False
    i += 1
    while i < n:
        if not b"0" <= p[i] <= b"9":
            return False
        port = port * 10 + <uint32_t>(p[i] - 48)
        if port > 65535:
            return False
        i += 1
    return True


cdef uint8_t method_of(const char* p, uint32_t n) noexcept nogil:
    if n == 3:
        if memcmp(p, b"GET", 3) == 0:
            return M_GET
        if memcmp(p, b"PUT", 3) == 0:
            return M_PUT
    elif n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return M_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return M_HEAD
        if memcmp(p, b"COPY", 4) == 0:
            return M_COPY
        if memcmp(p, b"MOVE", 4) == 0:
            return M_MOVE
        if memcmp(p, b"LOCK", 4) == 0:
            return M_LOCK
    elif n == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return M_PATCH
        if memcmp(p, b"TRACE", 5) == 0:
            return M_TRACE
        if memcmp(p, b"MKCOL", 5) == 0:
            return M_MKCOL
    elif n == 6:
        if memcmp(p, b"DELETE", 6) == 0:
            return M_DELETE
        if memcmp(p, b"UNLOCK", 6) == 0:
            return M_UNLOCK
    elif n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return M_OPTIONS
        if memcmp(p, b"CONNECT", 7) == 0:
            return M_CONNECT
    elif n == 8:
        if memcmp(p, b"PROPFIND", 8) == 0:
            return M_PROPFIND
    elif n == 9:
        if memcmp(p, b"PROPPATCH", 9) == 0:
            return M_PROPPATCH
    return M_OTHER


cdef inline bint is_letter(char c) noexcept nogil:
    return b"a" <= (c | 0x20) <= b"z"


cdef inline bint is_digit(char c) noexcept nogil:
    return b"0" <= c <= b"9"


cdef int read_authority(Head* h, const char* buf, uint32_t at, uint32_t end) noexcept nogil:
    """Where the authority of a target ends; sets h.host. BAD_REQUEST when it is none."""
    cdef uint32_t i = at
    if i < end and buf[i] == b"[":
        while i < end and buf[i] != b"]":
            i += 1
        i += 1
        if i > end:
            return BAD_REQUEST
    else:
        while i < end and (is_letter(buf[i]) or is_digit(buf[i])
                           or buf[i] == b"." or buf[i] == b"-"):
            i += 1
    if i < end and buf[i] == b":":
        i += 1
        while i < end and is_digit(buf[i]):
            i += 1
    if not is_valid_host(buf + at, i - at):
        return BAD_REQUEST
    h.host = at
    h.host_n = i - at
    return <int>i


cdef int read_target(Head* h, const char* buf) noexcept nogil:
    """Split the request-target (RFC 9112 §3.2): origin-, absolute- or authority-form."""
    cdef uint32_t i = h.target, end = h.target + h.target_n, scheme
    cdef int stop
    if h.target_n == 0:
        return BAD_REQUEST
    if h.method == M_CONNECT:
        stop = read_authority(h, buf, i, end)
        if stop < 0 or <uint32_t>stop != end or not is_digit(buf[end - 1]):
            return BAD_REQUEST
        # a port is asked for: the last digits must follow a colon
        stop -= 1
        while is_digit(buf[stop]):
            stop -= 1
            if <uint32_t>stop == i:
                return BAD_REQUEST
        if buf[stop] != b":":
            return BAD_REQUEST
        h.path = end + 5  # the "/" of "HTTP/": nothing is there to route by
        h.path_n = 1
        h.flags |= H_ABSOLUTE
        return 0
    if buf[i] == b"/":
        h.path = i
        h.path_n = h.target_n
        return 0
    # absolute-form; asterisk-form is refused as nginx does
    if not is_letter(buf[i]):
        return BAD_REQUEST
    while i < end and (is_letter(buf[i]) or is_digit(buf[i]) or buf[i] == b"+"
                       or buf[i] == b"-" or buf[i] == b"."):
        i += 1
    scheme = i
    if end - i < 4 or memcmp(buf + i, b"://", 3) != 0:
        return BAD_REQUEST
    stop = read_authority(h, buf, i + 3, end)
    if stop < 0:
        return BAD_REQUEST
    i = <uint32_t>stop
    h.flags |= H_ABSOLUTE
    if i == end:
        h.path = scheme + 1  # one "/" of "://" stands for the path that is missing
        h.path_n = 1
        return 0
    if buf[i] != b"/" and buf[i] != b"?":
        return BAD_REQUEST
    h.path = i
    h.path_n = end - i
    return 0


cdef inline int line_end(const char* q, const char* e, uint32_t* size) noexcept nogil:
    """1: a line ends at q with size bytes of CRLF or LF; 0: need more; -1: it does not."""
    if q == e:
        return 0
    if q[0] == b"\r":
        if q + 1 == e:
            return 0
        size[0] = 2
        return 1 if q[1] == b"\n" else -1
    size[0] = 1
    return 1 if q[0] == b"\n" else -1


cdef int read_version(const char* q, const char* e, uint8_t* version) noexcept nogil:
    """The eight bytes of HTTP/1.x: 8, 0: need more, < 0: a fault."""
    cdef Py_ssize_t have = e - q
    if have < 5:
        return 0 if memcmp(q, b"HTTP/", have) == 0 else BAD_REQUEST
    if memcmp(q, b"HTTP/", 5) != 0:
        return BAD_REQUEST
    if have < 6:
        return 0
    if b"2" <= q[5] <= b"9":
        return BAD_VERSION
    if q[5] != b"1":
        return BAD_REQUEST
    if have < 7:
        return 0
    if is_digit(q[6]):
        return BAD_VERSION
    if q[6] != b".":
        return BAD_REQUEST
    if have < 8:
        return 0
    if not is_digit(q[7]):
        return BAD_REQUEST
    version[0] = 10 if q[7] == b"0" else 11
    return 8


cdef int read_request_line(
    Head* h, const char* buf, uint32_t n, const Limits* lim
) noexcept nogil:
    """1: the line is read and h.at stands behind it; 0: need more; < 0: a fault."""
    cdef uint32_t end = n, size
    cdef const char* p
    cdef const char* q
    cdef const char* e
    cdef int rc
    while h.at < n:
        if buf[h.at] == b"\r":
            if h.at + 1 == n:
                return 0
            if buf[h.at + 1] != b"\n":
                return BAD_REQUEST
            h.at += 2
        elif buf[h.at] == b"\n":
            h.at += 1
        else:
            break
        if h.at > MAX_EMPTY_BYTES:
            return BAD_REQUEST
    if h.at == n:
        return 0
    if end > h.at + lim.max_line:
        end = h.at + lim.max_line
    if end > lim.max_head:
        end = lim.max_head
    p = buf + h.at
    e = buf + end
    q = p
    while q < e and class_of(q[0]) & IS_METHOD:
        q += 1
    if q - p > 255:
        return BAD_REQUEST
    if q < e:
        if q[0] != b" " or q == p:
            return BAD_REQUEST
        h.method_off = h.at
        h.method_n = <uint8_t>(q - p)
        h.method = method_of(p, h.method_n)
        q += 1
        h.target = <uint32_t>(q - buf)
        q = scan_target(q, e)
        if q < e:
            if q[0] != b" ":
                return BAD_REQUEST  # HTTP/0.9 too: it has no version
            h.target_n = <uint32_t>(q - buf) - h.target
            rc = read_target(h, buf)
            if rc < 0:
                return rc
            q += 1
            if e - q >= 10 and memcmp(q, b"HTTP/1.1\r\n", 10) == 0:
                h.version = 11
                h.line_off = h.at
                h.line_n = <uint32_t>(q - p) + 8
                h.at += h.line_n + 2
                h.has_start_line = 1
                return 1
            rc = read_version(q, e, &h.version)
            if rc < 0:
                return rc
            if rc > 0:
                q += 8
                rc = line_end(q, e, &size)
                if rc < 0:
                    return BAD_REQUEST
                if rc > 0:
                    h.line_off = h.at
                    h.line_n = <uint32_t>(q - p)
                    h.at += h.line_n + size
                    h.has_start_line = 1
                    return 1
    # the line goes on behind what we hold: is there room for one more byte of it?
    h.flags = 0
    return URI_TOO_LARGE if end == h.at + lim.max_line or end == lim.max_head else 0


cdef int read_status_line(
    Head* h, const char* buf, uint32_t n, const Limits* lim
) noexcept nogil:
    """1: the line is read and h.at stands behind it; 0: need more; < 0: a fault."""
    cdef uint32_t end = n, size, status = 0
    cdef const char* q = buf
    cdef const char* e
    cdef int rc, i
    if end > lim.max_line:
        end = lim.max_line
    if end > lim.max_head:
        end = lim.max_head
    e = buf + end
    rc = read_version(q, e, &h.version)
    if rc < 0:
        return UPSTREAM_BAD_HEAD
    if rc > 0:
        if q[7] > b"1":
            return UPSTREAM_BAD_HEAD
        q += 8
        i = 0
        while i < 4 and q < e:
            if i == 0:
                if q[0] != b" ":
                    return UPSTREAM_BAD_HEAD
            else:
                if not is_digit(q[0]):
                    return UPSTREAM_BAD_HEAD
                status = status * 10 + <uint32_t>(q[0] - 48)
            i += 1
            q += 1
        if i == 4:
            if status < 100:
                return UPSTREAM_BAD_HEAD
            h.status = <uint16_t>status
            if q < e and q[0] == b" ":
                q += 1
                h.reason = <uint32_t>(q - buf)
                q = scan_text(q, e)
                h.reason_n = <uint32_t>(q - buf) - h.reason
            elif q < e and q[0] != b"\r" and q[0] != b"\n":
                return UPSTREAM_BAD_HEAD
            rc = line_end(q, e, &size)
            if rc < 0:
                return UPSTREAM_BAD_HEAD
            if rc > 0:
                h.line_n = <uint32_t>(q - buf)
                h.at = h.line_n + size
                h.has_start_line = 1
                return 1
    if end == lim.max_line or end == lim.max_head:
        return UPSTREAM_HEAD_TOO_LARGE
    return 0


cdef int read_connection(Head* h, const char* p, uint32_t n) noexcept nogil:
    """Note the options of one Connection field (RFC 9110 §7.6.1)."""
    cdef uint32_t i = 0, at, size
    if n == 10 and is_folded(p, b"keep-alive", 10):
        h.flags |= SAW_KEEP_ALIVE
        return 0
    while i < n:
        while i < n and (p[i] == b"," or p[i] == b" " or p[i] == b"\t"):
            i += 1
        at = i
        while i < n and p[i] != b",":
            i += 1
        size = i - at
        while size and (p[at + size - 1] == b" " or p[at + size - 1] == b"\t"):
            size -= 1
        if size == 5 and is_folded(p + at, b"close", 5):
            h.flags |= H_CONNECTION_CLOSE
        elif size == 10 and is_folded(p + at, b"keep-alive", 10):
            h.flags |= SAW_KEEP_ALIVE
        elif size == 7 and is_folded(p + at, b"upgrade", 7):
            h.flags |= SAW_UPGRADE_TOKEN
        elif size:
            h.flags |= SAW_NAMED
    return 0


cdef bint has_token(const char* p, uint32_t n, const char* word, uint32_t word_n) noexcept nogil:
    """Is word a member of a comma-separated list, whatever its parameters and version?"""
    cdef uint32_t i = 0, at
    while i < n:
        while i < n and (p[i] == b"," or p[i] == b" " or p[i] == b"\t"):
            i += 1
        at = i
        while i < n and class_of(p[i]) & IS_NAME:
            i += 1
        if i - at == word_n and is_folded(p + at, word, word_n):
            return True
        while i < n and p[i] != b",":
            i += 1
    return False


cdef inline bint has_coding(const Head* h) noexcept nogil:
    return h.flags & (H_CHUNKED | SAW_UNKNOWN_CODING) != 0


cdef int read_length(Head* h, const char* p, uint32_t n) noexcept nogil:
    """Content-Length: digits only, at most 18, once (RFC 9112 §6.3)."""
    cdef uint32_t i
    cdef int64_t length = 0
    if n == 0 or n > 18 or h.content_length != -1 or has_coding(h):
        return BAD_REQUEST
    for i in range(n):
        if not is_digit(p[i]):
            return BAD_REQUEST
        length = length * 10 + (p[i] - 48)
    h.content_length = length
    return 0


cdef int note_field(Head* h, const char* buf, Field* f, Side side) noexcept nogil:
    """What a known field means for the message; 0 or a request's fault."""
    cdef const char* p = buf + f.value
    cdef uint32_t n = f.value_n
    if f.id == F_HOST:
        if side == OF_RESPONSE:
            return 0
        if not is_valid_host(p, n):
            return BAD_REQUEST
        h.flags |= H_HAS_HOST
        if not h.flags & H_ABSOLUTE:
            h.host = f.value
            h.host_n = n
    elif f.id == F_CONNECTION:
        return read_connection(h, p, n)
    elif f.id == F_CONTENT_LENGTH:
        return read_length(h, p, n)
    elif f.id == F_TRANSFER_ENCODING:
        # an empty or repeated one, one beside a length, one in HTTP/1.0 (RFC 9112 §6.1)
        if n == 0 or h.version < 11 or has_coding(h) or h.content_length != -1:
            return BAD_REQUEST
        # an unknown one is reported at the end: a second one or a length is the worse fault
        if n == 7 and is_folded(p, b"chunked", 7):
            h.flags |= H_CHUNKED
        else:
            h.flags |= SAW_UNKNOWN_CODING
    elif f.id == F_EXPECT:
        if side == OF_REQUEST and h.version == 11 and n == 12:
            if is_folded(p, b"100-continue", 12):
                h.flags |= H_EXPECT_CONTINUE
    elif f.id == F_UPGRADE:
        # h2c is between two neighbours and never carried on (RFC 9113 §3.1)
        if n and not has_token(p, n, b"h2c", 3):
            h.flags |= SAW_UPGRADE_FIELD
    elif f.id == F_TE:
        if has_token(p, n, b"trailers", 8):
            h.flags |= H_TE_TRAILERS
    elif f.id == F_TRAILER:
        if n:
            h.flags |= H_HAS_TRAILER
    return 0


cdef int mark_named(Head* h, Side side) noexcept nogil:
    """Mark the fields that Connection names; one that carries meaning may not be named."""
    cdef uint16_t i, j
    cdef uint32_t at, k, n, count = 0
    cdef const char* p
    cdef uint8_t trait
    for i in range(h.n_fields):
        if h.fields[i].id != F_CONNECTION:
            continue
        p = h.base + h.fields[i].value
        n = h.fields[i].value_n
        k = 0
        while k < n:
            while k < n and not class_of(p[k]) & IS_NAME:
                k += 1
            at = k
            while k < n and class_of(p[k]) & IS_NAME:
                k += 1
            if k == at:
                break
            count += 1
            if count > MAX_NAMED:
                return BAD_REQUEST
            trait = traits_of(find_name(p + at, k - at))
            if trait & IS_PROTECTED:
                if side == OF_REQUEST:
                    return BAD_REQUEST
                continue
            for j in range(h.n_fields):
                if h.fields[j].name_n == k - at and is_same_word(
                        h.base + h.fields[j].name, p + at, k - at):
                    h.fields[j].flags |= F_IS_HOP
    return 0


cdef inline bint is_repeated(const Head* h, const Field* f) noexcept nogil:
    if f.id == F_HOST:
        return h.flags & H_HAS_HOST
    return find_field(h, f.id) != NULL


cdef int read_fields(
    Head* h, const char* buf, uint32_t n, const Limits* lim, Side side
) noexcept nogil:
    """> 0: the size up to and with the empty line; 0: need more; < 0: a request's fault."""
    cdef uint32_t at = h.at, end, size
    cdef uint16_t room = h.cap_fields
    cdef const char* p
    cdef const char* q
    cdef const char* e
    cdef const char* v
    cdef uint8_t kind, seen
    cdef const Known* known
    cdef Field* f
    cdef int rc
    if lim.max_fields and lim.max_fields < room:
        room = lim.max_fields
    while True:
        end = n
        if end > at + lim.max_line:
            end = at + lim.max_line
        if end > lim.max_head:
            end = lim.max_head
        p = q = buf + at
        e = buf + end
        seen = 0
        q += plain_name(p, e)
        if q == p:
            while q < e:
                kind = class_of(q[0]) & IS_NAME
                if kind == 0:
                    break
                seen |= kind
                q += 1
            if q >= e:
                break
        if q[0] != b":" or q == p:
            if q != p or (q[0] != b"\r" and q[0] != b"\n"):
                return BAD_REQUEST
            rc = line_end(q, e, &size)
            if rc < 0:
                return BAD_REQUEST
            if rc == 0:
                break
            h.at = at
            return <int>(at + size)
        if q - p > 0xffff:
            return HEAD_TOO_LARGE
        v = q + 1
        while v < e and (v[0] == b" " or v[0] == b"\t"):
            v += 1
        end = <uint32_t>(q - p)  # of the name, from here on
        q = scan_text(v, e)
        rc = line_end(q, e, &size)
        if rc < 0:
            return BAD_REQUEST
        if rc == 0:
            end = <uint32_t>(e - buf)
            break
        at = <uint32_t>(q - buf) + size
        if (seen & ~IS_PLAIN and side == OF_REQUEST and lim.ignore_invalid
                and (seen & IS_ODD or not lim.underscores_allowed)):
            h.at = at
            continue
        if h.n_fields >= room:
            return TOO_MANY_FIELDS
        while q > v and ((q - 1)[0] == b" " or (q - 1)[0] == b"\t"):
            q -= 1
        known = find_known(p, end)
        f = &h.fields[h.n_fields]
        f.name = <uint32_t>(p - buf)
        f.name_n = <uint16_t>end
        f.value = <uint32_t>(v - buf)
        f.value_n = <uint32_t>(q - v)
        f.id = F_OTHER
        f.flags = 0
        if known != NULL:
            f.id = known.id
            if known.traits & IS_HOP:
                f.flags = F_IS_HOP
            if side == OF_REQUEST and known.traits & IS_SINGLE and is_repeated(h, f):
                return BAD_REQUEST
            if f.id <= F_TRAILER and side != OF_TRAILER:
                rc = note_field(h, buf, f, side)
                if rc < 0:
                    return rc
        h.n_fields += 1
        h.at = at
    # the line goes on behind what we hold: is there room for one more byte of it?
    if end == at + lim.max_line or end == lim.max_head:
        return HEAD_TOO_LARGE
    return 0


cdef inline int finish(Head* h, Side side) noexcept nogil:
    """What only a whole head can tell; 0 or a request's fault."""
    cdef uint32_t seen = h.flags
    h.flags &= ~<uint32_t>SAW_ANY
    if side == OF_REQUEST and h.version == 11 and not seen & H_HAS_HOST:
        return BAD_REQUEST
    if seen & SAW_UPGRADE_TOKEN and seen & SAW_UPGRADE_FIELD and h.version == 11:
        h.flags |= H_UPGRADE
    if not seen & H_CONNECTION_CLOSE and (h.version == 11 or seen & SAW_KEEP_ALIVE):
        h.flags |= H_KEEP_ALIVE
    if seen & SAW_NAMED and mark_named(h, side) < 0:
        return BAD_REQUEST
    return NOT_IMPLEMENTED if seen & SAW_UNKNOWN_CODING else 0


cdef int read_request_head(
    Head* h, const char* buf, uint32_t n, const Limits* lim
) noexcept nogil:
    cdef int rc
    h.base = <char*>buf
    if not h.has_start_line:
        rc = read_request_line(h, buf, n, lim)
        if rc <= 0:
            return rc
    rc = read_fields(h, buf, n, lim, OF_REQUEST)
    if rc <= 0:
        return rc
    h.size = <uint32_t>rc
    rc = finish(h, OF_REQUEST)
    return rc if rc < 0 else <int>h.size


cdef int read_response_head(
    Head* h, const char* buf, uint32_t n, const Limits* lim, bint is_head_request
) noexcept nogil:
    cdef int rc
    h.base = <char*>buf
    if not h.has_start_line:
        rc = read_status_line(h, buf, n, lim)
        if rc <= 0:
            return rc
    rc = read_fields(h, buf, n, lim, OF_RESPONSE)
    if rc > 0:
        h.size = <uint32_t>rc
        if finish(h, OF_RESPONSE) == 0:
            return <int>h.size
        return UPSTREAM_BAD_HEAD
    if rc == 0:
        return 0
    if rc == HEAD_TOO_LARGE or rc == TOO_MANY_FIELDS:
        return UPSTREAM_HEAD_TOO_LARGE
    return UPSTREAM_BAD_HEAD


cdef int read_trailers(Head* h, const char* buf, uint32_t n) noexcept nogil:
    cdef Limits lim
    cdef uint16_t i, kept = 0
    lim.max_line = lim.max_head = n + 1
    lim.max_fields = 0
    lim.ignore_invalid = lim.underscores_allowed = 0
    h.base = <char*>buf
    h.version = 11
    if read_fields(h, buf, n, &lim, OF_TRAILER) <= 0:
        return BAD_CHUNK
    for i in range(h.n_fields):
        if traits_of(h.fields[i].id) & IS_NO_TRAILER or h.fields[i].flags & F_IS_HOP:
            continue
        h.fields[kept] = h.fields[i]
        kept += 1
    h.n_fields = kept
    h.flags = 0
    return 0
