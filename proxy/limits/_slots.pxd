# Counted slots by number: a function's concurrency, a peer's max_conns.
#
# A zone holds `n_numbers` entries. Who holds stands in a ledger (worker x number), so that
# a dead worker's slots are given back, and a count broken in the middle is summed again.
# Each entry has room for a FIFO ring of waiters' tickets; nobody writes it yet.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from proxy.base._shm cimport DATA_AT, Zone, ZoneHead


cdef enum:
    SLOT_RING = 64          # tickets that may wait for one number
    SLOT_SHARDS = 16


cdef struct Ticket:
    uint32_t worker
    uint32_t request


cdef struct SlotEntry:      # one cache line and its ring
    uint32_t n              # taken now
    uint32_t most           # most that were ever taken at once
    uint32_t ring_first
    uint32_t ring_n
    uint64_t n_refused
    uint32_t spare[10]
    Ticket ring[64]


cdef struct SlotsHead:
    uint32_t n_numbers
    uint32_t n_workers
    uint64_t entries_at     # bytes from the zone's first byte
    uint64_t ledger_at
    uint32_t spare[26]
    uint32_t changing[16]   # per shard: the number under change + 1, or 0


cdef class SlotZone:
    cdef readonly Zone zone
    cdef ZoneHead* head


cdef inline SlotsHead* slots_in(ZoneHead* head) noexcept nogil:
    return <SlotsHead*>(<char*>head + DATA_AT)


cdef inline SlotEntry* entry_at(ZoneHead* head, uint32_t number) noexcept nogil:
    return <SlotEntry*>(<char*>head + slots_in(head).entries_at) + number


cdef inline uint32_t* ledger_at(ZoneHead* head, uint32_t worker, uint32_t number) noexcept nogil:
    return (<uint32_t*>(<char*>head + slots_in(head).ledger_at)
            + <uint64_t>worker * slots_in(head).n_numbers + number)


cdef bint slot_take(ZoneHead* head, uint32_t number, uint32_t limit,
                    uint16_t worker) noexcept nogil
cdef void slot_give(ZoneHead* head, uint32_t number, uint16_t worker) noexcept nogil
