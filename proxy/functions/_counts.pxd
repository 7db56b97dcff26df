# What all processes know of functions: in shared memory, found by name, exact over workers.
#
# Two kinds of entries, found by a 128-bit digest of their key: versions (how many requests are in
# flight and parked, the FIFO of who waits) and replicas (slots taken). Beside the entries each
# worker has a row of cells, one for each entry: what it has of it. A cell is its worker's ledger:
# whatever stands in an entry can be summed again from the cells and tickets, and is, after a
# death. An entry's own lock guards its queue and slots; the numbers of a version's cells are
# written by their worker alone, without a lock.

from cython cimport final
from libc.stdint cimport uint32_t, uint64_t

from proxy.base._shm cimport DATA_AT, Zone, ZoneHead
from proxy.upstream._shared cimport PeerState


cdef enum:
    WORKERS = 128         # rows of cells: workers of all generations that live at a time
    TICKETS = 4096        # requests of one worker that may be parked
    DIRECTORY_LOCK = 0    # guards which entries there are; 1 … 63 are entries'


cdef enum EntryKind:
    ENTRY_FREE = 0
    ENTRY_VERSION = 1
    ENTRY_REPLICA = 2


cdef enum TicketState:
    TICKET_FREE = 0
    TICKET_QUEUED = 1
    TICKET_GRANTED = 2    # a slot was taken for it; its owner alone touches it from here on


cdef struct Entry:
    uint64_t digest[2]
    uint32_t kind         # written last when an entry is born, first when it goes
    uint32_t chain        # next of the bucket, or of the free list
    uint32_t lock
    uint32_t birth        # counts what stood here
    # a version's
    uint32_t first        # tickets that wait; 0: none
    uint32_t last
    uint32_t n_parked
    uint32_t spare
    uint64_t parked_bytes
    uint64_t next_order
    # a replica's
    PeerState state


cdef struct Cell:         # one cache line: of one worker, for one entry
    uint32_t serial       # odd while it is written
    uint32_t in_flight
    uint32_t parked
    uint32_t held         # replica: slots taken, plus one if the worker knows it
    uint64_t integral_ms  # of in_flight + parked over time, up to since_ms
    uint64_t since_ms
    uint64_t requests     # sent to a replica
    uint64_t cold_starts
    uint64_t refused
    uint64_t copies       # among the requests: those for a shadow


cdef struct Ticket:       # a request that waits
    uint32_t state
    uint32_t entry        # of its version
    uint32_t next         # in the queue; 0: none
    uint32_t prev
    uint32_t replica      # entry whose slot was taken for it
    uint32_t bytes
    uint64_t order


cdef struct CountsHead:
    uint32_t n_entries    # entry 0 is none
    uint32_t n_buckets    # a power of two
    uint32_t fresh        # entries from here on were never touched
    uint32_t free
    uint32_t most_rows    # rows of cells that were ever used
    uint32_t spare
    uint64_t buckets_at   # bytes from the zone's first byte
    uint64_t entries_at
    uint64_t cells_at
    uint64_t tickets_at


@final
cdef class Counts:
    cdef readonly Zone zone
    cdef ZoneHead* head
    cdef CountsHead* at
    cdef readonly uint32_t row         # of this worker's cells; 0: of nobody's, the dead's sums
    cdef int bells[128]                # eventfd of each row, -1: none

    cdef int lay_out(self) except -1
    cdef uint32_t take_entry(self, bytes key, EntryKind kind, uint32_t lock)
    cdef uint32_t find_entry(self, bytes key, EntryKind kind)


cdef inline Entry* entry_at(Counts c, uint32_t i) noexcept nogil:
    return <Entry*>(<char*>c.head + c.at.entries_at) + i


cdef inline Cell* cell_at(Counts c, uint32_t row, uint32_t i) noexcept nogil:
    return <Cell*>(<char*>c.head + c.at.cells_at) + <uint64_t>row * c.at.n_entries + i


cdef inline Ticket* ticket_at(Counts c, uint32_t number) noexcept nogil:
    """number: row * TICKETS + one of 1 … TICKETS-1."""
    return <Ticket*>(<char*>c.head + c.at.tickets_at) + number


cdef extern from *:
    """
    /* What was written before is seen before what is written now. */
    #define headrace_publish() __atomic_thread_fence(__ATOMIC_RELEASE)
    #define headrace_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    """
    void publish "headrace_publish"() noexcept nogil
    void acquire "headrace_acquire"() noexcept nogil


cdef inline void change_cell(Cell* cell, int in_flight, int parked, uint64_t now_ms) noexcept nogil:
    """More or fewer requests of this worker; the integral first goes on to now."""
    cell.serial += 1
    publish()
    if now_ms > cell.since_ms:
        cell.integral_ms += <uint64_t>(cell.in_flight + cell.parked) * (now_ms - cell.since_ms)
        cell.since_ms = now_ms
    cell.in_flight += <uint32_t>in_flight
    cell.parked += <uint32_t>parked
    if in_flight > 0:
        cell.requests += 1
    publish()
    cell.serial += 1


# The lock of an entry. False: it cannot be had, go without what it guards.
cdef bint lock_entry(Counts c, uint32_t i) noexcept nogil
cdef void unlock_entry(Counts c, uint32_t i) noexcept nogil
# Under the lock: put a ticket at the end of its version's queue, and take one out of it.
cdef void link_ticket(Counts c, uint32_t number) noexcept nogil
cdef void unlink_ticket(Counts c, uint32_t number) noexcept nogil
# Wake the worker of that row: it looks at its tickets.
cdef void ring(Counts c, uint32_t row) noexcept nogil
# A worker knows a replica, and no longer does; `taken` slots are its own at that moment.
cdef uint32_t join_replica(Counts c, bytes id, uint32_t version, PeerState* own)
cdef void leave_replica(Counts c, uint32_t i, PeerState* own) noexcept
