# Keeps TLS sessions in a zone of shared memory: put, get, remove by session id.

from cython cimport final
from libc.string cimport memcmp, memcpy, memset

from proxy.base._shm cimport (
    DATA_AT, LOCKED_BROKEN, LOCK_FAILED, zone_lock, zone_mended, zone_unlock,
)

cdef enum:
    PER_PLACE = 256           # bytes of the ring for each place of the index


@final
cdef class SessionCache:
    """The cache in a zone; lays out a fresh one."""

    def __init__(self, Zone zone not None):
        cdef uint64_t room = zone.size - DATA_AT - sizeof(CacheHead)
        cdef uint64_t n = 16
        self.zone = zone
        self.head = <CacheHead*>zone.data()
        while n * 2 * (PER_PLACE + sizeof(uint64_t)) <= room:
            n *= 2
        # two workers that come first at once write the same
        self.head.n_places = n
        self.head.ring_bytes = (room - n * sizeof(uint64_t)) & ~<uint64_t>7
        self.places = <uint64_t*>(<char*>self.head + sizeof(CacheHead))
        self.ring = <char*>(self.places + n)

    cdef bint lock(self) noexcept:
        cdef int rc = zone_lock(self.zone.head, 0)
        if rc == LOCK_FAILED:
            return False
        if rc == LOCKED_BROKEN:                  # its owner died in the middle: begin anew
            memset(self.places, 0, self.head.n_places * sizeof(uint64_t))
            zone_mended(self.zone.head, 0)
        return True

    cdef uint64_t* place_of(self, const unsigned char* id, unsigned int n) noexcept:
        cdef uint64_t h = 0xCBF29CE484222325ULL ^ self.zone.head.seed[0]
        cdef unsigned int i
        for i in range(n):                       # FNV-1a; ids are random, the seed is ours
            h = (h ^ id[i]) * 0x100000001B3ULL
        return &self.places[(h ^ h >> 32) & (self.head.n_places - 1)]

    cdef Record* find(self, const unsigned char* id, unsigned int n) noexcept:
        cdef uint64_t at = self.place_of(id, n)[0]
        cdef Record* found
        if at == 0:
            return NULL
        at -= 1
        if at >= self.head.end or self.head.end - at > self.head.ring_bytes:
            return NULL                          # written over
        found = <Record*>(self.ring + at % self.head.ring_bytes)
        if found.at != at or found.id_n != n or memcmp(found.id, id, n) != 0 or (
                found.size > SESSION_MOST):
            return NULL
        return found

    cdef void put(self, const unsigned char* id, unsigned int id_n, const unsigned char* p,
                  uint32_t n, uint32_t expires_s) noexcept:
        cdef uint64_t size = (sizeof(Record) + n + 7) & ~<uint64_t>7
        cdef uint64_t left
        cdef Record* made
        if id_n > 32 or n > SESSION_MOST or size > self.head.ring_bytes or not self.lock():
            return
        left = self.head.ring_bytes - self.head.end % self.head.ring_bytes
        if left < size:
            self.head.end += left                # a record is in one piece
        made = <Record*>(self.ring + self.head.end % self.head.ring_bytes)
        made.at = self.head.end
        made.size = n
        made.expires_s = expires_s
        made.id_n = <uint8_t>id_n
        memcpy(made.id, id, id_n)
        memcpy(<char*>made + sizeof(Record), p, n)
        self.place_of(id, id_n)[0] = self.head.end + 1
        self.head.end += size
        zone_unlock(self.zone.head, 0)

    cdef uint32_t get(self, const unsigned char* id, unsigned int id_n, unsigned char* out,
                      uint32_t now_s) noexcept:
        """Bytes written to out (room for SESSION_MOST), 0: not here."""
        cdef Record* found
        cdef uint32_t n = 0
        if id_n > 32 or not self.lock():
            return 0
        found = self.find(id, id_n)
        if found != NULL and found.expires_s >= now_s:
            n = found.size
            memcpy(out, <char*>found + sizeof(Record), n)
        zone_unlock(self.zone.head, 0)
        return n

    cdef void remove(self, const unsigned char* id, unsigned int id_n) noexcept:
        if id_n > 32 or not self.lock():
            return
        if self.find(id, id_n) != NULL:
            self.place_of(id, id_n)[0] = 0
        zone_unlock(self.zone.head, 0)

    # ---------------------------------------------------------------- for tests

    def keep(self, bytes id not None, bytes session not None, int expires_s):
        self.put(id, <unsigned int>len(id), session, <uint32_t>len(session), <uint32_t>expires_s)

    def look_up(self, bytes id not None, int now_s):
        cdef unsigned char[SESSION_MOST] room
        cdef uint32_t n = self.get(id, <unsigned int>len(id), room, <uint32_t>now_s)
        return (<char*>room)[:n] if n else None

    def forget(self, bytes id not None):
        self.remove(id, <unsigned int>len(id))
