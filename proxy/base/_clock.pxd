# The time of this wake-up, read once and shared by everybody who asks.

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef struct Clock:
    uint64_t now_ms          # monotonic
    int64_t wall_s           # seconds since 1970
    uint32_t wall_ms         # milliseconds within that second
    uint64_t date_at         # wall_s that `date` and `log_time` were written for
    char date[32]            # IMF-fixdate, 29 bytes (RFC 9110 §5.6.7)
    char log_time[32]        # 23/Nov/2026:10:29:52 +0000, 26 bytes
    char log_iso[32]         # 2026-11-23T10:29:52+00:00, 25 bytes

cdef Clock clock

cdef void tick() noexcept nogil
cdef Clock* clock_now() noexcept nogil
