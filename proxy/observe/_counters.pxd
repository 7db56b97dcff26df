# Counters: each process adds in a block of its own, readers sum, no lock on the way.
#
# Block 0 is the base: what dead processes counted. A row is a series (server, location,
# function) with a latency histogram for each status class; a plain counter is one number
# under a metric name with labels. Rows and plain counters are named once, in shared
# memory, and keep their numbers over reloads.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from proxy.base._shm cimport DATA_AT, Zone, ZoneHead


cdef enum:
    N_BOUNDS = 14           # of the histogram; one bucket more for what is slower
    N_CLASSES = 6           # status // 100; 0: none of 1xx … 5xx
    LABEL_BYTES = 256


cdef struct Latency:        # two cache lines
    uint64_t bucket[15]     # requests that took this long, not yet summed up
    uint64_t sum_us


cdef struct Row:
    Latency of_class[6]


cdef struct Block:
    uint32_t is_used
    uint32_t pid
    # gauges: gone with the process
    int64_t active
    int64_t reading
    int64_t writing
    int64_t waiting
    # counters: folded into the base
    uint64_t accepted
    uint64_t handled
    uint64_t requests
    uint64_t spare[8]


cdef struct Label:
    uint16_t n
    uint16_t is_gauge
    char text[252]          # fields end with a NUL each


cdef struct CountersHead:
    uint32_t n_processes
    uint32_t cap_rows
    uint32_t cap_plain
    uint32_t n_rows
    uint32_t n_plain
    uint32_t spare
    uint64_t fold_serial    # odd while the master folds: readers look again
    uint64_t rows_at        # labels; bytes from the zone's first byte
    uint64_t plain_at
    uint64_t blocks_at
    uint64_t block_bytes


cdef class Counters:
    cdef readonly Zone zone
    cdef readonly uint32_t process
    cdef CountersHead* head
    cdef Block* block       # this process' own
    cdef Row* rows
    cdef uint64_t* plain
    cdef dict row_numbers
    cdef dict plain_numbers

    cdef int learn(self) except -1


# Clients and requests over all processes, now.
cdef void sum_connections(Counters c, Block* total) noexcept


cdef inline uint32_t bucket_of(uint64_t us) noexcept nogil:
    """Which bucket a duration falls into: the bounds of OpenTelemetry's HTTP metrics."""
    if us <= 5_000:
        return 0
    if us <= 100_000:
        if us <= 25_000:
            return 1 if us <= 10_000 else 2
        if us <= 50_000:
            return 3
        return 4 if us <= 75_000 else 5
    if us <= 1_000_000:
        if us <= 500_000:
            return 6 if us <= 250_000 else 7
        return 8 if us <= 750_000 else 9
    if us <= 5_000_000:
        return 10 if us <= 2_500_000 else 11
    if us <= 10_000_000:
        return 12 if us <= 7_500_000 else 13
    return 14


cdef inline void count_request(Counters c, uint32_t row, uint32_t status,
                               uint64_t duration_us) noexcept nogil:
    """One request is done. A row that does not exist counts as row 0, "other"."""
    cdef Latency* latency
    status //= 100
    if status >= N_CLASSES:
        status = 0
    if row >= c.head.cap_rows:
        row = 0
    latency = &c.rows[row].of_class[status]
    latency.bucket[bucket_of(duration_us)] += 1
    latency.sum_us += duration_us


cdef inline void count(Counters c, uint32_t number, uint64_t n) noexcept nogil:
    """Add to a plain counter or (n may wrap) to a gauge."""
    if number < c.head.cap_plain:
        c.plain[number] += n
