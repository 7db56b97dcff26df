# `sticky` of an upstream: a client is sent to the peer that answered it before, or that it names.

from cython cimport final
from libc.stdint cimport int64_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.upstream._balance cimport Peer, Tried, Upstream
from proxy.variables._variables cimport Template


@final
cdef class StickyCookie:
    cdef readonly bytes name
    cdef Str name_s
    cdef readonly Template attributes     # "; Path=/" …, perhaps with variables
    cdef readonly int64_t age_s           # how long it is kept; 0: for its session


@final
cdef class StickyKey:
    cdef readonly list keys               # Templates: the first that is not empty
    cdef readonly bint is_route           # it names the peer; else it is hashed


# The peer that the request asks for, its connection counted; None: it asks for none, or for one
# that may not be asked (again).
cdef Peer pick_sticky(Upstream u, Request r, Tried* t, uint64_t now_ms)
# p was chosen: with a cookie the answer names it (nginx: always). 0 or a fault.
cdef int name_peer(Upstream u, Request r, Peer p) noexcept
