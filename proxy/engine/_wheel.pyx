# Deadlines for everything a worker waits for, behind one timer of the loop.

from libc.string cimport memset

from proxy.base._clock cimport clock, tick


cdef class Timed:
    cdef void on_deadline(self) noexcept:
        pass

    cdef void forget_deadline(self) noexcept:
        self.node.deadline_ms = 0
        unlink(&self.node)

    def __dealloc__(self):
        unlink(&self.node)


cdef inline void unlink(Node* n) noexcept:
    if n.next != NULL:
        n.prev.next = n.next
        n.next.prev = n.prev
        n.next = NULL
        n.prev = NULL


cdef void set_deadline(Wheel w, Timed t, uint64_t deadline_ms) noexcept:
    """The usual case, a later deadline than before, writes one field."""
    cdef Node* n = &t.node
    n.deadline_ms = deadline_ms
    if n.next == NULL:
        n.owner = <void*>t
        w.place(n)
    elif deadline_ms and deadline_ms // SLOT_MS + 1 < n.slot:
        unlink(n)
        w.place(n)


cdef class Wheel:
    def __init__(self, loop):
        cdef int i
        self.loop = loop
        self.at = clock.now_ms // SLOT_MS
        for i in range(SLOTS):
            self.slots[i].next = self.slots[i].prev = &self.slots[i]
        memset(self.bits, 0, sizeof(self.bits))

    cdef void place(self, Node* n) noexcept:
        cdef uint64_t slot = n.deadline_ms // SLOT_MS + 1
        cdef Node* head
        if n.deadline_ms == 0:
            return
        if self.timer_slot == 0 and not self.is_serving:      # empty: nothing was passed over
            self.at = clock.now_ms // SLOT_MS
        if slot <= self.at:
            slot = self.at + 1
        elif slot >= self.at + SLOTS:
            slot = self.at + SLOTS - 1
        n.slot = slot
        slot &= SLOTS - 1
        head = &self.slots[slot]
        n.next = head
        n.prev = head.prev
        head.prev.next = n
        head.prev = n
        self.bits[slot >> 6] |= <uint64_t>1 << (slot & 63)
        if not self.is_serving and (self.timer_slot == 0 or n.slot < self.timer_slot):
            self.arm()

    cdef void arm(self) noexcept:
        """Ask the loop for the next slot that holds somebody."""
        cdef uint64_t slot = self.at + 1
        cdef uint64_t end = self.at + SLOTS
        cdef uint64_t due
        cdef double wait_s
        while slot < end:
            if (slot & 63) == 0 and self.bits[(slot & (SLOTS - 1)) >> 6] == 0:
                slot += 64
                continue
            if self.bits[(slot & (SLOTS - 1)) >> 6] >> (slot & 63) & 1:
                break
            slot += 1
        else:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self.timer_slot = 0
            return
        if self.timer is not None:
            if self.timer_slot == slot:
                return
            self.timer.cancel()
        self.timer_slot = slot
        due = slot * SLOT_MS
        wait_s = 0.001
        if due > clock.now_ms:
            wait_s = <double>(due - clock.now_ms) / 1000 + 0.001
        self.timer = self.loop.call_later(wait_s, self._on_timer)

    def _on_timer(self):
        tick()
        self.timer = None
        self.timer_slot = 0
        self.is_serving = True
        self.serve()
        self.is_serving = False
        self.arm()

    cdef void serve(self):
        cdef uint64_t now_slot = clock.now_ms // SLOT_MS
        cdef Node* head
        cdef Node* n
        cdef Node* run = &self.run
        cdef uint64_t i
        cdef Timed owner
        if now_slot >= self.at + SLOTS:      # the process slept for a round: look at all
            self.at = now_slot - SLOTS + 1
        while self.at < now_slot:
            self.at += 1
            i = self.at & (SLOTS - 1)
            head = &self.slots[i]
            self.bits[i >> 6] &= ~(<uint64_t>1 << (i & 63))
            if head.next == head:
                continue
            # take the slot's list away first: a callback may unlink any node of it
            run.next = head.next
            run.prev = head.prev
            run.next.prev = run
            run.prev.next = run
            head.next = head.prev = head
            while run.next != run:
                n = run.next
                unlink(n)
                if n.deadline_ms == 0:
                    continue
                if n.deadline_ms > clock.now_ms:
                    self.place(n)
                    continue
                n.deadline_ms = 0
                owner = <Timed>n.owner
                owner.on_deadline()
