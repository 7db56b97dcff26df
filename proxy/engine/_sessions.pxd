# SessionCache: sessions of clients in shared memory, found by any worker (ssl_session_cache).
#
# Layout of the zone's data: a head, an index by hash of the session's id, a ring of records.
# The ring forgets the oldest by itself; a record is whole or not found. One lock, held for
# the copying of at most SESSION_MOST bytes.

from cython cimport final
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base._shm cimport Zone

cdef enum:
    SESSION_MOST = 4096       # bytes of a session that is kept (nginx's bound too)


cdef struct Record:
    uint64_t at               # where in the endless ring it was written: its identity
    uint32_t size             # of the session behind it
    uint32_t expires_s        # wall clock
    uint8_t id_n
    unsigned char[32] id


cdef struct CacheHead:
    uint64_t end              # bytes that were ever written
    uint64_t n_places         # of the index, a power of two
    uint64_t ring_bytes


@final
cdef class SessionCache:
    cdef Zone zone
    cdef CacheHead* head
    cdef uint64_t* places     # position + 1 of a record, 0 none
    cdef char* ring

    cdef bint lock(self) noexcept
    cdef uint64_t* place_of(self, const unsigned char* id, unsigned int n) noexcept
    cdef Record* find(self, const unsigned char* id, unsigned int n) noexcept
    cdef void put(self, const unsigned char* id, unsigned int id_n, const unsigned char* p,
                  uint32_t n, uint32_t expires_s) noexcept
    cdef uint32_t get(self, const unsigned char* id, unsigned int id_n, unsigned char* out,
                      uint32_t now_s) noexcept
    cdef void remove(self, const unsigned char* id, unsigned int id_n) noexcept
