# Where arena blocks come from and go back to: many requests need a second one, which is larger.

from libc.stdlib cimport free, malloc

cdef enum:
    KEPT_MAX = 4096          # blocks of ARENA_FIRST kept for reuse: 4 MiB
    SECOND = 4096
    KEPT_SECONDS = 256       # 1 MiB

cdef Block* kept = NULL
cdef uint32_t n_kept = 0
cdef Block* kept_seconds = NULL
cdef uint32_t n_kept_seconds = 0


cdef void* arena_grow(Arena* a, size_t n) noexcept nogil:
    global kept, n_kept, kept_seconds, n_kept_seconds
    cdef size_t size = ARENA_FIRST
    cdef Block* b
    cdef char* p
    if a.blocks != NULL or n > ARENA_FIRST - sizeof(Block):
        size = SECOND
        if n > size - sizeof(Block):
            size = n + sizeof(Block)
    if a.total + size > ARENA_MAX:
        return NULL
    if size == ARENA_FIRST and kept != NULL:
        b = kept
        kept = b.next
        n_kept -= 1
    elif size == SECOND and kept_seconds != NULL:
        b = kept_seconds
        kept_seconds = b.next
        n_kept_seconds -= 1
    else:
        b = <Block*>malloc(size)
        if b == NULL:
            return NULL
        b.size = <uint32_t>size
    b.next = a.blocks
    a.blocks = b
    a.total += <uint32_t>size
    p = <char*>b + sizeof(Block)
    a.at = p + n
    a.end = <char*>b + size
    return p


cdef void arena_clear(Arena* a) noexcept nogil:
    global kept, n_kept, kept_seconds, n_kept_seconds
    cdef Block* b = a.blocks
    cdef Block* older
    while b != NULL:
        older = b.next
        if b.size == ARENA_FIRST and n_kept < KEPT_MAX:
            b.next = kept
            kept = b
            n_kept += 1
        elif b.size == SECOND and n_kept_seconds < KEPT_SECONDS:
            b.next = kept_seconds
            kept_seconds = b
            n_kept_seconds += 1
        else:
            free(b)
        b = older
    a.blocks = NULL
    a.at = NULL
    a.end = NULL
    a.total = 0
