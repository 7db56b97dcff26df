# limit_req: may this request pass now, must it wait, or is it one too many?
#
# Callers (admit) build a ReqLimits when the plan is frozen and ask it once a request.
# Nothing here allocates, waits on anything but shard locks, or raises.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base._shm cimport Zone, ZoneHead
from proxy.base.span cimport Str


cdef enum ReqResult:
    # the first six are the values of $limit_req_status, see REQ_STATUS in _req.pyx
    REQ_NONE = 0            # no limit applied: every key was empty or too long
    REQ_PASSED = 1
    REQ_DELAYED = 2
    REQ_REJECTED = 3
    REQ_DELAYED_DRY_RUN = 4
    REQ_REJECTED_DRY_RUN = 5
    REQ_NO_ROOM = 6         # the key does not fit the zone: answered like REJECTED

cdef enum:
    REQ_LIMITS_MAX = 32     # limits in force for one request


cdef class ReqZone:
    cdef readonly Zone zone
    cdef readonly uint32_t rate     # 1/1000 request per second
    cdef ZoneHead* head


cdef struct ReqLimit:
    ZoneHead* head
    uint32_t rate                   # 1/1000 request per second
    uint32_t burst                  # 1/1000 request
    uint32_t delay                  # 1/1000 request, 0xffffffff: nodelay


cdef class ReqLimits:
    cdef readonly uint32_t n
    cdef readonly tuple zones       # ReqZone each, keeps the memory mapped
    cdef ReqLimit limit[32]


cdef int limit_req_check(ReqZone z, const char* key, uint32_t n, uint32_t burst,
                         uint32_t delay_threshold, uint64_t now_ms, uint32_t* excess_out,
                         bint account) noexcept
cdef int limit_req_check_all(ReqLimits limits, const Str* keys, uint64_t now_ms,
                             uint64_t* delay_ms, uint32_t* excess,
                             uint32_t* which) noexcept


cdef inline int dry_run_of(int result) noexcept nogil:
    """What $limit_req_status says under limit_req_dry_run."""
    if result == REQ_DELAYED:
        return REQ_DELAYED_DRY_RUN
    if result == REQ_REJECTED or result == REQ_NO_ROOM:
        return REQ_REJECTED_DRY_RUN
    return result
