# Token buckets of two kinds and holders of names in shared memory, over the limiters' cells.

from cython cimport final

from proxy.base._shm cimport LOCKED
from proxy.limits._cells cimport (
    Cells, Load, Shard, cell_at, cell_drop, cell_find, cell_write, cells_broken, cells_in,
    cells_lay_out, cells_room, hash_key, lru_pull, lru_push, shard_lock, shard_of, shard_unlock,
)

cdef enum:
    LOCKED_OUT_MS = 1000        # nobody gets the lock: the client waits


cdef struct PaceLoad:           # lies over Load.req: the queue's links come first
    uint32_t newer
    uint32_t older
    uint64_t due_ns[2]          # when the bucket is full again; of a holder the first is its number


@final
cdef class PaceZone:
    """Lays out a fresh zone; takes over one that is laid out."""

    def __init__(self, Zone zone not None):
        if sizeof(PaceLoad) > sizeof(Load):
            raise SystemError("a pace has no room in a cell")
        self.zone = zone
        self.head = zone.head
        cells_lay_out(zone)

    def take(self, bytes key not None, paces, now_ms: int) -> int:
        """take_paces for tests: paces are (cost, burst) in ns."""
        cdef Pace wanted[PACES_MAX]
        cdef uint32_t i
        for i in range(PACES_MAX):
            wanted[i].cost_ns, wanted[i].burst_ns = paces[i]
        return take_paces(self, key, <uint32_t>len(key), wanted, now_ms)

    def hold(self, bytes key not None, holder: int):
        put_holder(self, key, <uint32_t>len(key), holder)

    def holds(self, bytes key not None, holder: int) -> bool:
        return is_holder(self, key, <uint32_t>len(key), holder)

    def broken(self):
        """What is wrong with the structure, in words, or None."""
        return cells_broken(self.zone, False)


cdef PaceLoad* find_or_add(ZoneHead* head, Shard* shard, uint32_t mark, const char* key,
                           uint32_t n, bint* is_new) noexcept nogil:
    """The key's own numbers, all 0 where it is new. The shard is locked. It has room for one cell:
    the least recently used goes."""
    cdef uint32_t i = cell_find(head, shard, mark, key, n)
    cdef Load load
    cdef PaceLoad* own = <PaceLoad*>&load
    is_new[0] = i == 0
    if i == 0:
        if cells_room(shard) == 0:
            i = shard.oldest
            lru_pull(head, shard, i)
            cell_drop(head, shard, i)
            shard.n_evicted += 1
        own.newer = 0
        own.older = 0
        own.due_ns[0] = 0
        own.due_ns[1] = 0
        i = cell_write(head, shard, mark, key, n, &load)
        lru_push(head, shard, i)
    elif shard.newest != i:
        lru_pull(head, shard, i)
        lru_push(head, shard, i)
    return <PaceLoad*>&cell_at(head, shard, i).load


cdef uint64_t take_paces(PaceZone z, const char* key, uint32_t n, const Pace* paces,
                         uint64_t now_ms) noexcept:
    cdef Cells* cells = cells_in(z.head)
    cdef uint64_t hash = hash_key(z.head.seed, key, n)
    cdef uint32_t s = shard_of(cells, hash)
    cdef uint64_t now_ns = now_ms * 1000000
    cdef uint64_t wait_ns = 0
    cdef uint64_t from_ns
    cdef uint64_t lacks_ns
    cdef PaceLoad* load
    cdef uint32_t i
    cdef bint is_new
    if shard_lock(z.head, s, False) != LOCKED:
        return LOCKED_OUT_MS
    load = find_or_add(z.head, &cells.shard[s], <uint32_t>hash, key, n, &is_new)
    for i in range(PACES_MAX):
        if paces[i].cost_ns == 0:
            continue
        from_ns = load.due_ns[i]
        if from_ns <= now_ns:
            continue                             # full: whatever it costs
        lacks_ns = from_ns - now_ns              # until it is full again
        if paces[i].cost_ns <= paces[i].burst_ns:
            if lacks_ns <= paces[i].burst_ns - paces[i].cost_ns:
                continue
            lacks_ns -= paces[i].burst_ns - paces[i].cost_ns
        if lacks_ns > wait_ns:
            wait_ns = lacks_ns
    if wait_ns == 0:
        for i in range(PACES_MAX):
            if paces[i].cost_ns:
                from_ns = load.due_ns[i]
                load.due_ns[i] = (from_ns if from_ns > now_ns else now_ns) + paces[i].cost_ns
    shard_unlock(z.head, s)
    return (wait_ns + 999999) // 1000000


cdef void put_holder(PaceZone z, const char* key, uint32_t n, uint64_t holder) noexcept:
    cdef Cells* cells = cells_in(z.head)
    cdef uint64_t hash = hash_key(z.head.seed, key, n)
    cdef uint32_t s = shard_of(cells, hash)
    cdef bint is_new
    if shard_lock(z.head, s, False) == LOCKED:
        find_or_add(z.head, &cells.shard[s], <uint32_t>hash, key, n, &is_new).due_ns[0] = holder
        shard_unlock(z.head, s)


cdef bint is_holder(PaceZone z, const char* key, uint32_t n, uint64_t holder) noexcept:
    cdef Cells* cells = cells_in(z.head)
    cdef uint64_t hash = hash_key(z.head.seed, key, n)
    cdef uint32_t s = shard_of(cells, hash)
    cdef PaceLoad* load
    cdef bint is_new
    cdef bint is_own
    if shard_lock(z.head, s, False) != LOCKED:
        return True
    load = find_or_add(z.head, &cells.shard[s], <uint32_t>hash, key, n, &is_new)
    if is_new:
        load.due_ns[0] = holder
    is_own = load.due_ns[0] == holder
    shard_unlock(z.head, s)
    return is_own
