# `sticky` of an upstream: a client is sent to the peer that answered it before, or that it names.
#
# A cookie's value is the MD5 of the peer's address in hex, as nginx documents it. If that peer
# cannot be asked, the balancing method chooses another, and the cookie follows. `route` looks for
# the peer of that name; what is known by a header, a variable or the address has a place among
# the peers by a hash.

from cython cimport final
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy
from libc.time cimport strftime, time_t, tm

from proxy.base._arena cimport take
from proxy.base._clock cimport clock
from proxy.base._request cimport Request
from proxy.base.span cimport is_equal, of_bytes, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.upstream._balance cimport pick_alike, pick_known
from proxy.variables._lines cimport get_cookie
from proxy.variables._variables cimport evaluate

cdef extern from "<time.h>" nogil:
    tm* gmtime_r(const time_t*, tm*)

cdef enum:
    FOREVER_S = 315360000     # expires=max

cdef bytes SET_COOKIE = b"Set-Cookie"


@final
cdef class StickyCookie:
    def __init__(self, bytes name not None, Template attributes not None, int64_t age_s=0):
        self.name = name
        self.name_s = of_bytes(self.name)
        self.attributes = attributes
        self.age_s = age_s


@final
cdef class StickyKey:
    def __init__(self, list keys not None, bint is_route):
        self.keys = keys
        self.is_route = is_route


cdef Peer pick_sticky(Upstream u, Request r, Tried* t, uint64_t now_ms):
    cdef StickyCookie s
    cdef Str value
    if type(u.sticky) is not StickyCookie:
        return pick_by_key(<StickyKey>u.sticky, u, r, t, now_ms)
    s = <StickyCookie>u.sticky
    if get_cookie(r, <uint64_t>&s.name_s, &value) != 1 or value.n != 32:
        value = text(b"", 0)
    return pick_known(u, t, value, now_ms)       # without a value, too: it names the peers


cdef Peer pick_by_key(StickyKey s, Upstream u, Request r, Tried* t, uint64_t now_ms):
    cdef Template key
    cdef Str value
    for key in s.keys:
        if evaluate(key, r, &value) == 0 and value.n:
            if s.is_route:
                return pick_known(u, t, value, now_ms)
            return pick_alike(u, t, value, now_ms)
    return None


cdef size_t write_age(StickyCookie s, char* out) noexcept:
    """expires and max-age, in nginx's form: 96 bytes at most."""
    cdef time_t end = <time_t>(clock.wall_s + s.age_s)
    cdef tm t
    cdef char[48] date
    if s.age_s == 0:
        return 0
    if s.age_s == FOREVER_S:
        memcpy(date, b"Thu, 31-Dec-37 23:55:55 GMT", 28)
    else:
        gmtime_r(&end, &t)
        strftime(date, 48, "%a, %d-%b-%y %H:%M:%S GMT", &t)
    return <size_t>snprintf(out, 96, "; expires=%s; max-age=%lld", date, <long long>s.age_s)


cdef int name_peer(Upstream u, Request r, Peer p) noexcept:
    cdef StickyCookie s
    cdef Str attributes
    cdef Str id = of_bytes(p.sticky_id)
    cdef size_t n
    cdef size_t size
    cdef uint16_t i
    cdef char* line
    cdef int rc
    if type(u.sticky) is not StickyCookie:
        return 0
    s = <StickyCookie>u.sticky
    rc = evaluate(s.attributes, r, &attributes)
    if rc < 0:
        return rc
    n = s.name_s.n
    line = <char*>take(&r.arena, n + 1 + id.n + attributes.n + 96)
    if line == NULL:
        return NO_MEMORY
    memcpy(line, s.name_s.p, n)
    line[n] = c"="
    memcpy(line + n + 1, id.p, id.n)
    size = n + 1 + id.n
    size += write_age(s, line + size)
    memcpy(line + size, attributes.p, attributes.n)
    size += attributes.n
    for i in range(r.n_out):                 # of a peer that failed
        if r.out[i].value.n > n and is_equal(text(r.out[i].value.p, n + 1), text(line, n + 1)):
            r.out[i].value = text(line, size)
            return 0
    return 0 if r.add_field(of_bytes(SET_COOKIE), text(line, size), 0) != NULL else NO_MEMORY
