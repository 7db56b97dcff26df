# Files: opening them, asking what they are, and remembering both (open_file_cache).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef enum FileKind:
    KIND_OTHER = 0
    KIND_FILE = 1
    KIND_FOLDER = 2


cdef class OpenFile:
    # Closed when the last one who holds it lets go.
    cdef int fd                   # -1: only asked about
    cdef int error                # errno; then nothing else counts
    cdef uint8_t kind             # FileKind
    cdef int64_t size
    cdef int64_t mtime_s
    cdef uint64_t inode
    cdef uint64_t device
    cdef uint64_t checked_ms
    cdef uint64_t used_ms
    cdef uint32_t uses


cdef class FileCache:
    cdef dict files               # bytes path -> OpenFile, least recently used first
    cdef readonly uint32_t most
    cdef readonly uint64_t inactive_ms
    cdef readonly uint64_t valid_ms
    cdef readonly uint32_t min_uses
    cdef readonly bint keeps_errors

    cdef OpenFile find(self, bytes key, bint is_test)
    cdef object drop_old(self)


# The file at a path that ends with NUL; never None. `is_test` only asks what it is.
cdef OpenFile open_path(const char* path, uint32_t n, bint is_test, FileCache cache)
