# limit_req in shared memory: nginx's leaky bucket, exact over all workers.
#
# A bucket's excess leaks at `rate` and grows by one request (1000) with each that is let
# through; more than `burst` of it rejects, more than `delay` of it delays. All limits of a
# request are decided while all their shards are locked, so that none lets through more
# than its burst whatever the workers do at the same moment.

from time import perf_counter

from cython cimport final
from libc.stdint cimport int64_t

from proxy.base._shm cimport LOCKED, ZoneHead, zone_unlock
from proxy.limits._cells cimport (
    KEY_MAX, Cell, Cells, Load, Shard, cell_at, cell_drop, cell_find, cell_write, cells_broken,
    cells_for, cells_in, cells_lay_out, cells_room, hash_key, lru_pull, lru_push, shard_lock,
    shard_of
)

REQ_STATUS = (None, "PASSED", "DELAYED", "REJECTED", "DELAYED_DRY_RUN", "REJECTED_DRY_RUN",
              "REJECTED")
NODELAY = 0xFFFFFFFF

cdef extern from *:
    """
    #define STALE_MS 60000LL            /* an empty bucket may be forgotten after so long */
    #define LONG_MS 0xffffffffLL        /* 49 days: keeps rate times it within 63 bits */
    #define ONE 1000LL                  /* one request */
    #define EXCESS_MAX 0xfffff000LL     /* bursts past four million requests are cut to it */
    """
    const int64_t STALE_MS
    const int64_t LONG_MS
    const int64_t ONE
    const int64_t EXCESS_MAX


cdef inline uint32_t leaked(uint32_t rate, Cell* cell, uint64_t now_ms,
                            bint* is_later) noexcept nogil:
    """The excess with one more request in it.

    Workers read their clocks apart, so `now` may lie a little before the last request:
    then no time passed. More than a minute before it, the clock was set back.
    """
    cdef int64_t ms = <int64_t>(now_ms - cell.load.req.last_ms)
    cdef int64_t excess
    if ms < -STALE_MS:
        ms = 1
    elif ms < 0:
        ms = 0
    elif ms > LONG_MS:
        ms = LONG_MS
    is_later[0] = ms > 0
    excess = <int64_t>cell.load.req.excess - <int64_t>rate * ms / 1000 + ONE
    if excess < 0:
        return 0
    return <uint32_t>(EXCESS_MAX + ONE if excess > EXCESS_MAX + ONE else excess)


cdef void forget_stale(ZoneHead* head, Shard* shard, uint32_t rate,
                       uint64_t now_ms) noexcept nogil:
    """Drop at most two of the oldest buckets that are empty and a minute old."""
    cdef int left = 2
    cdef uint32_t i
    cdef int64_t ms
    cdef Cell* cell
    while left:
        i = shard.oldest
        if i == 0:
            return
        cell = cell_at(head, shard, i)
        ms = <int64_t>(now_ms - cell.load.req.last_ms)
        if ms < 0:
            ms = -ms
        if ms > LONG_MS:
            ms = LONG_MS
        if ms < STALE_MS or <int64_t>cell.load.req.excess > <int64_t>rate * ms / 1000:
            return
        lru_pull(head, shard, i)
        cell_drop(head, shard, i)
        left -= 1


cdef uint32_t add_key(ZoneHead* head, Shard* shard, uint32_t rate, uint32_t mark,
                      const char* key, uint32_t n, uint64_t now_ms) noexcept nogil:
    """A new empty bucket; evicts the least recently used until it fits. 0: it never fits."""
    cdef uint32_t need = cells_for(n)
    cdef uint32_t i
    cdef Load load
    forget_stale(head, shard, rate, now_ms)
    if need >= shard.n_cells:
        return 0
    while cells_room(shard) < need:
        i = shard.oldest
        if i == 0:
            return 0
        lru_pull(head, shard, i)
        cell_drop(head, shard, i)
        shard.n_evicted += 1
    load.req.newer = 0
    load.req.older = 0
    load.req.last_ms = now_ms
    load.req.excess = 0
    load.req.spare = 0
    i = cell_write(head, shard, mark, key, n, &load)
    if i:
        lru_push(head, shard, i)
    return i


cdef inline int look(ZoneHead* head, Shard* shard, uint32_t rate, uint32_t burst,
                     uint32_t mark, const char* key, uint32_t n, uint64_t now_ms,
                     Cell** found, uint32_t* excess, bint* is_later) noexcept nogil:
    """Find or make the bucket and say what its excess would be; stores no request yet."""
    cdef uint32_t i = cell_find(head, shard, mark, key, n)
    if i:
        found[0] = cell_at(head, shard, i)
        if shard.newest != i:
            lru_pull(head, shard, i)
            lru_push(head, shard, i)
        excess[0] = leaked(rate, found[0], now_ms, is_later)
        return REQ_REJECTED if excess[0] > burst else REQ_PASSED
    excess[0] = 0
    is_later[0] = True
    i = add_key(head, shard, rate, mark, key, n, now_ms)
    if i == 0:
        return REQ_NO_ROOM
    found[0] = cell_at(head, shard, i)
    return REQ_PASSED


cdef int limit_req_check(ReqZone z, const char* key, uint32_t n, uint32_t burst,
                         uint32_t delay_threshold, uint64_t now_ms, uint32_t* excess_out,
                         bint account) noexcept:
    """One limit: PASSED, DELAYED, REJECTED, NO_ROOM, or NONE for an empty or huge key.

    `burst` and `delay_threshold` are 1/1000 requests, `now_ms` the monotonic clock.
    `excess_out` gets the excess in 1/1000 requests. Without `account` nothing is counted.
    """
    return check_one(z.head, z.rate, burst, delay_threshold, key, n, now_ms, excess_out,
                     account)


cdef inline int check_one(ZoneHead* head, uint32_t rate, uint32_t burst, uint32_t delay,
                          const char* key, uint32_t n, uint64_t now_ms, uint32_t* excess,
                          bint account) noexcept nogil:
    cdef Cells* cells = cells_in(head)
    cdef uint64_t hash
    cdef uint32_t s
    cdef Cell* cell = NULL
    cdef bint is_later = False
    cdef int result
    excess[0] = 0
    if n == 0 or n > KEY_MAX:
        return REQ_NONE
    hash = hash_key(head.seed, key, n)
    s = shard_of(cells, hash)
    if shard_lock(head, s, False) != LOCKED:
        return REQ_NO_ROOM
    result = look(head, &cells.shard[s], rate, burst, <uint32_t>hash, key, n, now_ms,
                  &cell, excess, &is_later)
    if result == REQ_PASSED and account:
        cell.load.req.excess = excess[0]
        if is_later:
            cell.load.req.last_ms = now_ms
    zone_unlock(head, s)
    if result == REQ_PASSED and excess[0] > delay:
        return REQ_DELAYED
    return result


cdef int limit_req_check_all(ReqLimits limits, const Str* keys, uint64_t now_ms,
                             uint64_t* delay_ms, uint32_t* excess,
                             uint32_t* which) noexcept:
    """All limits in force for one request; keys[i] belongs to the i-th of them.

    PASSED and DELAYED count the request in every limit, REJECTED and NO_ROOM in none.
    `which` and `excess` (1/1000 requests) name the limit that rejects, or the one that
    delays longest; `delay_ms` is how long. A limit whose key is empty or longer than
    KEY_MAX is passed over (the caller logs the long one, as nginx does).
    """
    cdef uint64_t hash[REQ_LIMITS_MAX]
    cdef uint32_t shard[REQ_LIMITS_MAX]
    cdef uint32_t wanted[REQ_LIMITS_MAX]
    cdef Cell* cell[REQ_LIMITS_MAX]
    cdef uint32_t much[REQ_LIMITS_MAX]
    cdef bint is_later[REQ_LIMITS_MAX]
    cdef ReqLimit* limit
    cdef uint32_t n = 0         # limits that apply
    cdef uint32_t n_locked = 0
    cdef uint32_t i
    cdef uint32_t k
    cdef uint64_t delay
    cdef int result = REQ_PASSED
    delay_ms[0] = 0
    excess[0] = 0
    which[0] = 0
    if limits.n == 1:
        limit = &limits.limit[0]
        result = check_one(limit.head, limit.rate, limit.burst, limit.delay, keys[0].p,
                           keys[0].n, now_ms, excess, True)
        if result == REQ_DELAYED:
            delay_ms[0] = <uint64_t>(excess[0] - limit.delay) * 1000 / limit.rate
            if delay_ms[0] == 0:
                return REQ_PASSED
        return result
    for i in range(limits.n):
        if keys[i].n == 0 or keys[i].n > KEY_MAX:
            continue
        limit = &limits.limit[i]
        hash[i] = hash_key(limit.head.seed, keys[i].p, keys[i].n)
        shard[i] = shard_of(cells_in(limit.head), hash[i])
        # the order of the locks is that of the zones' birth seeds, which every process
        # sees alike, so that no two of them ever wait for each other
        k = n
        while k and limits.limit[wanted[k - 1]].head.seed[0] > limit.head.seed[0]:
            wanted[k] = wanted[k - 1]
            k -= 1
        wanted[k] = i
        n += 1
    if n == 0:
        return REQ_NONE
    while n_locked < n:
        i = wanted[n_locked]
        if shard_lock(limits.limit[i].head, shard[i], False) != LOCKED:
            result = REQ_NO_ROOM
            which[0] = i
            break
        n_locked += 1
    if result == REQ_PASSED:
        for i in range(limits.n):
            if keys[i].n == 0 or keys[i].n > KEY_MAX:
                continue
            limit = &limits.limit[i]
            result = look(limit.head, &cells_in(limit.head).shard[shard[i]], limit.rate,
                          limit.burst, <uint32_t>hash[i], keys[i].p, keys[i].n, now_ms,
                          &cell[i], &much[i], &is_later[i])
            if result != REQ_PASSED:
                excess[0] = much[i]
                which[0] = i
                break
    if result == REQ_PASSED:
        for i in range(limits.n):
            if keys[i].n == 0 or keys[i].n > KEY_MAX:
                continue
            limit = &limits.limit[i]
            cell[i].load.req.excess = much[i]
            if is_later[i]:
                cell[i].load.req.last_ms = now_ms
            if much[i] > limit.delay:
                delay = <uint64_t>(much[i] - limit.delay) * 1000 / limit.rate
                if delay > delay_ms[0]:
                    delay_ms[0] = delay
                    excess[0] = much[i]
                    which[0] = i
    while n_locked:
        n_locked -= 1
        i = wanted[n_locked]
        zone_unlock(limits.limit[i].head, shard[i])
    return REQ_DELAYED if delay_ms[0] else result


@final
cdef class ReqZone:
    """A limit_req_zone: its shared memory and its rate in 1/1000 request per second."""

    def __init__(self, zone: Zone, rate: int):
        if zone.kind != "limit_req" or not 0 < rate < 2**31:
            raise ValueError(f"no limit_req zone of rate {rate}")
        self.zone = zone
        self.head = zone.head
        self.rate = rate
        cells_lay_out(zone)

    def check(self, key: bytes, burst: int, delay: int, now_ms: int, account: bool = True):
        """limit_req_check for tests: (result, excess)."""
        cdef uint32_t excess = 0
        cdef int result = limit_req_check(self, key, <uint32_t>len(key), burst, delay, now_ms,
                                          &excess, account)
        return result, excess

    def broken(self):
        """What is wrong with the structure, in words, or None."""
        return cells_broken(self.zone, False)

    def count(self) -> dict:
        """Numbers of the zone: shards, keys, cells in all, evicted, mended."""
        return count_cells(self.zone)


cdef dict count_cells(Zone zone):
    cdef Cells* cells = cells_in(zone.head)
    cdef uint32_t s
    cdef dict total = {"shards": cells.n_shards, "keys": 0, "cells": 0, "evicted": 0, "mended": 0}
    for s in range(cells.n_shards):
        total["keys"] += cells.shard[s].n_keys
        total["cells"] += cells.shard[s].n_cells - 1
        total["evicted"] += cells.shard[s].n_evicted
        total["mended"] += cells.shard[s].n_mended
    return total


@final
cdef class ReqLimits:
    """The limits of one location, in their order: (ReqZone, burst, delay) each.

    burst and delay in 1/1000 requests; delay NODELAY never delays. A zone stands in here
    once at most (nginx: "is duplicate").
    """

    def __init__(self, limits):
        cdef ReqZone z
        cdef uint32_t i
        limits = list(limits)
        if len(limits) > REQ_LIMITS_MAX:
            raise ValueError(f"more than {REQ_LIMITS_MAX} limits for one request")
        self.zones = tuple(z for z, _, _ in limits)
        self.n = <uint32_t>len(limits)
        seen = set()
        for i in range(self.n):
            z, burst, delay = limits[i]
            if z.zone.head.seed[0] in seen:
                raise ValueError(f'zone "{z.zone.name}" is duplicate')
            seen.add(z.zone.head.seed[0])
            self.limit[i].head = z.head
            self.limit[i].rate = z.rate
            self.limit[i].burst = min(burst, EXCESS_MAX)
            self.limit[i].delay = min(delay, NODELAY)

    def check(self, keys, now_ms: int):
        """limit_req_check_all for tests: (result, delay in ms, excess, which)."""
        cdef Str spans[REQ_LIMITS_MAX]
        cdef uint64_t delay_ms = 0
        cdef uint32_t excess = 0
        cdef uint32_t which = 0
        cdef uint32_t i
        cdef bytes key
        if len(keys) != self.n:
            raise ValueError(f"{self.n} keys are needed")
        for i in range(self.n):
            key = keys[i]
            spans[i].p = key
            spans[i].n = <uint32_t>len(key)
        result = limit_req_check_all(self, spans, now_ms, &delay_ms, &excess, &which)
        return result, delay_ms, excess, which

    def time_checks(self, keys, now_ms: int, rounds: int) -> float:
        """Seconds for `rounds` checks of each row of keys, timed inside; for the bench."""
        cdef Str spans[REQ_LIMITS_MAX]
        cdef uint64_t delay_ms = 0
        cdef uint32_t excess = 0
        cdef uint32_t which = 0
        cdef uint64_t now = now_ms
        cdef long r
        cdef long n_rounds = rounds
        cdef uint32_t i
        cdef bytes key
        rows = list(keys)
        began = perf_counter()
        for row in rows:
            for i in range(self.n):
                key = row[i]
                spans[i].p = key
                spans[i].n = <uint32_t>len(key)
            for r in range(n_rounds):
                limit_req_check_all(self, spans, now + <uint64_t>r, &delay_ms, &excess, &which)
        return perf_counter() - began
