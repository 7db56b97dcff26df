# Shared memory: one memfd a zone, mapped whole, with locks that survive a dead owner.
#
# Layout of every zone: a head page (magic, version, kind, size, seeds, name, label), a page
# of locks, then the data of the room that owns it. Nothing in a zone is a pointer: each
# process may map it at another address. Nothing here waits on anything but a lock that
# is held for well under a microsecond.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "<errno.h>" nogil:
    enum:
        EOWNERDEAD
        EBUSY


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_trylock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_consistent(pthread_mutex_t*)


cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define headrace_relax() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define headrace_relax() __asm__ __volatile__("yield")
    #else
    #define headrace_relax() ((void)0)
    #endif
    /* Keeps the order of stores for a reader who finds them after we were killed. */
    #define headrace_ordered() __atomic_signal_fence(__ATOMIC_SEQ_CST)
    """
    void relax "headrace_relax"() nogil
    void ordered "headrace_ordered"() nogil


cdef enum:
    SHM_VERSION = 1         # of the head, the locks and every room's data: one number for all
    LOCKS_AT = 4096         # bytes
    LOCK_BYTES = 64         # a cache line each, so that two shards never share one
    LOCKS_MAX = 64
    DATA_AT = 8192          # bytes
    SPIN = 64               # tries before a lock sleeps; holders need some tens of ns
    NAME_MAX = 255          # bytes of a zone's name that are kept
    LABEL_MAX = 2047        # bytes of its label


cdef enum LockResult:
    LOCKED = 0
    LOCKED_BROKEN = 1       # the last owner died inside: repair, then zone_mended()
    LOCK_FAILED = -1        # not locked: the caller goes without


cdef enum ZoneKind:
    ZONE_OTHER = 0
    ZONE_LIMIT_REQ = 1
    ZONE_LIMIT_CONN = 2
    ZONE_FUNCTIONS = 3
    ZONE_COUNTERS = 4
    ZONE_UPSTREAM = 5
    ZONE_REPLICAS = 6


cdef struct ZoneHead:
    uint64_t magic
    uint32_t version
    uint32_t kind           # ZoneKind
    uint64_t size           # bytes, head included
    uint64_t seed[2]        # random, of this zone's birth: keys its hash, orders its locks
    uint32_t n_locks
    uint32_t label_n
    uint32_t name_n
    uint32_t is_ready       # written last by the room that laid out the data
    char name[256]
    char label[2048]


cdef class Zone:
    cdef char* base
    cdef ZoneHead* head
    cdef readonly size_t size   # bytes
    cdef readonly int fd

    cdef void* data(self, uint64_t at=*) noexcept


cdef inline pthread_mutex_t* lock_of(ZoneHead* head, uint32_t number) noexcept nogil:
    return <pthread_mutex_t*>(<char*>head + LOCKS_AT + number * LOCK_BYTES)


cdef inline int zone_lock(ZoneHead* head, uint32_t number) noexcept nogil:
    """Take lock `number`; answers LockResult. Who answers LOCKED_BROKEN must repair."""
    cdef pthread_mutex_t* lock = lock_of(head, number)
    cdef int error = pthread_mutex_trylock(lock)
    cdef int tries = 0
    while error == EBUSY and tries < SPIN:
        relax()
        tries += 1
        error = pthread_mutex_trylock(lock)
    if error == EBUSY:
        error = pthread_mutex_lock(lock)
    if error == 0:
        return LOCKED
    return LOCKED_BROKEN if error == EOWNERDEAD else LOCK_FAILED


cdef inline void zone_unlock(ZoneHead* head, uint32_t number) noexcept nogil:
    pthread_mutex_unlock(lock_of(head, number))


cdef inline void zone_mended(ZoneHead* head, uint32_t number) noexcept nogil:
    """Say that what a dead owner left is whole again; the lock stays taken."""
    pthread_mutex_consistent(lock_of(head, number))
