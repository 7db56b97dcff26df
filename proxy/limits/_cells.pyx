# Birth, growth and repair of the cells that hold the limiters' keys.

from libc.string cimport memset

from proxy.base._shm cimport zone_mended


cdef int cells_lay_out(Zone zone) except -1:
    """Split a fresh zone into shards; does nothing to one that is laid out already."""
    cdef ZoneHead* head = zone.head
    cdef Cells* cells = cells_in(head)
    cdef Shard* shard
    cdef uint64_t at = (DATA_AT + sizeof(Cells) + 63) & ~<uint64_t>63
    cdef uint64_t each
    cdef uint64_t n_cells
    cdef uint32_t n_shards = 1
    cdef uint32_t n_buckets = 16
    cdef uint32_t i
    if sizeof(Cell) != 64 or sizeof(Tail) != 64 or sizeof(Shares) != 64:
        raise SystemError("a cell is one cache line")
    if head.is_ready:
        return 0
    while n_shards < SHARDS_MAX and zone.size >= SHARD_BYTES * 2 * <size_t>n_shards:
        n_shards *= 2
    each = ((zone.size - at) // n_shards) & ~<uint64_t>63
    # half as many buckets as cells at least: 4 bytes beside each 64
    n_cells = each // 64
    while <uint64_t>n_buckets * 2 <= n_cells and n_buckets < 1 << 30:
        n_buckets *= 2
    n_cells = (each - n_buckets * 4) // 64
    if n_cells > 0xffffff00U:
        n_cells = 0xffffff00U
    cells.n_shards = n_shards
    for i in range(n_shards):
        shard = &cells.shard[i]
        shard.buckets_at = at + i * each
        shard.cells_at = shard.buckets_at + n_buckets * 4
        shard.n_buckets = n_buckets
        shard.n_cells = <uint32_t>n_cells
        shard.fresh = 1
    ordered()
    head.is_ready = 1
    return 0


cdef bint is_tail_equal(ZoneHead* head, Shard* shard, Cell* cell, const char* key,
                        uint32_t n) noexcept nogil:
    cdef uint32_t at = CELL_KEY
    cdef uint32_t part
    cdef uint32_t i = cell.more
    cdef Tail* tail
    while at < n:
        if i == 0:
            return False
        tail = <Tail*>cell_at(head, shard, i)
        part = n - at if n - at < TAIL_KEY else TAIL_KEY
        if memcmp(tail.key, key + at, part) != 0:
            return False
        at += part
        i = tail.more
    return True


cdef uint32_t cells_room(Shard* shard) noexcept nogil:
    """Cells that may still be taken without giving one up."""
    return shard.n_free + (shard.n_cells - shard.fresh)


cdef uint32_t cell_take(ZoneHead* head, Shard* shard, uint8_t kind) noexcept nogil:
    """One cell, or 0; its kind is written, the rest is as the last owner left it."""
    cdef uint32_t i = shard.free
    cdef Cell* cell
    if i:
        cell = cell_at(head, shard, i)
        shard.free = cell.chain
        shard.n_free -= 1
    elif shard.fresh < shard.n_cells:
        i = shard.fresh
        shard.fresh += 1
        cell = cell_at(head, shard, i)
    else:
        return 0
    cell.more = 0
    cell.kind = kind
    return i


cdef void cell_give(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    cdef Cell* cell = cell_at(head, shard, i)
    cell.kind = CELL_FREE
    cell.chain = shard.free
    shard.free = i
    shard.n_free += 1


cdef uint32_t cell_write(ZoneHead* head, Shard* shard, uint32_t mark, const char* key,
                         uint32_t n, Load* load) noexcept nogil:
    """Store a key that cell_find did not find; 0 when the cells do not suffice."""
    cdef uint32_t i
    cdef uint32_t t
    cdef uint32_t at
    cdef uint32_t part
    cdef uint32_t* next_at
    cdef uint32_t* bucket
    cdef Cell* cell
    cdef Tail* tail
    if cells_room(shard) < cells_for(n):
        return 0
    i = cell_take(head, shard, CELL_FREE)
    cell = cell_at(head, shard, i)
    cell.key_n = <uint16_t>n
    cell.mark = mark
    cell.load = load[0]
    memcpy(cell.key, key, n if n < CELL_KEY else CELL_KEY)
    next_at = &cell.more
    at = CELL_KEY
    while at < n:
        t = cell_take(head, shard, CELL_KEY_TAIL)
        tail = <Tail*>cell_at(head, shard, t)
        part = n - at if n - at < TAIL_KEY else TAIL_KEY
        memcpy(tail.key, key + at, part)
        next_at[0] = t
        next_at = &tail.more
        at += part
    ordered()
    cell.kind = CELL_KEY_HEAD
    ordered()
    bucket = bucket_at(head, shard, mark)
    cell.chain = bucket[0]
    bucket[0] = i
    shard.n_keys += 1
    return i


cdef void cell_drop(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    """Forget a key: out of its bucket, all its cells free. The LRU queue is the caller's."""
    cdef Cell* cell = cell_at(head, shard, i)
    cdef uint32_t* at = bucket_at(head, shard, cell.mark)
    cdef uint32_t t = cell.more
    cdef uint32_t following
    cell.kind = CELL_FREE
    ordered()
    while at[0] and at[0] != i:
        at = &cell_at(head, shard, at[0]).chain
    at[0] = cell.chain
    cell_give(head, shard, i)
    while t:
        following = cell_at(head, shard, t).more
        cell_give(head, shard, t)
        t = following
    shard.n_keys -= 1


cdef void lru_push(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    cdef Cell* cell = cell_at(head, shard, i)
    cell.load.req.newer = 0
    cell.load.req.older = shard.newest
    if shard.newest:
        cell_at(head, shard, shard.newest).load.req.newer = i
    else:
        shard.oldest = i
    shard.newest = i


cdef void lru_pull(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    cdef Cell* cell = cell_at(head, shard, i)
    cdef uint32_t newer = cell.load.req.newer
    cdef uint32_t older = cell.load.req.older
    if newer:
        cell_at(head, shard, newer).load.req.older = older
    else:
        shard.newest = older
    if older:
        cell_at(head, shard, older).load.req.newer = newer
    else:
        shard.oldest = newer


cdef bint mark_chain(ZoneHead* head, Shard* shard, uint32_t i, uint8_t kind,
                     uint32_t n, bint is_seen) noexcept nogil:
    """Set is_seen on up to n chained cells of a kind; False where the chain is broken.

    Tails: n is exact. Shares: the chain ends where it ends.
    """
    cdef Cell* cell
    while n:
        if i == 0:
            return kind == CELL_SHARES
        if i >= shard.fresh:
            return False
        cell = cell_at(head, shard, i)
        if cell.kind != kind or cell.is_seen == is_seen:
            return False
        cell.is_seen = is_seen
        i = cell.more
        n -= 1
    return i == 0


cdef uint32_t sum_shares(ZoneHead* head, Shard* shard, Cell* cell) noexcept nogil:
    """Connections that stand in a key's shares."""
    cdef uint32_t n = 0
    cdef uint32_t k
    cdef uint32_t i = cell.load.conn.shares
    cdef Shares* shares
    for k in range(4):
        n += cell.load.conn.share[k].n
    while i:
        shares = <Shares*>cell_at(head, shard, i)
        for k in range(14):
            n += shares.share[k].n
        i = shares.more
    return n


cdef bint is_key_whole(ZoneHead* head, Shard* shard, Cell* cell, bint is_conn) noexcept nogil:
    """Is all of a key there? Marks its cells seen if so, and leaves none marked if not."""
    cdef uint32_t n_tails = cells_for(cell.key_n) - 1
    if not mark_chain(head, shard, cell.more, CELL_KEY_TAIL, n_tails, True):
        mark_chain(head, shard, cell.more, CELL_KEY_TAIL, n_tails, False)
        return False
    if not is_conn:
        return True
    if mark_chain(head, shard, cell.load.conn.shares, CELL_SHARES, shard.n_cells, True):
        cell.load.conn.n = sum_shares(head, shard, cell)
        if cell.load.conn.n:
            return True
    mark_chain(head, shard, cell.load.conn.shares, CELL_SHARES, shard.n_cells, False)
    mark_chain(head, shard, cell.more, CELL_KEY_TAIL, n_tails, False)
    return False


cdef void cells_mend(ZoneHead* head, Shard* shard, bint is_conn) noexcept nogil:
    """Build buckets, queue and free list again from the keys that are whole.

    A key that was half born or half gone is gone; every other keeps its cell and its
    numbers. The order of the queue is lost. Whoever dies in here leaves the lock broken,
    and the next one does this again.
    """
    cdef uint32_t i
    cdef uint32_t* bucket
    cdef Cell* cell
    if shard.fresh > shard.n_cells:
        shard.fresh = shard.n_cells
    memset(<char*>head + shard.buckets_at, 0, <size_t>shard.n_buckets * 4)
    shard.free = 0
    shard.n_free = 0
    shard.n_keys = 0
    shard.newest = 0
    shard.oldest = 0
    shard.n_mended += 1
    for i in range(1, shard.fresh):
        cell_at(head, shard, i).is_seen = 0
    for i in range(1, shard.fresh):
        cell = cell_at(head, shard, i)
        if cell.kind != CELL_KEY_HEAD:
            continue
        if not is_key_whole(head, shard, cell, is_conn):
            cell.kind = CELL_FREE
            continue
        cell.is_seen = 1
        bucket = bucket_at(head, shard, cell.mark)
        cell.chain = bucket[0]
        bucket[0] = i
        shard.n_keys += 1
        if not is_conn:
            lru_push(head, shard, i)
    for i in range(shard.fresh - 1, 0, -1):
        cell = cell_at(head, shard, i)
        if not cell.is_seen:
            cell_give(head, shard, i)


cdef void shard_mend(ZoneHead* head, uint32_t number, bint is_conn) noexcept nogil:
    cells_mend(head, &cells_in(head).shard[number], is_conn)
    zone_mended(head, number)


cdef object cells_broken(Zone zone, bint is_conn):
    """What is wrong with a zone's structure, in words, or None; takes every lock in turn."""
    cdef ZoneHead* head = zone.head
    cdef Cells* cells = cells_in(head)
    cdef Shard* shard
    cdef Cell* cell
    cdef uint32_t s
    cdef uint32_t b
    cdef uint32_t i
    cdef uint32_t n_keys
    cdef uint32_t n_used
    cdef uint32_t n_free
    cdef uint32_t last
    for s in range(cells.n_shards):
        if shard_lock(head, s, is_conn) != LOCKED:
            return f"shard {s} cannot be locked"
        try:
            shard = &cells.shard[s]
            n_keys = 0
            n_used = 0
            for b in range(shard.n_buckets):
                i = bucket_at(head, shard, b)[0]
                while i:
                    cell = cell_at(head, shard, i)
                    if i >= shard.fresh or cell.kind != CELL_KEY_HEAD:
                        return f"bucket {b} of shard {s} leads to no key"
                    n_keys += 1
                    if n_keys > shard.n_cells:
                        return f"bucket {b} of shard {s} runs in a circle"
                    n_used += cells_for(cell.key_n)
                    if is_conn:
                        last = cell.load.conn.shares
                        while last:
                            n_used += 1
                            last = cell_at(head, shard, last).more
                    i = cell.chain
            if n_keys != shard.n_keys:
                return f"shard {s} counts {shard.n_keys} keys and holds {n_keys}"
            n_free = 0
            i = shard.free
            while i and n_free <= shard.n_cells:
                n_free += 1
                i = cell_at(head, shard, i).chain
            if n_free != shard.n_free:
                return f"shard {s} counts {shard.n_free} free cells and holds {n_free}"
            if n_used + n_free != shard.fresh - 1:
                return f"shard {s} lost {shard.fresh - 1 - n_used - n_free} cells"
            if not is_conn:
                n_keys = 0
                last = 0
                i = shard.newest
                while i and n_keys <= shard.n_cells:
                    n_keys += 1
                    last = i
                    i = cell_at(head, shard, i).load.req.older
                if n_keys != shard.n_keys or last != shard.oldest:
                    return f"the queue of shard {s} holds {n_keys} of {shard.n_keys} keys"
        finally:
            shard_unlock(head, s)
    return None
