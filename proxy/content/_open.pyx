# Opens files, and remembers open ones within the bounds of open_file_cache.
#
# One cache may serve many locations; it belongs to one worker, so nothing here locks.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cython cimport final
from libc.errno cimport EINTR, errno
from posix.fcntl cimport O_CLOEXEC, O_NONBLOCK, O_RDONLY, open as c_open
from posix.stat cimport S_ISDIR, S_ISREG, fstat, stat, struct_stat
from posix.unistd cimport close as c_close

from proxy.base._clock cimport clock


cdef enum:
    EXPIRED_AT_ONCE = 2       # entries looked at for their age on each visit


@final
cdef class OpenFile:
    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)


cdef OpenFile open_now(const char* path, bint is_test):
    cdef OpenFile f = OpenFile.__new__(OpenFile)
    cdef struct_stat s
    cdef int rc
    if is_test:
        rc = stat(path, &s)
    else:
        while True:
            f.fd = c_open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
            if f.fd >= 0 or errno != EINTR:
                break
        rc = fstat(f.fd, &s) if f.fd >= 0 else -1
    if rc < 0:
        f.error = errno
        return f
    read_stat(f, &s)
    return f


cdef inline void read_stat(OpenFile f, struct_stat* s) noexcept:
    f.size = s.st_size
    f.mtime_s = s.st_mtime
    f.inode = s.st_ino
    f.device = s.st_dev
    f.kind = KIND_FILE if S_ISREG(s.st_mode) else (
        KIND_FOLDER if S_ISDIR(s.st_mode) else KIND_OTHER)


@final
cdef class FileCache:
    """open_file_cache max=most inactive=…; times in ms."""

    def __init__(self, unsigned int most, inactive_ms, valid_ms, unsigned int min_uses,
                 bint keeps_errors):
        self.files = {}
        self.most = most
        self.inactive_ms = inactive_ms
        self.valid_ms = valid_ms
        self.min_uses = min_uses
        self.keeps_errors = keeps_errors

    def __len__(self):
        return len(self.files)

    cdef OpenFile find(self, bytes key, bint is_test):
        cdef OpenFile known = self.files.pop(key, None)
        cdef OpenFile f = None
        cdef OpenFile asked
        cdef uint32_t uses = 0
        cdef const char* path = <const char*>key
        self.drop_old()
        if known is not None:
            uses = known.uses
            if known.used_ms + self.inactive_ms < clock.now_ms:
                uses = 0
            elif known.fd >= 0 or known.error or (is_test and known.kind):
                if clock.now_ms - known.checked_ms < self.valid_ms:
                    f = known
                else:
                    asked = open_now(path, True)
                    if asked.error == known.error and asked.inode == known.inode and (
                            asked.device == known.device and asked.kind == known.kind):
                        f = known
                        # the descriptor stays; what is told of it is of today
                        f.size = asked.size
                        f.mtime_s = asked.mtime_s
                        f.checked_ms = clock.now_ms
        if f is None:
            f = open_now(path, is_test)
            f.checked_ms = clock.now_ms
        f.uses = uses + 1
        f.used_ms = clock.now_ms
        if f.error and not self.keeps_errors:
            return f
        if f.uses >= self.min_uses:
            self.files[key] = f
        else:                                    # seldom used: its count stays, not its descriptor
            asked = OpenFile.__new__(OpenFile)
            asked.uses = f.uses
            asked.used_ms = f.used_ms
            self.files[key] = asked
        if <uint32_t>len(self.files) > self.most:
            del self.files[next(iter(self.files))]
        return f

    cdef drop_old(self):
        cdef int _i
        cdef OpenFile oldest
        for _i in range(EXPIRED_AT_ONCE):
            if not self.files:
                return
            key = next(iter(self.files))
            oldest = self.files[key]
            if oldest.used_ms + self.inactive_ms >= clock.now_ms:
                return
            del self.files[key]


cdef OpenFile open_path(const char* path, uint32_t n, bint is_test, FileCache cache):
    if cache is not None:
        return cache.find(PyBytes_FromStringAndSize(path, n), is_test)
    return open_now(path, is_test)
