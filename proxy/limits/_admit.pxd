# The limiters' part of admit: keys evaluated, limits asked, what was taken given back.

from libc.stdint cimport uint16_t, uint64_t

from proxy.base._request cimport Request
from proxy.limits._conn cimport ConnLimits
from proxy.limits._req cimport ReqLimits


cdef class LimitSettings:
    cdef public object conns          # ConnLimits, or None
    cdef public list conn_keys        # Template each
    cdef public int conn_status
    cdef public bint conn_dry_run
    cdef public int conn_level
    cdef public object reqs           # ReqLimits, or None
    cdef public list req_keys
    cdef public int req_status
    cdef public bint req_dry_run
    cdef public int req_level
    cdef public uint16_t worker       # whose ledger
    cdef public list req_counters     # numbers of the counters by limit_req_status, or empty
    cdef public list conn_counters
    cdef public list req_zones        # their names, bytes
    cdef public list conn_zones


# GO; LIMITED (r.status is the answer's); another fault.
cdef int take_conns(LimitSettings s, Request r) noexcept
cdef void give_conns(Request r) noexcept
# The same; *delay_ms > 0 with GO: hold the request for so long.
cdef int check_reqs(LimitSettings s, Request r, uint64_t* delay_ms) noexcept
