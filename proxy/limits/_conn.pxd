# limit_conn: how many requests of one key are in flight, over all workers.
#
# Callers (admit) take when a request's head is read and give when it is done. Who holds
# stands beside each count, by worker, so that a dead worker's takes are given back.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from proxy.base._shm cimport Zone, ZoneHead
from proxy.base.span cimport Str


cdef enum ConnResult:
    # the values of $limit_conn_status, see CONN_STATUS in _conn.pyx
    CONN_NONE = 0           # no limit applied: every key was empty or too long
    CONN_PASSED = 1
    CONN_REJECTED = 2
    CONN_REJECTED_DRY_RUN = 3
    CONN_NO_ROOM = 4        # the zone is full: answered like REJECTED, without its log line

cdef enum:
    CONN_KEY_MAX = 255      # bytes, as in nginx
    CONN_LIMITS_MAX = 32


cdef class ConnZone:
    cdef readonly Zone zone
    cdef ZoneHead* head


cdef struct ConnLimit:
    ZoneHead* head
    uint32_t limit


cdef class ConnLimits:
    cdef readonly uint32_t n
    cdef readonly tuple zones
    cdef ConnLimit limit[32]


cdef int limit_conn_take(ZoneHead* head, const char* key, uint32_t n, uint32_t limit,
                         uint16_t worker, uint64_t* handle) noexcept nogil
cdef void limit_conn_give(ZoneHead* head, uint64_t handle, uint16_t worker) noexcept nogil
cdef int limit_conn_take_all(ConnLimits limits, const Str* keys, uint16_t worker,
                             uint64_t* handles, uint32_t* which) noexcept
cdef void limit_conn_give_all(ConnLimits limits, const uint64_t* handles,
                              uint16_t worker) noexcept
