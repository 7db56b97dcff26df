# What all workers know of a key: how soon its paces are due again, and who holds it.
#
# A client of MQTT is such a key: it shall not get fresh buckets by connecting again, and only the
# newest of its sessions is served. A key takes one cell and goes when it was used least recently.

from libc.stdint cimport uint32_t, uint64_t

from proxy.base._shm cimport Zone, ZoneHead


cdef enum:
    PACES_MAX = 2               # as many as a cell has room for
    PACE_KEY = 24               # bytes of a key: longer ones are digested by who makes them


cdef struct Pace:               # a token bucket, told in time (GCRA); cost 0: no limit
    uint64_t cost_ns            # what it takes until so much may come again
    uint64_t burst_ns           # of it that may come at once


cdef class PaceZone:
    cdef readonly Zone zone
    cdef ZoneHead* head


# May it come now? 0: yes, and all its costs are taken; else in so many ms, and none is. A cost
# beyond its burst is taken when the bucket is full.
cdef uint64_t take_paces(PaceZone z, const char* key, uint32_t n, const Pace* paces,
                         uint64_t now_ms) noexcept
# `holder` (not 0) has the key from now on.
cdef void put_holder(PaceZone z, const char* key, uint32_t n, uint64_t holder) noexcept
# Does it still? Also where the key was forgotten meanwhile: then it is written anew.
cdef bint is_holder(PaceZone z, const char* key, uint32_t n, uint64_t holder) noexcept
