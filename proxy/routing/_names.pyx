# Server names: which server {} of a listen address answers for a host.
#
# Called once per request by the route stage, and by TLS with the name that SNI gave. A
# host is checked and put into one form first; every name here is in that form.

cimport cython
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t

from proxy.base._pcre cimport Captures, Pattern, match_into
from proxy.base.verdict cimport BAD_REQUEST
from proxy.routing._radix cimport Radix


cdef enum:
    MOST_HOST = 1024      # a longer host is compared with exact names, x.* and regexes only

cdef enum HostClass:
    H_NEVER = 0
    H_USUAL = 1
    H_UPPER = 2
    H_DOT = 3
    H_COLON = 4
    H_PERCENT = 5

cdef uint8_t[256] CLASS


cdef void fill_table():
    # RFC 3986 §3.2.2: reg-name, and what may stand inside the brackets of an IP literal
    cdef int c
    for c in range(128):
        if 65 <= c <= 90:
            CLASS[c] = H_UPPER
        elif chr(c).isalnum() or c in b"-_~!$&'()*+,;=":
            CLASS[c] = H_USUAL
    CLASS[46] = H_DOT
    CLASS[58] = H_COLON
    CLASS[37] = H_PERCENT


fill_table()


cdef int read_host(
    const char* p, uint32_t n, char* out, uint32_t* out_n, uint32_t* port
) noexcept:
    cdef uint32_t i = 0
    cdef uint32_t end         # bytes of the host
    cdef uint8_t kind
    cdef bint is_literal = n > 0 and p[0] == 91
    port[0] = 0
    out_n[0] = 0
    if is_literal:
        out[0] = 91
        i = 1
    while i < n:
        kind = CLASS[<uint8_t>p[i]]
        if kind == H_USUAL:
            out[i] = p[i]
        elif kind == H_UPPER:
            out[i] = p[i] | 0x20
        elif kind == H_DOT:
            if i and out[i - 1] == 46:
                return BAD_REQUEST
            out[i] = 46
        elif kind == H_COLON:
            if not is_literal:
                break
            out[i] = 58
        elif kind == H_PERCENT:
            if is_literal:
                return BAD_REQUEST
            out[i] = 37
        elif is_literal and p[i] == 93:
            break
        else:
            return BAD_REQUEST
        i += 1
    end = i
    if is_literal:
        if i == n:
            return BAD_REQUEST
        out[i] = 93
        i += 1
        end = i
        if i < n and p[i] != 58:
            return BAD_REQUEST
    elif end and out[end - 1] == 46:
        end -= 1
    if end == 0:
        return BAD_REQUEST
    # what is left is ":" and the port, which may be empty
    while i + 1 < n:
        i += 1
        if not 48 <= p[i] <= 57:
            return BAD_REQUEST
        port[0] = port[0] * 10 + <uint32_t>(p[i] - 48)
        if port[0] > 65535:
            return BAD_REQUEST
    out_n[0] = end
    return 0


@cython.final
cdef class Names:
    """The names of one listen address.

    Servers are any objects. Names are added in conf order: the first one of a kind stays.
    """

    def __init__(self, default_server):
        self.default_server = default_server
        self.exact = Radix()
        self.heads = Radix()
        self.tails = Radix()
        self.patterns = []
        self.pattern_servers = []

    @cython.wraparound(True)
    def add(self, str name not None, server):
        """Let `name` (any form of server_name but a regex) lead to `server`.

        False when another server has it (nginx: "conflicting server name", a warning).
        Raises ValueError for what is no name.
        """
        cdef bytes key = name.encode("utf-8", "surrogateescape").lower()
        if key.count(b"*") > 1 or b".." in key or b"\0" in key:
            raise ValueError(f'invalid server name or wildcard "{name}"')
        if len(key) > 1 and key[:1] == b".":
            if self.exact.get(key[1:]) is not None or self.heads.get(key[:0:-1] + b".") is not None:
                return False
            self.exact.add(key[1:], server)
            return self.heads.add(key[:0:-1] + b".", server)
        if len(key) > 2 and key[:2] == b"*.":
            return add_new(self.heads, key[:0:-1], server)
        if len(key) > 2 and key[-2:] == b".*":
            return add_new(self.tails, key[:-1], server)
        if b"*" in key:
            raise ValueError(f'invalid server name or wildcard "{name}"')
        return add_new(self.exact, key, server)

    def add_pattern(self, Pattern pattern not None, server):
        """Let hosts that match lead to `server`, after all patterns added before."""
        self.patterns.append(pattern)
        self.pattern_servers.append(server)

    @property
    def all_patterns(self):
        """The Patterns in here, for whoever defines variables of their named groups."""
        return list(self.patterns)

    def find(self, bytes host not None):
        """(server, groups of the regex that matched or None) for a host in its one form."""
        cdef Captures c
        c.n = 0
        cdef PyObject* server = find_server(self, <const char*>host, <uint32_t>len(host), &c)
        if server == NULL:
            raise OverflowError(f"match limit reached with host {host!r}")
        groups = [host[c.off[2 * i]:c.off[2 * i + 1]] for i in range(c.n)]
        return <object>server, groups or None


cdef bint add_new(Radix names, bytes key, server):
    if names.get(key) is not None:
        return False
    return names.add(key, server)


cdef PyObject* find_server(Names t, const char* host, uint32_t n, Captures* c) noexcept:
    cdef char[MOST_HOST] reversed_host
    cdef PyObject* server = t.exact.find(host, n)
    cdef uint32_t i, length
    cdef int rc
    if server != NULL or n == 0:
        return server if server != NULL else <PyObject*>t.default_server
    if t.heads.size and n <= MOST_HOST:
        for i in range(n):
            reversed_host[i] = host[n - 1 - i]
        server = t.heads.find_prefix(reversed_host, n, &length)
        if server != NULL:
            return server
    if t.tails.size:
        server = t.tails.find_prefix(host, n, &length)
        if server != NULL:
            return server
    for i in range(<uint32_t>len(t.patterns)):
        rc = match_into(<Pattern>PyList_GET_ITEM(t.patterns, i), host, n, c)
        if rc > 0:
            return PyList_GET_ITEM(t.pattern_servers, i)
        if rc < 0:
            return NULL
    return <PyObject*>t.default_server


def host_of(bytes field not None):
    """(host, port) of a Host field or an authority, port 0 if none; ValueError: answer 400."""
    cdef bytearray room = bytearray(len(field) + 1)
    cdef char* out = room
    cdef uint32_t n, port
    if read_host(<const char*>field, <uint32_t>len(field), out, &n, &port) < 0:
        raise ValueError(f"invalid host {field!r}")
    return out[:n], port
