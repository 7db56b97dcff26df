# Keeps what one side sent until the other side takes it; request and response bodies alike.
#
# Two ways to use it. Kept: everything stays, `at` moves through it and may be rewound (a
# request body that a retry sends again). Not kept: a queue; what was taken is forgotten,
# and when all was taken the file is cut back to nothing.

from libc.errno cimport EINTR, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove
from posix.unistd cimport close, ftruncate, pread, pwrite

from proxy.base.verdict cimport DISK_FULL, NO_MEMORY

import os
from tempfile import mkstemp


cdef enum:
    FIRST_BYTES = 1000        # small enough that malloc has it at hand: most bodies are smaller


cdef class Spool:
    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        free(self.memory)
        if self.fd >= 0:
            close(self.fd)
        if self.path is not None and not self.is_left:
            try:
                os.unlink(self.path)
            except OSError:          # somebody took it (client_body_in_file_only, move)
                pass

    cdef int put(self, const char* p, size_t n) noexcept:
        """0, NO_MEMORY, or DISK_FULL (also: over file_bound)."""
        cdef size_t k
        if self.fd < 0 and not self.is_file_only:
            # of a queue, what is over goes to the file; a kept body is in one of them whole
            k = n if self.n + n <= self.bound else 0 if self.is_kept else self.bound - self.n
            if k:
                if self.n + k > self.cap and not self.grow(k):
                    return NO_MEMORY
                memcpy(self.memory + self.n, p, k)
                self.n += k
                self.size += <int64_t>k
                p += k
                n -= k
            if n == 0:
                return 0
            if self.file_bound == 0 or not self.open_file():
                return DISK_FULL
        elif self.fd < 0 and not self.open_file():
            return DISK_FULL
        if self.file_n + <int64_t>n > self.file_bound or not self.append(p, n):
            return DISK_FULL
        self.size += <int64_t>n
        return 0

    cdef bint grow(self, size_t n) noexcept:
        cdef size_t cap = self.cap * 2 if self.cap else FIRST_BYTES
        cdef char* grown
        while cap < self.n + n:
            cap *= 2
        if cap > self.bound:
            cap = self.bound
        grown = <char*>realloc(self.memory, cap)
        if grown == NULL:
            return False
        self.memory = grown
        self.cap = cap
        return True

    cdef bint open_file(self) noexcept:
        """A kept body moves into the file whole, so that the file is the body."""
        try:
            if self.is_kept:
                self.fd, self.path = mkstemp(dir=self.folder)
            else:
                self.fd = os.open(self.folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError:
            self.fd = -1
            return False
        if self.is_kept and self.n:
            if not self.append(self.memory, self.n):
                return False
            free(self.memory)
            self.memory = NULL
            self.n = self.cap = 0
        return True

    cdef bint append(self, const char* p, size_t n) noexcept:
        cdef ssize_t done
        while n:
            done = pwrite(self.fd, p, n, self.file_n)
            if done <= 0:
                if done < 0 and errno == EINTR:
                    continue
                return False
            self.file_n += done
            p += done
            n -= <size_t>done
        return True

    cdef int to_file(self) noexcept:
        """Even an empty or a small body goes to a file (client_body_in_file_only)."""
        return 0 if self.fd >= 0 or self.open_file() else DISK_FULL

    cdef Py_ssize_t peek(self, const char** p, char* scratch, size_t cap) noexcept:
        """The next piece, at most cap bytes; 0 when nothing waits, -1 when the file fails."""
        cdef ssize_t got
        cdef int64_t in_memory = <int64_t>self.n - self.at if self.is_kept else <int64_t>self.n
        if in_memory > 0:
            p[0] = self.memory + (self.at if self.is_kept else 0)
            return in_memory if in_memory < <int64_t>cap else <Py_ssize_t>cap
        if self.at >= self.size or self.fd < 0:
            return 0
        while True:
            got = pread(self.fd, scratch, cap, self.file_n - (self.size - self.at))
            if got >= 0 or errno != EINTR:
                break
        if got <= 0:
            return -1
        p[0] = scratch
        return got

    cdef void skip(self, size_t n) noexcept:
        """Take n bytes that peek gave."""
        cdef int64_t size = <int64_t>n
        self.at += size
        if self.is_kept:
            return
        if self.n:
            self.n -= n
            if self.n:
                memmove(self.memory, self.memory + n, self.n)
            elif self.fd >= 0:                   # what comes goes into the file
                free(self.memory)
                self.memory = NULL
                self.cap = 0
        if self.at == self.size and self.fd >= 0 and self.file_n:
            ftruncate(self.fd, 0)
            self.file_n = 0
            close(self.fd)
            self.fd = -1

    cdef void rewind(self) noexcept:
        self.at = 0

    cdef bint is_empty(self) noexcept:
        return self.at == self.size

    cdef int64_t room(self) noexcept:
        """Bytes that put would take now."""
        if self.fd < 0:
            return <int64_t>(self.bound - self.n) + self.file_bound
        return self.file_bound - self.file_n

    def read(self):
        """All of a kept body as bytes ($request_body); None when it lies in a file."""
        if self.fd >= 0:
            return None
        return self.memory[:self.n] if self.n else b""


cdef Spool new_spool(size_t bound, int64_t file_bound, object folder, bint is_kept):
    cdef Spool s = Spool.__new__(Spool)
    s.bound = bound
    s.file_bound = file_bound
    s.folder = folder
    s.is_kept = is_kept
    return s
