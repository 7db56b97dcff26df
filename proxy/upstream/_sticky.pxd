# `sticky cookie` of an upstream: a client is sent to the peer that answered it before.

from cython cimport final
from libc.stdint cimport int64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.upstream._balance cimport Peer, Upstream
from proxy.variables._variables cimport Template


@final
cdef class StickyCookie:
    cdef readonly bytes name
    cdef Str name_s
    cdef readonly Template attributes     # "; Path=/" …, perhaps with variables
    cdef readonly int64_t age_s           # how long it is kept; 0: for its session


# The id of the peer that the request's cookie names; n is 0 without one.
cdef Str known_peer(StickyCookie s, Request r) noexcept
# p was chosen: the answer carries a cookie that names it (nginx: always). 0 or a fault.
cdef int name_peer(StickyCookie s, Request r, Peer p) noexcept
