# Entries come and go, queues are linked, and what a death left is summed up again.

import hashlib
import os

from cython cimport final
from libc.string cimport memcmp, memcpy, memset
from posix.unistd cimport write as c_write

from proxy.base._clock cimport clock, tick
from proxy.base._shm cimport (
    LOCK_FAILED, LOCKED, LOCKS_MAX, Zone, ordered, zone_lock, zone_mended, zone_unlock,
)
from proxy.upstream._shared cimport PeerState

cdef enum:
    LOOKS = 1000              # at a cell that is being written


def rows_of_workers() -> int:
    """How many workers of all generations may live at a time."""
    return WORKERS - 1


@final
cdef class Counts:
    """The zone of functions as one process sees it.

    ledger: the worker's (process/seat.py), -1 for who only reads: controller and master. bells:
    an eventfd for each ledger, where the owner of a ticket is told of it.
    """

    def __init__(self, Zone zone not None, int ledger=-1, bells=()):
        cdef uint32_t i
        if zone.kind != "functions":
            raise ValueError(f'"{zone.name}" is no zone of functions')
        self.zone = zone
        self.head = zone.head
        self.at = <CountsHead*>zone.data()
        if not zone.head.is_ready:
            self.lay_out()
        if ledger + 1 >= WORKERS:
            raise ValueError(f"more than {WORKERS - 1} workers")
        self.row = <uint32_t>(ledger + 1)
        if self.row >= self.at.most_rows and lock_directory(self):
            self.at.most_rows = max(self.at.most_rows, self.row + 1)
            unlock_directory(self)
        for i in range(WORKERS):
            self.bells[i] = -1
        for i, bell in enumerate(bells):
            if i + 1 < WORKERS:
                self.bells[i + 1] = bell
        if self.row and self.bells[self.row] < 0:
            self.bells[self.row] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    cdef int lay_out(self) except -1:
        """A fresh zone. ValueError: it is too small."""
        cdef uint64_t fixed = DATA_AT + 4096 + <uint64_t>WORKERS * TICKETS * sizeof(Ticket) + 64
        cdef uint64_t an_entry = sizeof(Entry) + WORKERS * sizeof(Cell) + 2 * sizeof(uint32_t)
        cdef uint64_t n
        cdef CountsHead* at = self.at
        if self.zone.size < fixed + 64 * an_entry:
            raise ValueError(f'zone "{self.zone.name}" is too small')
        n = (self.zone.size - fixed) // an_entry
        at.n_entries = <uint32_t>n
        at.n_buckets = 1
        while at.n_buckets * 2 <= n:
            at.n_buckets *= 2
        at.fresh = 1
        at.most_rows = 1
        at.tickets_at = DATA_AT + 4096
        at.cells_at = (at.tickets_at + <uint64_t>WORKERS * TICKETS * sizeof(Ticket) + 63) & ~63
        at.entries_at = at.cells_at + n * WORKERS * sizeof(Cell)
        at.buckets_at = at.entries_at + n * sizeof(Entry)
        ordered()
        self.head.is_ready = 1
        return 0

    @property
    def bell(self):
        """The descriptor that is readable when this worker shall look at its tickets."""
        return self.bells[self.row]

    @property
    def room(self):
        """Entries that there are, and that were ever used."""
        return self.at.n_entries - 1, self.at.fresh - 1

    cdef uint32_t take_entry(self, bytes key, EntryKind kind, uint32_t lock):
        """The entry of that key, made if need be; 0: there is no room."""
        cdef bytes text = hashlib.blake2b(key, digest_size=16, person=b"%d" % <int>kind).digest()
        cdef uint64_t digest[2]
        cdef uint32_t i
        memcpy(digest, <const char*>text, 16)
        if not lock_directory(self):
            return 0
        i = find_digest(self, digest)
        if i == 0:
            i = new_entry(self, digest, kind, lock)
        unlock_directory(self)
        return i

    cdef uint32_t find_entry(self, bytes key, EntryKind kind):
        cdef bytes text = hashlib.blake2b(key, digest_size=16, person=b"%d" % <int>kind).digest()
        cdef uint64_t digest[2]
        cdef uint32_t i = 0
        memcpy(digest, <const char*>text, 16)
        if lock_directory(self):
            i = find_digest(self, digest)
            unlock_directory(self)
        return i

    def sample(self, str key not None):
        """(integral_ns of in flight + parked, requests started, in flight, parked) of a version,
        over all workers, the dead included. Zeros for an unknown key."""
        cdef uint32_t i = self.find_entry(key.encode(), ENTRY_VERSION)
        cdef Cell sum
        if i == 0:
            return 0, 0, 0, 0
        tick()
        sum_cells(self, i, &sum, clock.now_ms)
        return sum.integral_ms * 1_000_000, sum.requests, sum.in_flight, sum.parked

    def look(self, str key not None):
        """All numbers of a version, for whoever wants to look: cold_starts, refused, copies, and
        those of sample; requests are clients' alone here."""
        cdef uint32_t i = self.find_entry(key.encode(), ENTRY_VERSION)
        cdef Cell sum
        memset(&sum, 0, sizeof(Cell))
        tick()
        if i:
            sum_cells(self, i, &sum, clock.now_ms)
        return {
            "in_flight": sum.in_flight, "parked": sum.parked,
            "requests": sum.requests - min(sum.copies, sum.requests), "copies": sum.copies,
            "cold_starts": sum.cold_starts, "refused": sum.refused,
            "waiting": entry_at(self, i).n_parked if i else 0,
            "waiting_bytes": entry_at(self, i).parked_bytes if i else 0,
        }

    def slots(self, str id not None):
        """Slots of a replica that are taken, over all workers."""
        cdef uint32_t i = self.find_entry(id.encode(), ENTRY_REPLICA)
        return entry_at(self, i).state.conns if i else 0

    def forget(self, str key not None):
        """A version that is no more, or a replica that is gone. What somebody still holds stays,
        until it is forgotten again."""
        cdef uint32_t i
        for kind in (ENTRY_VERSION, ENTRY_REPLICA):
            i = self.find_entry(key.encode(), kind)
            if i and lock_directory(self):
                if entry_at(self, i).kind == kind and not is_held(self, i):
                    drop_entry(self, i)
                unlock_directory(self)

    def give_back_dead(self, int ledger):
        """Nothing that the dead worker of that ledger held stays taken, and whoever waits is told
        to look. The master calls this."""
        cdef uint32_t row = <uint32_t>(ledger + 1)
        cdef uint32_t i
        cdef uint32_t number
        cdef Ticket* t
        if not 0 < row < WORKERS:
            return
        for number in range(row * TICKETS, (row + 1) * TICKETS):
            t = ticket_at(self, number)
            if t.state == TICKET_FREE or t.entry == 0 or t.entry >= self.at.fresh:
                t.state = TICKET_FREE
                continue
            i = t.entry
            if lock_entry(self, i):
                if t.state == TICKET_QUEUED:
                    unlink_ticket(self, number)
                t.state = TICKET_FREE
                unlock_entry(self, i)
        tick()
        for i in range(1, self.at.fresh):
            bury(self, row, i)
        for row in range(1, self.at.most_rows):
            ring(self, row)


# -- entries ---------------------------------------------------------------------------------

cdef inline uint32_t* bucket_at(Counts c, const uint64_t* digest) noexcept nogil:
    return (<uint32_t*>(<char*>c.head + c.at.buckets_at)
            + (<uint32_t>digest[0] & (c.at.n_buckets - 1)))


cdef bint lock_directory(Counts c) noexcept nogil:
    cdef int result = zone_lock(c.head, DIRECTORY_LOCK)
    if result == LOCK_FAILED:
        return False
    if result != LOCKED:
        mend_directory(c)
        zone_mended(c.head, DIRECTORY_LOCK)
    return True


cdef inline void unlock_directory(Counts c) noexcept nogil:
    zone_unlock(c.head, DIRECTORY_LOCK)


cdef void mend_directory(Counts c) noexcept nogil:
    """Chains and the free list, again from the entries that are marked as taken."""
    cdef uint32_t* buckets = <uint32_t*>(<char*>c.head + c.at.buckets_at)
    cdef uint32_t* bucket
    cdef Entry* e
    cdef uint32_t i
    memset(buckets, 0, c.at.n_buckets * sizeof(uint32_t))
    c.at.free = 0
    for i in range(1, c.at.fresh):
        e = entry_at(c, i)
        if e.kind == ENTRY_FREE:
            e.chain = c.at.free
            c.at.free = i
        else:
            bucket = bucket_at(c, e.digest)
            e.chain = bucket[0]
            bucket[0] = i


cdef uint32_t find_digest(Counts c, const uint64_t* digest) noexcept nogil:
    cdef uint32_t i = bucket_at(c, digest)[0]
    while i and memcmp(entry_at(c, i).digest, digest, 16) != 0:
        i = entry_at(c, i).chain
    return i


cdef uint32_t new_entry(Counts c, const uint64_t* digest, EntryKind kind,
                        uint32_t lock) noexcept nogil:
    cdef uint32_t* bucket = bucket_at(c, digest)
    cdef uint32_t i = c.at.free
    cdef uint32_t birth
    cdef uint32_t row
    cdef Entry* e
    if i:
        c.at.free = entry_at(c, i).chain
    elif c.at.fresh < c.at.n_entries:
        i = c.at.fresh
        c.at.fresh += 1
    else:
        return 0
    e = entry_at(c, i)
    birth = e.birth
    memset(e, 0, sizeof(Entry))
    for row in range(c.at.most_rows):
        memset(cell_at(c, row, i), 0, sizeof(Cell))
    e.birth = birth + 1
    e.digest[0] = digest[0]
    e.digest[1] = digest[1]
    e.lock = lock or 1 + <uint32_t>(digest[1] % (LOCKS_MAX - 1))  # the same after a rebirth
    ordered()
    e.kind = kind
    e.chain = bucket[0]
    bucket[0] = i
    return i


cdef void drop_entry(Counts c, uint32_t i) noexcept nogil:
    cdef Entry* e = entry_at(c, i)
    cdef uint32_t* link = bucket_at(c, e.digest)
    while link[0] and link[0] != i:
        link = &entry_at(c, link[0]).chain
    e.birth += 1                                 # whoever still points here sees it
    ordered()
    e.kind = ENTRY_FREE
    if link[0] == i:
        link[0] = e.chain
    e.chain = c.at.free
    c.at.free = i


cdef bint is_held(Counts c, uint32_t i) noexcept nogil:
    cdef uint32_t row
    cdef Cell* cell
    if entry_at(c, i).n_parked:
        return True
    for row in range(1, c.at.most_rows):
        cell = cell_at(c, row, i)
        if cell.held or cell.in_flight or cell.parked:
            return True
    return False


cdef uint32_t join_replica(Counts c, bytes id, uint32_t version, PeerState* own):
    cdef uint32_t i = c.take_entry(id, ENTRY_REPLICA, entry_at(c, version).lock)
    cdef Entry* e
    cdef Cell* cell
    if i == 0:
        return 0
    e = entry_at(c, i)
    cell = cell_at(c, c.row, i)
    if not lock_entry(c, i):
        return 0
    if e.state.key == 0:
        e.state = own[0]
        e.state.conns = 0
        e.state.key = 1
    if cell.held == 0:
        cell.held = 1 + own.conns
        e.state.conns += own.conns
    unlock_entry(c, i)
    return i


cdef void leave_replica(Counts c, uint32_t i, PeerState* own) noexcept:
    cdef Entry* e = entry_at(c, i)
    cdef Cell* cell = cell_at(c, c.row, i)
    if not lock_directory(c):
        return
    if lock_entry(c, i):
        own[0] = e.state
        own.conns = 0
        if cell.held:
            own.conns = cell.held - 1
            cell.held = 0
            e.state.conns -= min(e.state.conns, own.conns)
        unlock_entry(c, i)
        if e.kind == ENTRY_REPLICA and not is_held(c, i):
            drop_entry(c, i)
    unlock_directory(c)


# -- locks, queues ---------------------------------------------------------------------------

cdef bint lock_entry(Counts c, uint32_t i) noexcept nogil:
    cdef uint32_t lock = entry_at(c, i).lock
    cdef int result = zone_lock(c.head, lock)
    if result == LOCK_FAILED:
        return False
    if result != LOCKED:
        mend(c, lock)
        zone_mended(c.head, lock)
    return True


cdef void unlock_entry(Counts c, uint32_t i) noexcept nogil:
    zone_unlock(c.head, entry_at(c, i).lock)


cdef void mend(Counts c, uint32_t lock) noexcept nogil:
    """All that this lock guards, again from cells and tickets."""
    cdef uint32_t i
    cdef uint32_t row
    cdef uint32_t number
    cdef Entry* e
    cdef Ticket* t
    for i in range(1, c.at.fresh):
        e = entry_at(c, i)
        if e.lock != lock:
            continue
        if e.kind == ENTRY_REPLICA:
            sum_slots(c, i)
        elif e.kind == ENTRY_VERSION:
            e.first = e.last = e.n_parked = 0
            e.parked_bytes = 0
    for row in range(1, c.at.most_rows):
        for number in range(row * TICKETS, (row + 1) * TICKETS):
            t = ticket_at(c, number)
            if t.state == TICKET_QUEUED and 0 < t.entry < c.at.fresh and (
                    entry_at(c, t.entry).lock == lock):
                link_in_order(c, number)


cdef void sum_slots(Counts c, uint32_t i) noexcept nogil:
    cdef uint32_t row
    cdef uint32_t n = 0
    for row in range(1, c.at.most_rows):
        if cell_at(c, row, i).held:
            n += cell_at(c, row, i).held - 1
    entry_at(c, i).state.conns = n


cdef void link_in_order(Counts c, uint32_t number) noexcept nogil:
    cdef Ticket* t = ticket_at(c, number)
    cdef Entry* e = entry_at(c, t.entry)
    cdef uint32_t before = e.last
    while before and ticket_at(c, before).order > t.order:
        before = ticket_at(c, before).prev
    t.prev = before
    if before:
        t.next = ticket_at(c, before).next
        ticket_at(c, before).next = number
    else:
        t.next = e.first
        e.first = number
    if t.next:
        ticket_at(c, t.next).prev = number
    else:
        e.last = number
    e.n_parked += 1
    e.parked_bytes += t.bytes


cdef void link_ticket(Counts c, uint32_t number) noexcept nogil:
    cdef Ticket* t = ticket_at(c, number)
    cdef Entry* e = entry_at(c, t.entry)
    e.next_order += 1
    t.order = e.next_order
    t.replica = 0
    t.state = TICKET_QUEUED
    link_in_order(c, number)


cdef void unlink_ticket(Counts c, uint32_t number) noexcept nogil:
    cdef Ticket* t = ticket_at(c, number)
    cdef Entry* e = entry_at(c, t.entry)
    if t.prev:
        ticket_at(c, t.prev).next = t.next
    else:
        e.first = t.next
    if t.next:
        ticket_at(c, t.next).prev = t.prev
    else:
        e.last = t.prev
    t.next = t.prev = 0
    e.n_parked -= 1
    e.parked_bytes -= t.bytes


cdef void ring(Counts c, uint32_t row) noexcept nogil:
    cdef uint64_t one = 1
    if row < WORKERS and c.bells[row] >= 0:
        c_write(c.bells[row], &one, 8)


# -- sums ------------------------------------------------------------------------------------

cdef void read_cell(const Cell* cell, Cell* into) noexcept nogil:
    cdef int _look
    cdef uint32_t serial
    into[0] = cell[0]
    for _look in range(LOOKS):
        serial = cell.serial
        acquire()
        into[0] = cell[0]
        acquire()
        if not serial & 1 and serial == cell.serial:
            return


cdef void sum_cells(Counts c, uint32_t i, Cell* sum, uint64_t now_ms) noexcept nogil:
    cdef uint32_t row
    cdef Cell one
    memset(sum, 0, sizeof(Cell))
    for row in range(c.at.most_rows):
        read_cell(cell_at(c, row, i), &one)
        sum.integral_ms += one.integral_ms
        if now_ms > one.since_ms:
            sum.integral_ms += <uint64_t>(one.in_flight + one.parked) * (now_ms - one.since_ms)
        sum.in_flight += one.in_flight
        sum.parked += one.parked
        sum.requests += one.requests
        sum.cold_starts += one.cold_starts
        sum.refused += one.refused
        sum.copies += one.copies


cdef void bury(Counts c, uint32_t row, uint32_t i) noexcept nogil:
    """A dead worker's cell of one entry: its sums stay in row 0, what it held is given back."""
    cdef Cell* dead = cell_at(c, row, i)
    cdef Cell* base = cell_at(c, 0, i)
    cdef Entry* e = entry_at(c, i)
    if e.kind == ENTRY_FREE or dead.since_ms == 0 and dead.held == 0 and dead.refused == 0:
        return
    if not lock_entry(c, i):
        return
    if e.kind == ENTRY_REPLICA:
        dead.held = 0
        sum_slots(c, i)
    elif e.kind == ENTRY_VERSION:
        if clock.now_ms > dead.since_ms:
            dead.integral_ms += <uint64_t>(dead.in_flight + dead.parked) * (
                clock.now_ms - dead.since_ms)
        base.integral_ms += dead.integral_ms
        base.requests += dead.requests
        base.cold_starts += dead.cold_starts
        base.refused += dead.refused
        base.copies += dead.copies
    memset(dead, 0, sizeof(Cell))
    unlock_entry(c, i)
