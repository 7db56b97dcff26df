# Conditional requests (RFC 9110 §13) and ranges (§14) over an answer of ours.

from libc.stdint cimport int64_t, uint32_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str


cdef enum RangesRead:
    RANGES_NONE = 0       # none asked for, or not to be obeyed: the whole answer
    RANGES_FOUND = 1
    RANGES_BAD = 2        # 416


cdef struct Range:
    int64_t at
    int64_t end           # behind the last byte


# 0: go on, 304 or 412. `etag` may be empty; r.last_modified is the answer's. `since`: SinceRule.
cdef int check_conditions(Request r, Str etag, int since) noexcept
# What Range and If-Range ask of an answer of `size` bytes that last changed at `changed` (-1: not
# known): RangesRead, or a fault. The ranges lie in the arena.
cdef int find_ranges(
    Request r, Str etag, int64_t changed, int64_t size, uint32_t most, Range** ranges, uint32_t* n
) noexcept
