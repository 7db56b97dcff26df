# `sticky cookie` of an upstream: a client is sent to the peer that answered it before.
#
# The cookie's value is the MD5 of the peer's address in hex, as nginx documents it. If that peer
# cannot be asked, the balancing method chooses another, and the cookie follows.

from cython cimport final
from libc.stdint cimport uint16_t, uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport take
from proxy.base._request cimport Request
from proxy.base.span cimport is_equal, of_bytes, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.variables._lines cimport get_cookie
from proxy.variables._variables cimport evaluate

cdef bytes SET_COOKIE = b"Set-Cookie"


@final
cdef class StickyCookie:
    def __init__(self, bytes name not None, Template attributes not None):
        self.name = name
        self.name_s = of_bytes(self.name)
        self.attributes = attributes


cdef Str known_peer(StickyCookie s, Request r) noexcept:
    cdef Str value
    if get_cookie(r, <uint64_t>&s.name_s, &value) == 1 and value.n == 32:
        return value
    return text(b"", 0)


cdef int name_peer(StickyCookie s, Request r, Peer p, Str known) noexcept:
    cdef Str attributes
    cdef Str id = of_bytes(p.sticky_id)
    cdef size_t n = s.name_s.n
    cdef uint16_t i
    cdef char* line
    cdef int rc
    if is_equal(id, known):
        return 0
    rc = evaluate(s.attributes, r, &attributes)
    if rc < 0:
        return rc
    line = <char*>take(&r.arena, n + 1 + id.n + attributes.n)
    if line == NULL:
        return NO_MEMORY
    memcpy(line, s.name_s.p, n)
    line[n] = c"="
    memcpy(line + n + 1, id.p, id.n)
    memcpy(line + n + 1 + id.n, attributes.p, attributes.n)
    for i in range(r.n_out):                 # of a peer that failed
        if r.out[i].value.n > n and is_equal(text(r.out[i].value.p, n + 1), text(line, n + 1)):
            r.out[i].value = text(line, n + 1 + id.n + attributes.n)
            return 0
    if r.add_field(of_bytes(SET_COOKIE), text(line, n + 1 + id.n + attributes.n), 0) == NULL:
        return NO_MEMORY
    return 0
