# Request targets, normalised as nginx does it.
#
# Called once per request by the route stage, and by whatever changes a URI. Nothing here
# allocates, and nothing writes more than the bytes named in the .pxd.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from proxy.base._escape cimport HEX, UNESCAPE_ALL, unescape_uri
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport BAD_REQUEST


cdef enum Class:
    C_USUAL = 0
    C_SLASH = 1
    C_DOT = 2
    C_PLUS = 3
    C_END = 4        # "?" or "#"
    C_PERCENT = 5
    C_NEVER = 6      # controls and space: no target has them (RFC 3986 §2)

cdef uint8_t[256] CLASS


cdef void fill_table():
    cdef int c
    for c in range(256):
        CLASS[c] = C_NEVER if c <= 0x20 or c == 0x7F else C_USUAL
    CLASS[b"/"[0]] = C_SLASH
    CLASS[b"."[0]] = C_DOT
    CLASS[b"+"[0]] = C_PLUS
    CLASS[b"?"[0]] = CLASS[b"#"[0]] = C_END
    CLASS[b"%"[0]] = C_PERCENT


fill_table()


cdef inline void set_args(Uri* uri, const char* p, uint32_t n) noexcept:
    """p: the byte behind the "?". A fragment, which no client should send, is cut off."""
    cdef const char* hash = <const char*>memchr(p, 35, n) if n else NULL
    uri.flags |= U_HAS_ARGS
    uri.args = text(p, hash - p if hash != NULL else n)


cdef int read_uri(
    const char* p, uint32_t n, bint is_merging, char* out, Uri* uri
) noexcept:
    cdef uint32_t i
    cdef uint32_t dot = 0     # offset of the last "." of this segment, 0: none
    uri.flags = 0
    uri.args = text(NULL, 0)
    uri.exten = text(NULL, 0)
    if n == 0 or p[0] == 63:
        # absolute-form without a path is a request for "/" (RFC 9112 §3.2.1)
        out[0] = 47
        uri.path = text(out, 1)
        uri.flags = U_EMPTY_PATH
        if n:
            set_args(uri, p + 1, n - 1)
        return 0
    if p[0] != 47:
        return BAD_REQUEST
    # the likely case: nothing to decode, to merge or to resolve
    i = 1
    while i < n:
        if CLASS[<uint8_t>p[i]] == C_USUAL:
            i += 1
            continue
        if CLASS[<uint8_t>p[i]] == C_SLASH:
            if p[i - 1] == 47:
                return read_complex(p, n, is_merging, out, uri)
            dot = 0
        elif CLASS[<uint8_t>p[i]] == C_DOT:
            if p[i - 1] == 47:
                return read_complex(p, n, is_merging, out, uri)
            dot = i
        elif CLASS[<uint8_t>p[i]] == C_PLUS:
            uri.flags |= U_PLUS
        elif CLASS[<uint8_t>p[i]] == C_END:
            break
        elif CLASS[<uint8_t>p[i]] == C_PERCENT:
            return read_complex(p, n, is_merging, out, uri)
        else:
            return BAD_REQUEST
        i += 1
    uri.flags |= U_PLAIN
    uri.path = text(p, i)
    if dot:
        uri.exten = text(p + dot + 1, i - dot - 1)
    if i < n and p[i] == 63:
        set_args(uri, p + i + 1, n - i - 1)
    return 0


cdef int read_complex(
    const char* p, uint32_t n, bint is_merging, char* out, Uri* uri
) noexcept:
    """Decode into out segment by segment; a segment is judged at its end.

    An encoded "/" or "." counts as if it had been sent plainly; an encoded "%", "#" or "?"
    is a character of its segment.
    """
    cdef uint32_t i = 1
    cdef uint32_t u = 1       # where the next byte goes
    cdef uint32_t seg = 1     # where this segment starts in out
    cdef uint32_t dot = 0
    cdef uint8_t c
    cdef bint is_slash
    cdef int kept
    out[0] = 47
    uri.flags = 0
    while i < n:
        c = <uint8_t>p[i]
        i += 1
        is_slash = c == 47
        if CLASS[c] == C_END:
            i -= 1
            break
        if CLASS[c] == C_NEVER:
            return BAD_REQUEST
        if c == 37:
            if n - i < 2 or HEX[<uint8_t>p[i]] == 255 or HEX[<uint8_t>p[i + 1]] == 255:
                return BAD_REQUEST
            c = <uint8_t>(HEX[<uint8_t>p[i]] << 4 | HEX[<uint8_t>p[i + 1]])
            if c == 0:
                return BAD_REQUEST
            uri.flags |= U_QUOTED
            is_slash = c == 47
            i += 2
        if is_slash:
            kept = end_segment(out, &u, seg)
            if kept < 0:
                return BAD_REQUEST
            # "//" is one slash when merging; a dot segment takes its slash along
            if kept and (u > seg or not is_merging):
                out[u] = 47
                u += 1
            seg = u
            dot = 0
            continue
        out[u] = <char>c
        if c == 43:
            uri.flags |= U_PLUS
        elif c == 46 and not is_leading_dot(out + seg, u - seg):
            dot = u
        u += 1
    kept = end_segment(out, &u, seg)
    if kept < 0:
        return BAD_REQUEST
    uri.path = text(out, u)
    if dot and kept:
        uri.exten = text(out + dot + 1, u - dot - 1)
    if i < n and p[i] == 63:
        set_args(uri, p + i + 1, n - i - 1)
    return 0


cdef inline bint is_leading_dot(const char* segment, uint32_t n) noexcept:
    """Whether a "." behind these n bytes is one of at most three dots that begin a segment.

    Those begin no extension: ".profile" has none.
    """
    return n == 0 or n == 1 and segment[0] == 46 or (
        n == 2 and segment[0] == 46 and segment[1] == 46
    )


cdef inline int end_segment(const char* out, uint32_t* u, uint32_t seg) noexcept:
    """1: an ordinary segment, 0: a dot segment, now resolved, -1: it climbs above the root."""
    cdef uint32_t n = u[0] - seg
    cdef uint32_t v
    if n == 0 or n > 2 or out[seg] != 46 or out[seg + n - 1] != 46:
        return 1
    if n == 1:
        u[0] = seg
        return 0
    if seg == 1:
        return -1
    v = seg - 2
    while out[v] != 47:
        v -= 1
    u[0] = v + 1
    return 0


cdef inline bint is_unsafe(const char* p, uint32_t n) noexcept:
    """Whether a path has a ".." segment or a NUL."""
    cdef uint32_t i
    for i in range(n):
        if p[i] == 0:
            return True
        if (
            p[i] == 46 and i + 1 < n and p[i + 1] == 46
            and (i == 0 or p[i - 1] == 47) and (i + 2 == n or p[i + 2] == 47)
        ):
            return True
    return False


cdef int read_inner_uri(const char* p, uint32_t n, char* out, Uri* uri) noexcept:
    cdef const char* mark = <const char*>memchr(p, 63, n) if n else NULL
    cdef uint32_t path_n = <uint32_t>(mark - p) if mark != NULL else n
    cdef uint32_t used = 0
    uri.flags = U_PLAIN
    uri.args = text(NULL, 0)
    if path_n == 0 or is_unsafe(p, path_n):
        return BAD_REQUEST
    if mark != NULL:
        uri.flags |= U_HAS_ARGS
        uri.args = text(mark + 1, n - path_n - 1)
    uri.path = text(p, path_n)
    if memchr(p, 37, path_n) != NULL:
        uri.flags = (uri.flags & ~<uint32_t>U_PLAIN) | U_QUOTED
        uri.path = text(out, unescape_uri(out, p, path_n, UNESCAPE_ALL, &used))
        # judged again, so that "%2e%2e" climbs nowhere either
        if uri.path.n == 0 or is_unsafe(out, uri.path.n):
            return BAD_REQUEST
    uri.exten = find_exten(uri.path.p, uri.path.n)
    return 0


cdef Str find_exten(const char* path, uint32_t n) noexcept:
    cdef uint32_t i = n
    while i > 2:
        i -= 1
        if path[i] == 47:
            break
        if path[i] == 46 and path[i - 1] != 47:
            return text(path + i + 1, n - i - 1)
    return text(NULL, 0)


def normalise(bytes target not None, bint is_merging=True):
    """(path, args, exten, flags) of a request target; ValueError where nginx answers 400."""
    cdef Uri uri
    cdef bytearray room = bytearray(len(target) + 1)
    cdef char* out = room
    if read_uri(<const char*>target, <uint32_t>len(target), is_merging, out, &uri) < 0:
        raise ValueError(f"invalid request target {target!r}")
    return (
        uri.path.p[:uri.path.n],
        uri.args.p[:uri.args.n] if uri.args.n else b"",
        uri.exten.p[:uri.exten.n] if uri.exten.n else b"",
        uri.flags,
    )


def normalise_inner(bytes target not None):
    """(path, args) of a URI named by a conf or an upstream; ValueError when it is unsafe."""
    cdef Uri uri
    cdef bytearray room = bytearray(len(target) + 1)
    cdef char* out = room
    if read_inner_uri(<const char*>target, <uint32_t>len(target), out, &uri) < 0:
        raise ValueError(f"unsafe URI {target!r}")
    return uri.path.p[:uri.path.n], uri.args.p[:uri.args.n] if uri.args.n else b""


def exten(bytes path not None):
    """The extension of a path, without its dot; b"" if it has none."""
    cdef Str s = find_exten(<const char*>path, <uint32_t>len(path))
    return s.p[:s.n] if s.n else b""
