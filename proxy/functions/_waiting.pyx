# The queue of a version, slots of its replicas, and the tickets of this worker.

from cython cimport final
from libc.string cimport memset

from proxy.base._arena cimport take
from proxy.base._clock cimport clock
from proxy.base._report cimport R_ALERT
from proxy.base._request cimport S_PICK
from proxy.base._told cimport tell_error
from proxy.base.verdict cimport (
    GO, NO_MEMORY, PARK, QUEUE_FULL, QUEUE_TIMEOUT, START_FAILED,
)
from proxy.functions._counts cimport (
    TICKET_FREE, TICKET_GRANTED, TICKET_QUEUED, Entry, Ticket, cell_at, change_cell, entry_at,
    link_ticket, lock_entry, ring, ticket_at, unlink_ticket, unlock_entry,
)
from proxy.upstream._balance cimport PEER_OK, on_released, pick, start_tries

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)
    enum:
        POLLERR
        POLLHUP
        POLLNVAL

cdef extern from *:
    """
    #ifndef POLLRDHUP
    #define POLLRDHUP 0x2000
    #endif
    """
    enum:
        POLLRDHUP

cdef enum:
    LOOK_MS = 100             # parked requests are looked at so often
    LOST_MS = 1000            # a replica that nobody here heard of by then is given up
    NOBODY = 0

WORDS = ("", "queue_size", "queue_bytes", "queue_wait", "queue_tickets", "start_failed", "timeout")


cdef Asked* asked_of(Request r, Version v) noexcept:
    cdef Asked* a = <Asked*>r.asked
    if a == NULL:
        a = <Asked*>take(&r.arena, sizeof(Asked))
        if a == NULL:
            return NULL
        memset(a, 0, sizeof(Asked))
        r.asked = a
    r.upstream = v.upstream
    return a


cdef inline uint32_t number_of(Waiting w, uint32_t k) noexcept:
    return w.counts.row * TICKETS + k


# -- slots -----------------------------------------------------------------------------------

cdef Peer take_replica(Waiting w, Version v, Asked* a, Tried* t, const char* key, uint32_t n):
    cdef Peer p
    if a.is_new_round:
        a.is_new_round = False
        start_tries(v.upstream, t, 0)
    if a.granted != NULL:
        p = <Peer>a.granted
        a.granted = NULL
    elif is_refusing(v):
        return None                              # it would be the same one again, at once
    elif not v.has_slots:
        p = pick(v.upstream, t, key, n, clock.now_ms)
    elif not lock_entry(v.counts, v.entry):
        return None
    else:
        p = None
        if entry_at(v.counts, v.entry).first == NOBODY:      # else others came before
            p = pick_slot(v, t, key, n)
        unlock_entry(v.counts, v.entry)
    if p is None:
        return None
    v.rejoin()
    change_cell(v.cell, 1, 0, clock.now_ms)
    a.asked_ms = clock.now_ms
    return p


cdef inline bint is_refusing(Version v) noexcept:
    """Its only replica refused a connection a moment ago."""
    return v.refused_ms and v.upstream.primary.is_single and (
        clock.now_ms - v.refused_ms < LOOK_MS)


cdef inline Peer pick_slot(Version v, Tried* t, const char* key, uint32_t n):
    """Under the lock: a free slot, taken for this worker."""
    cdef Peer p = pick(v.upstream, t, key, n, clock.now_ms)
    cdef Replica it
    if p is not None:
        it = <Replica>p.replica
        if it.entry:
            cell_at(v.counts, v.counts.row, it.entry).held += 1
    return p


cdef void give_replica(Replica it, Tried* t, Outcome outcome, uint8_t* taken) noexcept:
    cdef Version v = it.version
    cdef uint8_t what = taken[0]
    taken[0] = TAKEN_NOTHING
    if what == TAKEN_STREAM:
        it.n_streams -= 1
    elif what == TAKEN_SLOT:
        change_cell(v.cell, -1, 0, clock.now_ms)
        give_slot(it, t, outcome)


cdef void give_slot(Replica it, Tried* t, Outcome outcome) noexcept:
    cdef Version v = it.version
    if it.entry == 0:
        on_released(v.upstream, it.peer, t, outcome, clock.now_ms)
        return
    if not lock_entry(v.counts, v.entry):
        return
    on_released(v.upstream, it.peer, t, outcome, clock.now_ms)
    cell_at(v.counts, v.counts.row, it.entry).held -= 1
    if entry_at(v.counts, v.entry).first != NOBODY:
        grant(v)
    unlock_entry(v.counts, v.entry)


cdef void begin_stream(Replica it, uint8_t* taken) noexcept:
    if taken[0] == TAKEN_SLOT:
        it.n_streams += 1
        give_replica(it, NULL, PEER_OK, taken)
        taken[0] = TAKEN_STREAM


cdef void grant(Version v) noexcept:
    """Under the lock: slots that are free go to those who wait, in order."""
    cdef Entry* e = entry_at(v.counts, v.entry)
    cdef Tried t
    cdef Ticket* ticket
    cdef uint32_t number
    cdef Peer p
    while e.first != NOBODY and not is_refusing(v):
        start_tries(v.upstream, &t, 0)
        p = pick(v.upstream, &t, NULL, 0, clock.now_ms)
        if p is None:
            return
        if (<Replica>p.replica).entry == 0:      # there was no room: it is ours alone
            on_released(v.upstream, p, &t, PEER_OK, clock.now_ms)
            return
        number = e.first
        ticket = ticket_at(v.counts, number)
        ticket.replica = (<Replica>p.replica).entry
        cell_at(v.counts, number // TICKETS, ticket.replica).held += 1
        ticket.state = TICKET_GRANTED
        unlink_ticket(v.counts, number)
        ring(v.counts, number // TICKETS)


# -- parking ---------------------------------------------------------------------------------

cdef int park(Waiting w, Request r, Version v, Asked* a, int fd, uint32_t n_bytes) noexcept:
    cdef Entry* e
    cdef Ticket* ticket
    cdef uint32_t k
    cdef uint64_t now_ms = clock.now_ms
    cdef bint is_nobody_ready = v.upstream.primary.n == 0
    if a.first_ms == 0:
        a.first_ms = now_ms
        if is_nobody_ready:
            a.is_cold = True
            v.cell.cold_starts += 1
    v.rejoin()
    if now_ms >= patience(v, a) and v.queue_size:
        return refuse(v, a, R_QUEUE_WAIT, QUEUE_TIMEOUT)
    if w is None or v.entry == 0 or w.n_free == 0:
        return refuse(v, a, R_QUEUE_TICKETS, QUEUE_FULL)
    if r.keep_head() < 0:
        return NO_MEMORY
    if not lock_entry(v.counts, v.entry):
        return refuse(v, a, R_QUEUE_TICKETS, QUEUE_FULL)
    e = entry_at(v.counts, v.entry)
    if e.n_parked >= v.queue_size:
        unlock_entry(v.counts, v.entry)
        return refuse(v, a, R_QUEUE_SIZE, QUEUE_FULL)
    if e.parked_bytes + n_bytes > v.queue_bytes:
        unlock_entry(v.counts, v.entry)
        return refuse(v, a, R_QUEUE_BYTES, QUEUE_FULL)
    w.n_free -= 1
    k = w.free[w.n_free]
    ticket = ticket_at(v.counts, number_of(w, k))
    ticket.entry = v.entry
    ticket.bytes = n_bytes
    link_ticket(v.counts, number_of(w, k))
    if v.has_slots:
        grant(v)                                 # perhaps it is its own turn already
    unlock_entry(v.counts, v.entry)
    change_cell(v.cell, 0, 1, now_ms)
    a.ticket = k
    a.parked_ms = now_ms
    a.is_new_round = True
    w.put(k, r, fd)
    w.plan_look(patience(v, a))
    if is_nobody_ready and not v.is_woken:
        v.is_woken = True
        try:
            w.functions.tell_wake(v)
        except Exception as error:               # the next one asks again
            v.is_woken = False
            tell_error(R_ALERT, r, "waking a function", error)
    return PARK


cdef inline uint64_t patience(Version v, Asked* a) noexcept:
    """Until when it may wait."""
    cdef uint64_t at = a.first_ms + v.queue_ms
    return a.given_up_ms if a.given_up_ms and a.given_up_ms < at else at


cdef inline int refuse(Version v, Asked* a, Refusal why, int fault) noexcept:
    a.refusal = <uint8_t>why
    v.cell.refused += 1
    return fault


cdef void leave(Waiting w, Request r) noexcept:
    cdef Asked* a = <Asked*>r.asked
    cdef Version v = <Version>r.version
    cdef Ticket* ticket
    cdef Replica it
    cdef uint32_t k
    if a == NULL or v is None:
        return
    if a.granted != NULL:
        it = <Replica>(<Peer>a.granted).replica
        a.granted = NULL
        give_slot(it, NULL, PEER_OK)
    k = a.ticket
    if k == 0:
        return
    ticket = ticket_at(v.counts, number_of(w, k))
    if lock_entry(v.counts, ticket.entry):
        if ticket.state == TICKET_QUEUED:
            unlink_ticket(v.counts, number_of(w, k))
        elif ticket.state == TICKET_GRANTED:
            give_unused(v, ticket.replica)
        ticket.state = TICKET_FREE
        unlock_entry(v.counts, ticket.entry)
    w.remove(k)
    end_parking(v, a)


cdef inline void end_parking(Version v, Asked* a) noexcept:
    change_cell(v.cell, 0, -1, clock.now_ms)
    a.queue_ms += clock.now_ms - a.parked_ms
    if a.is_cold and a.start_ms == 0:
        a.start_ms = a.queue_ms
        if a.parked_ms < v.ready_ms <= clock.now_ms:
            a.start_ms = v.ready_ms - a.parked_ms
    a.ticket = 0


cdef void give_unused(Version v, uint32_t entry) noexcept:
    """Under the lock: a slot that was taken for one of ours who left."""
    cdef Entry* e = entry_at(v.counts, entry)
    if e.state.conns:
        e.state.conns -= 1
    cell_at(v.counts, v.counts.row, entry).held -= 1
    if entry_at(v.counts, v.entry).first != NOBODY:
        grant(v)


@final
cdef class Waiting:
    """counts: of functions. sleep: callable(ms), after which `look` is called."""

    def __init__(self, Functions functions not None, sleep):
        cdef uint32_t k
        self.functions = functions
        self.counts = functions.counts
        self.sleep = sleep
        for k in range(1, TICKETS):
            self.free[TICKETS - 1 - k] = k
        self.n_free = TICKETS - 1

    cdef void put(self, uint32_t k, Request r, int fd) noexcept:
        self.requests[k] = <PyObject*>r
        self.fds[k] = fd
        self.next[k] = 0
        self.prev[k] = self.last
        if self.last:
            self.next[self.last] = k
        else:
            self.first = k
        self.last = k
        self.n += 1

    cdef void remove(self, uint32_t k) noexcept:
        if self.prev[k]:
            self.next[self.prev[k]] = self.next[k]
        else:
            self.first = self.next[k]
        if self.next[k]:
            self.prev[self.next[k]] = self.prev[k]
        else:
            self.last = self.prev[k]
        self.requests[k] = NULL
        self.free[self.n_free] = k
        self.n_free += 1
        self.n -= 1

    cdef void plan_look(self, uint64_t ms) noexcept:
        """Look again in LOOK_MS, or sooner if a limit comes sooner."""
        cdef uint64_t at = min(ms, clock.now_ms + LOOK_MS)
        if self.look_ms and self.look_ms <= at:
            return
        self.look_ms = at
        try:
            self.sleep(max(<int64_t>(at - clock.now_ms), 1))
        except Exception as error:
            self.look_ms = 0
            tell_error(R_ALERT, None, "planning a look at who waits", error)

    cdef bint find_granted(self, uint32_t k, Request r) noexcept:
        """A slot was taken for it: of which replica? False: of none that we know of yet."""
        cdef Asked* a = <Asked*>r.asked
        cdef Version v = <Version>r.version
        cdef Ticket* ticket = ticket_at(self.counts, number_of(self, k))
        cdef PyObject* found = self.functions.find_replica(ticket.replica)
        if found != NULL:
            a.granted = <PyObject*>(<Replica>found).peer
            return True
        if clock.now_ms - a.parked_ms > LOST_MS and lock_entry(v.counts, v.entry):
            give_unused(v, ticket.replica)
            link_ticket(v.counts, number_of(self, k))
            unlock_entry(v.counts, v.entry)
        return False

    cdef void unpark(self, Request r) noexcept:
        """Out of the queue, to be resumed."""
        cdef Asked* a = <Asked*>r.asked
        cdef Version v = <Version>r.version
        cdef uint32_t k = a.ticket
        cdef Ticket* ticket = ticket_at(self.counts, number_of(self, k))
        if ticket.state == TICKET_QUEUED and lock_entry(v.counts, ticket.entry):
            if ticket.state == TICKET_QUEUED:
                unlink_ticket(v.counts, number_of(self, k))
            unlock_entry(v.counts, ticket.entry)
        ticket.state = TICKET_FREE
        self.remove(k)
        end_parking(v, a)
        r.stage = S_PICK - 1

    cdef void go_on(self) noexcept:
        cdef uint32_t k = self.first
        cdef uint32_t n = 0
        cdef Request r
        cdef Version v
        cdef Asked* a
        cdef Ticket* ticket
        self.serial += 1
        self.next_ms = clock.now_ms + LOOK_MS
        while k:
            r = <Request>self.requests[k]
            v = <Version>r.version
            a = <Asked*>r.asked
            ticket = ticket_at(self.counts, number_of(self, k))
            if ticket.state != TICKET_GRANTED and v.has_slots and v.looked != self.serial:
                v.looked = self.serial
                if v.upstream.primary.n and lock_entry(v.counts, v.entry):
                    grant(v)
                    unlock_entry(v.counts, v.entry)
            if (ticket.state == TICKET_GRANTED or v.is_gone
                    or clock.now_ms >= patience(v, a)
                    or not v.has_slots and v.upstream.primary.n and not is_refusing(v)):
                self.due[n] = k
                n += 1
            else:
                self.next_ms = min(self.next_ms, patience(v, a))
            k = self.next[k]
        self.end(n, GO, R_NOTHING)
        if self.n:
            self.plan_look(self.next_ms)

    cdef void end(self, uint32_t n, int verdict, Refusal why) noexcept:
        """Resume the first n of `due`; one may take others of them along."""
        cdef uint32_t i
        cdef uint32_t k
        cdef Request r
        cdef Version v
        cdef Asked* a
        cdef Ticket* ticket
        for i in range(n):
            k = self.due[i]
            if self.requests[k] == NULL:
                continue
            r = <Request>self.requests[k]
            v = <Version>r.version
            a = <Asked*>r.asked
            ticket = ticket_at(self.counts, number_of(self, k))
            if ticket.state == TICKET_GRANTED:
                if not self.find_granted(k, r):
                    continue
                self.unpark(r)
                r.conductor.resume(r, GO)
            elif verdict != GO:
                self.unpark(r)
                r.conductor.resume(r, refuse(v, a, why, verdict))
            elif v.is_gone and v.mirror:         # a copy is for nobody else
                self.unpark(r)
                r.conductor.resume(r, refuse(v, a, R_START_FAILED, START_FAILED))
            elif v.is_gone:
                self.unpark(r)
                r.version = None                 # another version, or nobody
                r.tried = NULL
                r.conductor.resume(r, GO)
            elif clock.now_ms >= patience(v, a):
                self.unpark(r)
                r.conductor.resume(r, refuse(v, a, R_QUEUE_WAIT, QUEUE_TIMEOUT))
            elif not v.has_slots and v.upstream.primary.n:
                self.unpark(r)
                r.conductor.resume(r, GO)

    def fail(self, Version v not None):
        """No replica of v could be started: whoever waits for one is told. `look` is next."""
        cdef uint32_t k = self.first
        cdef uint32_t n = 0
        if v.upstream.primary.n:
            return
        while k:
            if <Version>(<Request>self.requests[k]).version is v:
                self.due[n] = k
                n += 1
            k = self.next[k]
        self.end(n, START_FAILED, R_START_FAILED)


cdef uint32_t find_gone(Waiting w) noexcept:
    cdef pollfd fds[256]
    cdef uint32_t tickets[256]
    cdef uint32_t k = w.first
    cdef uint32_t n = 0
    cdef uint32_t n_gone = 0
    cdef uint32_t i
    while k:
        if w.fds[k] >= 0:
            fds[n].fd = w.fds[k]
            fds[n].events = POLLRDHUP
            fds[n].revents = 0
            tickets[n] = k
            n += 1
        k = w.next[k]
        if n == 256 or k == 0 and n:
            if poll(fds, n, 0) > 0:
                for i in range(n):
                    if fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR) and (
                            not fds[i].revents & POLLNVAL):
                        w.due[n_gone] = tickets[i]
                        n_gone += 1
            n = 0
    return n_gone
