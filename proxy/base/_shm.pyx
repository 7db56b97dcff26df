# Shared memory zones: made by the master before it forks, found again by their descriptor.

import os
import struct
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl

from cpython.buffer cimport PyBuffer_FillInfo
from cython cimport final
from libc.string cimport memcpy


cdef extern from "<sys/mman.h>" nogil:
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
    void* mmap(void*, size_t, int, int, int, long)
    int munmap(void*, size_t)
    void* MAP_FAILED


cdef extern from "<pthread.h>" nogil:
    enum:
        PTHREAD_PROCESS_SHARED
        PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t*)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t*, int)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t*, int)
    int pthread_mutexattr_destroy(pthread_mutexattr_t*)
    int pthread_mutex_init(pthread_mutex_t*, pthread_mutexattr_t*)


cdef extern from *:
    """
    _Static_assert(sizeof(pthread_mutex_t) <= 64, "a lock fits its cache line");
    """


cdef uint64_t MAGIC = 0x6563617264616568  # "headrace" in memory order


KINDS = {
    "other": ZONE_OTHER,
    "limit_req": ZONE_LIMIT_REQ,
    "limit_conn": ZONE_LIMIT_CONN,
    "functions": ZONE_FUNCTIONS,
    "counters": ZONE_COUNTERS,
    "upstream": ZONE_UPSTREAM,
    "replicas": ZONE_REPLICAS,
}
MIN_BYTES = 8 * os.sysconf("SC_PAGESIZE")


class ZoneError(OSError):
    """A zone cannot be made, or what was handed to us is none of ours."""


@final
cdef class Zone:
    """One zone of shared memory.

    `size` counts bytes with the head; memory that nobody touched costs nothing. The
    descriptor is close-on-exec and sealed: nobody can cut the file under a mapping.
    The zone lives as long as any process maps it or holds the descriptor.
    """

    @staticmethod
    def create(name: str, size: int, kind: str = "other", label: str = "") -> Zone:
        """A new zone of `size` bytes (at least 8 pages), zero everywhere after its head.

        `label` says what the zone is bound to (a limiter's key), to be compared after a
        reload. Raises ZoneError.
        """
        if size < MIN_BYTES:
            raise ZoneError(f'zone "{name}" is too small')
        cdef int fd = os.memfd_create(f"headrace:{name}"[:200], os.MFD_CLOEXEC
                                      | os.MFD_ALLOW_SEALING)
        cdef Zone zone = Zone.__new__(Zone)
        cdef pthread_mutexattr_t attributes
        cdef bytes text
        cdef bytes seeds = os.urandom(16)
        cdef uint32_t i
        zone.fd = fd
        try:
            os.ftruncate(fd, size)
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        except (OSError, OverflowError) as error:
            raise ZoneError(f'zone "{name}" of {size} bytes: {error}') from None
        _map(zone, size)
        zone.head.version = SHM_VERSION
        zone.head.kind = KINDS[kind]
        zone.head.size = size
        zone.head.n_locks = LOCKS_MAX
        memcpy(zone.head.seed, <const char*>seeds, 16)
        text = name.encode("utf-8", "surrogateescape")[:NAME_MAX]
        zone.head.name_n = <uint32_t>len(text)
        memcpy(zone.head.name, <const char*>text, len(text))
        text = label.encode("utf-8", "surrogateescape")[:LABEL_MAX]
        zone.head.label_n = <uint32_t>len(text)
        memcpy(zone.head.label, <const char*>text, len(text))
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED)
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST)
        for i in range(LOCKS_MAX):
            if pthread_mutex_init(lock_of(zone.head, i), &attributes) != 0:
                raise ZoneError(f'zone "{name}": its locks cannot be made')
        pthread_mutexattr_destroy(&attributes)
        ordered()
        zone.head.magic = MAGIC
        return zone

    @staticmethod
    def attach(fd: int) -> Zone:
        """Map the zone behind `fd`; the descriptor is duplicated, the caller keeps his.

        Raises ZoneError when it is no zone, or one of another layout (an upgrade between
        versions starts with fresh zones).
        """
        cdef Zone zone = Zone.__new__(Zone)
        cdef size_t size
        try:
            size = os.fstat(fd).st_size
            head = os.pread(fd, 32, 0)
            zone.fd = os.dup(fd)
        except OSError as error:
            raise ZoneError(f"descriptor {fd}: {error}") from None
        if len(head) < 32 or size < MIN_BYTES:
            raise ZoneError(f"descriptor {fd} holds no shared memory zone")
        magic, version, _, stated = struct.unpack("=QIIQ", head[:24])
        if magic != MAGIC or stated != size:
            raise ZoneError(f"descriptor {fd} holds no shared memory zone")
        if version != SHM_VERSION:
            raise ZoneError(f"descriptor {fd} holds a zone of layout {version}, "
                            f"this program reads layout {SHM_VERSION}")
        _map(zone, size)
        return zone

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.base is not NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def name(self) -> str:
        return self.head.name[:self.head.name_n].decode("utf-8", "surrogateescape")

    @property
    def label(self) -> str:
        return self.head.label[:self.head.label_n].decode("utf-8", "surrogateescape")

    @property
    def kind(self) -> str:
        for word, number in KINDS.items():
            if number == self.head.kind:
                return word
        return "other"

    @staticmethod
    def cut_label(label: str) -> str:
        """What of a label is kept: compare with `label` by this."""
        return label.encode("utf-8", "surrogateescape")[:LABEL_MAX].decode(
            "utf-8", "surrogateescape")

    def is_for(self, name: str, size: int, kind: str) -> bool:
        """May a reload that declares this zone keep what stands in here?"""
        return self.name == name and self.size == size and self.kind == kind

    def hold(self, number: int) -> int:
        """Take lock `number` and keep it (LockResult), for tests of a dying owner."""
        if not 0 <= number < LOCKS_MAX:
            raise IndexError(number)
        return zone_lock(self.head, number)

    def free(self, number: int, is_mended: bool = False) -> None:
        """Give back what `hold` took."""
        if not 0 <= number < LOCKS_MAX:
            raise IndexError(number)
        if is_mended:
            zone_mended(self.head, number)
        zone_unlock(self.head, number)

    def bytes_in_use(self) -> int:
        """Memory that the zone really costs now."""
        return os.fstat(self.fd).st_blocks * 512

    def __getbuffer__(self, Py_buffer* view, int flags):
        """memoryview(zone): the room's own data, writable, as bytes."""
        PyBuffer_FillInfo(view, self, self.base + DATA_AT,
                          <Py_ssize_t>(self.size - DATA_AT), False, flags)

    cdef void* data(self, uint64_t at=0) noexcept:
        """Address of byte `at` of the room's own data, valid in this process only."""
        return self.base + DATA_AT + at


cdef int _map(Zone zone, size_t size) except -1:
    cdef void* address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, zone.fd, 0)
    if address == MAP_FAILED:
        raise ZoneError(f"{size} bytes of shared memory cannot be mapped")
    zone.base = <char*>address
    zone.head = <ZoneHead*>address
    zone.size = size
    return 0
