# Slots by number in shared memory: take at most `limit`, give, and give back for the dead.

from cython cimport final

from proxy.base._shm cimport LOCK_FAILED, LOCKED, ordered, zone_lock, zone_mended, zone_unlock


def slot_zone_bytes(n_numbers: int, n_workers: int) -> int:
    """Size of a zone for so many numbers; only the pages that are used cost memory."""
    least = (DATA_AT + sizeof(SlotsHead) + n_numbers * sizeof(SlotEntry)
             + n_workers * n_numbers * sizeof(uint32_t))
    return max((least + 4095) & ~4095, 32768)


cdef void sum_again(ZoneHead* head, uint32_t number) noexcept nogil:
    """An entry's count from the ledger, which is written first."""
    cdef uint32_t n = 0
    cdef uint32_t w
    for w in range(slots_in(head).n_workers):
        n += ledger_at(head, w, number)[0]
    entry_at(head, number).n = n


cdef bint lock_number(ZoneHead* head, uint32_t number) noexcept nogil:
    cdef SlotsHead* slots = slots_in(head)
    cdef uint32_t s = number % SLOT_SHARDS
    cdef int result = zone_lock(head, s)
    if result == LOCK_FAILED:
        return False
    if result != LOCKED:
        if 0 < slots.changing[s] <= slots.n_numbers:
            sum_again(head, slots.changing[s] - 1)
        slots.changing[s] = 0
        zone_mended(head, s)
    return True


cdef bint slot_take(ZoneHead* head, uint32_t number, uint32_t limit,
                    uint16_t worker) noexcept nogil:
    """Take a slot of `number` for `worker` if fewer than `limit` are taken (0: no limit)."""
    cdef SlotsHead* slots = slots_in(head)
    cdef SlotEntry* entry
    cdef bint is_taken = False
    if number >= slots.n_numbers or worker >= slots.n_workers:
        return False
    if not lock_number(head, number):
        return False
    entry = entry_at(head, number)
    if limit == 0 or entry.n < limit:
        slots.changing[number % SLOT_SHARDS] = number + 1
        ordered()
        ledger_at(head, worker, number)[0] += 1
        ordered()
        entry.n += 1
        if entry.n > entry.most:
            entry.most = entry.n
        ordered()
        slots.changing[number % SLOT_SHARDS] = 0
        is_taken = True
    else:
        entry.n_refused += 1
    zone_unlock(head, number % SLOT_SHARDS)
    return is_taken


cdef void slot_give(ZoneHead* head, uint32_t number, uint16_t worker) noexcept nogil:
    """Give a slot back; one that the worker does not hold is left alone."""
    cdef SlotsHead* slots = slots_in(head)
    cdef uint32_t* held
    if number >= slots.n_numbers or worker >= slots.n_workers:
        return
    if not lock_number(head, number):
        return
    held = ledger_at(head, worker, number)
    if held[0]:
        slots.changing[number % SLOT_SHARDS] = number + 1
        ordered()
        held[0] -= 1
        ordered()
        entry_at(head, number).n -= 1
        ordered()
        slots.changing[number % SLOT_SHARDS] = 0
    zone_unlock(head, number % SLOT_SHARDS)


@final
cdef class SlotZone:
    """Slots for numbers 0 … n_numbers-1, held by workers 0 … n_workers-1.

    On a zone that is laid out already, the two counts are those it was made with.
    """

    def __init__(self, zone: Zone, n_numbers: int = 0, n_workers: int = 0):
        cdef SlotsHead* slots
        if zone.kind != "slots":
            raise ValueError(f'"{zone.name}" is no zone of slots')
        self.zone = zone
        self.head = zone.head
        slots = slots_in(self.head)
        if not self.head.is_ready:
            if n_numbers < 1 or n_workers < 1 or slot_zone_bytes(
                    n_numbers, n_workers) > zone.size:
                raise ValueError(f'zone "{zone.name}" is too small')
            slots.n_numbers = n_numbers
            slots.n_workers = n_workers
            slots.entries_at = DATA_AT + sizeof(SlotsHead)
            slots.ledger_at = slots.entries_at + <uint64_t>n_numbers * sizeof(SlotEntry)
            ordered()
            self.head.is_ready = 1

    def take(self, number: int, limit: int, worker: int) -> bool:
        """slot_take."""
        return slot_take(self.head, number, limit, worker)

    def give(self, number: int, worker: int) -> None:
        """slot_give."""
        slot_give(self.head, number, worker)

    def taken(self, number: int) -> int:
        """How many slots of a number are taken now."""
        if not 0 <= number < slots_in(self.head).n_numbers:
            raise IndexError(number)
        if not lock_number(self.head, number):
            return 0
        n = entry_at(self.head, number).n
        zone_unlock(self.head, number % SLOT_SHARDS)
        return n

    def give_back_dead(self, worker: int) -> int:
        """Give back all that a dead worker held; how many. The master calls this."""
        cdef SlotsHead* slots = slots_in(self.head)
        cdef uint16_t w = worker
        cdef uint32_t number
        cdef uint32_t n = 0
        if w >= slots.n_workers:
            return 0
        for number in range(slots.n_numbers):
            if ledger_at(self.head, w, number)[0] == 0 or not lock_number(self.head, number):
                continue
            slots.changing[number % SLOT_SHARDS] = number + 1
            ordered()
            n += ledger_at(self.head, w, number)[0]
            ledger_at(self.head, w, number)[0] = 0
            sum_again(self.head, number)
            ordered()
            slots.changing[number % SLOT_SHARDS] = 0
            zone_unlock(self.head, number % SLOT_SHARDS)
        return n
