# Memory that belongs to one request: bump allocation, freed all at once.
#
# The first block comes from a free list of 1 KiB blocks; later ones are larger. The
# total is bounded (ARENA_MAX), so a request cannot take more however it is written.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from proxy.base.span cimport Str


cdef enum:
    ARENA_FIRST = 1024
    ARENA_MAX = 1 << 20


cdef struct Block:
    Block* next
    uint32_t size


cdef struct Arena:
    Block* blocks        # newest first
    char* at
    char* end
    uint32_t total


cdef void* arena_grow(Arena* a, size_t n) noexcept nogil
cdef void arena_clear(Arena* a) noexcept nogil


cdef inline void* take(Arena* a, size_t n) noexcept nogil:
    """n bytes aligned to 8, or NULL when the bound or the memory is at its end."""
    cdef char* p = a.at
    n = (n + 7) & ~<size_t>7
    if p != NULL and <size_t>(a.end - p) >= n:
        a.at = p + n
        return p
    return arena_grow(a, n)


cdef inline Str copy(Arena* a, Str s) noexcept nogil:
    """The same bytes, kept as long as the arena; an empty Str when there is no room."""
    cdef Str kept
    kept.p = <const char*>take(a, s.n)
    kept.n = s.n if kept.p != NULL else 0
    if kept.n:
        memcpy(<void*>kept.p, s.p, s.n)
    return kept
