# Keys in a zone of shared memory: 64-byte cells, hashed, split into locked shards.
#
# A key is one cell and, past CELL_KEY bytes, a chain of tail cells; all cells are of one
# size, so nothing ever fragments. A shard owns its buckets, its cells and its lock. The
# limiters lay their own numbers over `load`. A process may be killed between any two
# stores: `kind` is written last when a key is born and first when it goes, and
# cells_mend() builds everything else again from the cells that are marked as keys.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from proxy.base._shm cimport (
    DATA_AT, LOCK_FAILED, LOCKED, Zone, ZoneHead, ordered, zone_lock, zone_unlock
)


cdef enum:
    CELL_KEY = 24           # bytes of a key in its first cell
    TAIL_KEY = 56           # bytes of a key in each further cell
    KEY_MAX = 65535         # bytes; as in nginx, a longer key is not limited
    SHARDS_MAX = 16
    SHARD_BYTES = 262144    # a zone gets one shard more for each so many bytes


cdef enum CellKind:
    CELL_FREE = 0
    CELL_KEY_HEAD = 1
    CELL_KEY_TAIL = 2
    CELL_SHARES = 3         # limit_conn: who holds, past the four in the first cell


cdef struct ReqLoad:
    uint32_t newer          # the LRU queue
    uint32_t older
    uint64_t last_ms
    uint32_t excess         # 1/1000 request
    uint32_t spare


cdef struct Share:
    uint16_t worker
    uint16_t n


cdef struct ConnLoad:
    uint32_t n              # sum of all shares
    uint32_t shares         # first CELL_SHARES cell, or 0
    Share share[4]


cdef union Load:
    ReqLoad req
    ConnLoad conn


cdef struct Cell:
    uint32_t more           # next cell of this key, or 0
    uint8_t kind            # CellKind
    uint8_t is_seen         # only while mending
    uint16_t key_n
    uint32_t chain          # next in the bucket, or in the free list
    uint32_t mark           # 32 bits of the hash: spares most comparisons
    Load load
    char key[24]


cdef struct Tail:
    uint32_t more
    uint8_t kind
    uint8_t is_seen
    uint16_t spare
    char key[56]


cdef struct Shares:
    uint32_t more
    uint8_t kind
    uint8_t is_seen
    uint16_t spare
    Share share[14]


cdef struct Shard:
    uint64_t buckets_at     # bytes from the zone's first byte
    uint64_t cells_at
    uint32_t n_buckets      # a power of two
    uint32_t n_cells        # cell 0 is never used: 0 means none
    uint32_t fresh          # cells from here on were never touched
    uint32_t free           # head of the free list
    uint32_t newest
    uint32_t oldest
    uint32_t n_free         # in the free list
    uint32_t n_keys
    uint64_t n_evicted
    uint32_t n_mended
    uint32_t spare[17]


cdef struct Cells:
    uint32_t n_shards       # a power of two
    uint32_t spare[31]
    Shard shard[16]


cdef inline Cells* cells_in(ZoneHead* head) noexcept nogil:
    return <Cells*>(<char*>head + DATA_AT)


cdef inline Cell* cell_at(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil:
    return <Cell*>(<char*>head + shard.cells_at) + i


cdef inline uint32_t* bucket_at(ZoneHead* head, Shard* shard, uint32_t mark) noexcept nogil:
    return <uint32_t*>(<char*>head + shard.buckets_at) + (mark & (shard.n_buckets - 1))


cdef inline uint32_t shard_of(Cells* cells, uint64_t hash) noexcept nogil:
    return <uint32_t>(hash >> 32) & (cells.n_shards - 1)


# SipHash-1-3 (Aumasson, Bernstein): keyed by the zone's seed, so that no client can choose
# keys that fall into one bucket.

cdef inline uint64_t rotate(uint64_t x, int n) noexcept nogil:
    return (x << n) | (x >> (64 - n))


cdef inline void sip_round(uint64_t* v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = rotate(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = rotate(v[2], 32)


cdef inline uint64_t hash_key(const uint64_t* seed, const char* key, uint32_t n) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef uint32_t left = n
    v[0] = seed[0] ^ 0x736f6d6570736575ULL
    v[1] = seed[1] ^ 0x646f72616e646f6dULL
    v[2] = seed[0] ^ 0x6c7967656e657261ULL
    v[3] = seed[1] ^ 0x7465646279746573ULL
    while left >= 8:
        memcpy(&word, key, 8)
        v[3] ^= word
        sip_round(v)
        v[0] ^= word
        key += 8
        left -= 8
    word = 0
    memcpy(&word, key, left)
    word |= <uint64_t>n << 56
    v[3] ^= word
    sip_round(v)
    v[0] ^= word
    v[2] ^= 0xff
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline uint32_t cells_for(uint32_t key_n) noexcept nogil:
    """Cells that a key of so many bytes takes."""
    return 1 if key_n <= CELL_KEY else 1 + (key_n - CELL_KEY + TAIL_KEY - 1) // TAIL_KEY


cdef bint is_tail_equal(ZoneHead* head, Shard* shard, Cell* cell, const char* key,
                        uint32_t n) noexcept nogil


cdef inline uint32_t cell_find(ZoneHead* head, Shard* shard, uint32_t mark, const char* key,
                               uint32_t n) noexcept nogil:
    """The key's cell, or 0. The shard's lock is held, as in all that follows."""
    cdef uint32_t i = bucket_at(head, shard, mark)[0]
    cdef Cell* cell
    while i:
        cell = cell_at(head, shard, i)
        if cell.mark == mark and cell.key_n == n:
            if n <= CELL_KEY:
                if memcmp(cell.key, key, n) == 0:
                    return i
            elif memcmp(cell.key, key, CELL_KEY) == 0 and is_tail_equal(
                    head, shard, cell, key, n):
                return i
        i = cell.chain
    return 0


cdef int cells_lay_out(Zone zone) except -1
cdef uint32_t cells_room(Shard* shard) noexcept nogil
cdef uint32_t cell_take(ZoneHead* head, Shard* shard, uint8_t kind) noexcept nogil
cdef void cell_give(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil
cdef uint32_t cell_write(ZoneHead* head, Shard* shard, uint32_t mark, const char* key,
                         uint32_t n, Load* load) noexcept nogil
cdef void cell_drop(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil
cdef void lru_push(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil
cdef void lru_pull(ZoneHead* head, Shard* shard, uint32_t i) noexcept nogil
cdef void cells_mend(ZoneHead* head, Shard* shard, bint is_conn) noexcept nogil
cdef object cells_broken(Zone zone, bint is_conn)


cdef inline int shard_lock(ZoneHead* head, uint32_t number, bint is_conn) noexcept nogil:
    """Take a shard's lock, repairing first what a dead owner left; LOCKED or LOCK_FAILED."""
    cdef int result = zone_lock(head, number)
    if result == LOCKED:
        return LOCKED
    if result == LOCK_FAILED:
        return LOCK_FAILED
    shard_mend(head, number, is_conn)
    return LOCKED


cdef void shard_mend(ZoneHead* head, uint32_t number, bint is_conn) noexcept nogil


cdef inline void shard_unlock(ZoneHead* head, uint32_t number) noexcept nogil:
    zone_unlock(head, number)
