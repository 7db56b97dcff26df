# limit_conn in shared memory: take, give, and giving back for the dead.
#
# A handle is (shard << 32 | cell): giving needs no key and no search. The shares of a key
# are its ledger: its count is their sum, and is summed again after a broken lock.

from time import perf_counter

from cython cimport final
from libc.string cimport memset

from proxy.base._shm cimport LOCKED, zone_unlock
from proxy.limits._cells cimport (
    CELL_KEY_HEAD, CELL_SHARES, Cell, Cells, Load, Shard, Share, Shares, cell_at, cell_drop,
    cell_find, cell_give, cell_take, cell_write, cells_broken, cells_in, cells_lay_out, hash_key,
    ordered, shard_lock, shard_of
)

CONN_STATUS = (None, "PASSED", "REJECTED", "REJECTED_DRY_RUN", "REJECTED")


cdef Share* share_of(ZoneHead* head, Shard* shard, Cell* cell, uint16_t worker) noexcept nogil:
    """The worker's share of a key, or an unused one for it, or NULL when there is no room."""
    cdef Share* unused = NULL
    cdef Shares* shares
    cdef uint32_t i
    cdef int k
    for k in range(4):
        if cell.load.conn.share[k].n == 0:
            if unused is NULL:
                unused = &cell.load.conn.share[k]
        elif cell.load.conn.share[k].worker == worker:
            return &cell.load.conn.share[k]
    i = cell.load.conn.shares
    while i:
        shares = <Shares*>cell_at(head, shard, i)
        for k in range(14):
            if shares.share[k].n == 0:
                if unused is NULL:
                    unused = &shares.share[k]
            elif shares.share[k].worker == worker:
                return &shares.share[k]
        i = shares.more
    if unused is NULL:
        i = cell_take(head, shard, CELL_SHARES)
        if i == 0:
            return NULL
        shares = <Shares*>cell_at(head, shard, i)
        memset(shares.share, 0, sizeof(shares.share))
        shares.more = cell.load.conn.shares
        ordered()
        cell.load.conn.shares = i
        unused = &shares.share[0]
    unused.worker = worker
    return unused


cdef void drop_key(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    cdef uint32_t s = cell_at(head, shard, i).load.conn.shares
    cdef uint32_t following
    cell_drop(head, shard, i)
    while s:
        following = cell_at(head, shard, s).more
        cell_give(head, shard, s)
        s = following


cdef int limit_conn_take(ZoneHead* head, const char* key, uint32_t n, uint32_t limit,
                         uint16_t worker, uint64_t* handle) noexcept nogil:
    """Take one of `limit` (1 … 65535): PASSED with a handle to give, REJECTED, NO_ROOM or NONE.

    `worker` is the number that the master gave this process; no two living processes may
    have the same one.
    """
    cdef Cells* cells = cells_in(head)
    cdef Shard* shard
    cdef Share* share
    cdef Cell* cell
    cdef Load load
    cdef uint64_t hash
    cdef uint32_t s
    cdef uint32_t i
    cdef int result = CONN_PASSED
    handle[0] = 0
    if n == 0 or n > CONN_KEY_MAX:
        return CONN_NONE
    hash = hash_key(head.seed, key, n)
    s = shard_of(cells, hash)
    if shard_lock(head, s, True) != LOCKED:
        return CONN_NO_ROOM
    shard = &cells.shard[s]
    i = cell_find(head, shard, <uint32_t>hash, key, n)
    if i == 0:
        memset(&load, 0, sizeof(load))
        load.conn.n = 1
        load.conn.share[0].worker = worker
        load.conn.share[0].n = 1
        i = cell_write(head, shard, <uint32_t>hash, key, n, &load)
        if i == 0:
            result = CONN_NO_ROOM
    else:
        cell = cell_at(head, shard, i)
        if cell.load.conn.n >= limit:
            result = CONN_REJECTED
        else:
            share = share_of(head, shard, cell, worker)
            if share is NULL:
                result = CONN_NO_ROOM
            else:
                share.n += 1
                cell.load.conn.n += 1
    zone_unlock(head, s)
    if result == CONN_PASSED:
        handle[0] = <uint64_t>s << 32 | i
    return result


cdef void limit_conn_give(ZoneHead* head, uint64_t handle, uint16_t worker) noexcept nogil:
    """Give back what limit_conn_take answered; 0, and what is no longer ours, do nothing."""
    cdef Cells* cells = cells_in(head)
    cdef Shard* shard
    cdef Share* share
    cdef Cell* cell
    cdef uint32_t s = <uint32_t>(handle >> 32)
    cdef uint32_t i = <uint32_t>handle
    if handle == 0 or s >= cells.n_shards or shard_lock(head, s, True) != LOCKED:
        return
    shard = &cells.shard[s]
    if i < shard.fresh:
        cell = cell_at(head, shard, i)
        if cell.kind == CELL_KEY_HEAD:
            share = find_share(head, shard, cell, worker)
            if share is not NULL:
                share.n -= 1
                cell.load.conn.n -= 1
                if cell.load.conn.n == 0:
                    drop_key(head, shard, i)
    zone_unlock(head, s)


cdef Share* find_share(ZoneHead* head, Shard* shard, Cell* cell, uint16_t worker) noexcept nogil:
    cdef Shares* shares
    cdef uint32_t i
    cdef int k
    for k in range(4):
        if cell.load.conn.share[k].n and cell.load.conn.share[k].worker == worker:
            return &cell.load.conn.share[k]
    i = cell.load.conn.shares
    while i:
        shares = <Shares*>cell_at(head, shard, i)
        for k in range(14):
            if shares.share[k].n and shares.share[k].worker == worker:
                return &shares.share[k]
        i = shares.more
    return NULL


cdef int limit_conn_take_all(ConnLimits limits, const Str* keys, uint16_t worker,
                             uint64_t* handles, uint32_t* which) noexcept:
    """Take one in each limit, or in none; keys[i] belongs to the i-th, handles[i] is to give.

    `which` names the limit that rejects. NONE when every key was empty or too long.
    """
    cdef uint32_t i
    cdef uint32_t k
    cdef int result
    cdef int all_of_them = CONN_NONE
    which[0] = 0
    for i in range(limits.n):
        result = limit_conn_take(limits.limit[i].head, keys[i].p, keys[i].n,
                                 limits.limit[i].limit, worker, &handles[i])
        if result == CONN_PASSED:
            all_of_them = CONN_PASSED
        elif result != CONN_NONE:
            for k in range(i):
                limit_conn_give(limits.limit[k].head, handles[k], worker)
                handles[k] = 0
            which[0] = i
            return result
    return all_of_them


cdef void limit_conn_give_all(ConnLimits limits, const uint64_t* handles,
                              uint16_t worker) noexcept:
    cdef uint32_t i
    for i in range(limits.n):
        limit_conn_give(limits.limit[i].head, handles[i], worker)


@final
cdef class ConnZone:
    """A limit_conn_zone in its shared memory."""

    def __init__(self, zone: Zone):
        if zone.kind != "limit_conn":
            raise ValueError(f'"{zone.name}" is no limit_conn zone')
        self.zone = zone
        self.head = zone.head
        cells_lay_out(zone)

    def take(self, key: bytes, limit: int, worker: int):
        """limit_conn_take for tests: (result, handle)."""
        cdef uint64_t handle = 0
        cdef int result = limit_conn_take(self.head, key, <uint32_t>len(key), limit, worker,
                                          &handle)
        return result, handle

    def give(self, handle: int, worker: int) -> None:
        """limit_conn_give."""
        limit_conn_give(self.head, handle, worker)

    def give_back_dead(self, worker: int) -> int:
        """Give back all that a dead worker held; how many. The master calls this.

        It looks at every key once, shard by shard; nobody waits for more than one shard.
        """
        cdef Cells* cells = cells_in(self.head)
        cdef Shard* shard
        cdef Share* share
        cdef Cell* cell
        cdef uint16_t number = worker
        cdef uint32_t s
        cdef uint32_t i
        cdef uint32_t n = 0
        for s in range(cells.n_shards):
            if shard_lock(self.head, s, True) != LOCKED:
                continue
            shard = &cells.shard[s]
            for i in range(1, shard.fresh):
                cell = cell_at(self.head, shard, i)
                if cell.kind != CELL_KEY_HEAD:
                    continue
                share = find_share(self.head, shard, cell, number)
                if share is NULL:
                    continue
                n += share.n
                cell.load.conn.n -= share.n
                share.n = 0
                if cell.load.conn.n == 0:
                    drop_key(self.head, shard, i)
            zone_unlock(self.head, s)
        return n

    def held(self, key: bytes) -> int:
        """How many stand taken for a key now."""
        cdef Cells* cells = cells_in(self.head)
        cdef uint64_t hash = hash_key(self.head.seed, key, <uint32_t>len(key))
        cdef uint32_t s = shard_of(cells, hash)
        cdef uint32_t i
        cdef uint32_t n = 0
        if shard_lock(self.head, s, True) != LOCKED:
            return 0
        i = cell_find(self.head, &cells.shard[s], <uint32_t>hash, key, <uint32_t>len(key))
        if i:
            n = cell_at(self.head, &cells.shard[s], i).load.conn.n
        zone_unlock(self.head, s)
        return n

    def keys(self) -> int:
        """How many keys stand in the zone."""
        cdef Cells* cells = cells_in(self.head)
        return sum([cells.shard[s].n_keys for s in range(cells.n_shards)])

    def broken(self):
        """What is wrong with the structure, in words, or None."""
        return cells_broken(self.zone, True)

    def time_takes(self, key: bytes, rounds: int) -> float:
        """Seconds for `rounds` of take and give, timed inside; for the bench."""
        cdef const char* p = key
        cdef uint32_t n = <uint32_t>len(key)
        cdef uint64_t handle = 0
        cdef long left = rounds
        began = perf_counter()
        while left:
            limit_conn_take(self.head, p, n, 65535, 1, &handle)
            limit_conn_give(self.head, handle, 1)
            left -= 1
        return perf_counter() - began


@final
cdef class ConnLimits:
    """The limit_conn limits of one location, in their order: (ConnZone, number) each."""

    def __init__(self, limits):
        cdef ConnZone z
        cdef uint32_t i
        limits = list(limits)
        if len(limits) > CONN_LIMITS_MAX:
            raise ValueError(f"more than {CONN_LIMITS_MAX} limits for one request")
        self.zones = tuple(z for z, _ in limits)
        self.n = <uint32_t>len(limits)
        for i in range(self.n):
            z, number = limits[i]
            if not 0 < number < 65536:
                raise ValueError(f"no limit_conn of {number}")
            self.limit[i].head = z.head
            self.limit[i].limit = number

    def take(self, keys, worker: int):
        """limit_conn_take_all for tests: (result, handles, which)."""
        cdef Str spans[CONN_LIMITS_MAX]
        cdef uint64_t handles[CONN_LIMITS_MAX]
        cdef uint32_t which = 0
        cdef uint32_t i
        cdef bytes key
        memset(handles, 0, sizeof(handles))
        for i in range(self.n):
            key = keys[i]
            spans[i].p = key
            spans[i].n = <uint32_t>len(key)
        result = limit_conn_take_all(self, spans, worker, handles, &which)
        return result, [handles[i] for i in range(self.n)], which

    def give(self, handles, worker: int) -> None:
        """limit_conn_give_all for tests."""
        cdef uint64_t held[CONN_LIMITS_MAX]
        cdef uint32_t i
        for i in range(self.n):
            held[i] = handles[i]
        limit_conn_give_all(self, held, worker)
