# A body that waits: bounded memory first, then an unlinked temp file.

from libc.stdint cimport int64_t, uint8_t


cdef class Spool:
    cdef char* memory
    cdef size_t n                 # bytes in memory
    cdef size_t cap
    cdef size_t bound             # memory at most
    cdef int fd                   # -1: no file yet
    cdef int64_t file_n           # bytes in the file
    cdef int64_t file_bound       # 0: no file may be used; put answers FULL
    cdef readonly int64_t size    # put so far
    cdef readonly int64_t at      # taken so far
    cdef uint8_t is_kept          # a body that may be read again: nothing is forgotten
    cdef readonly object path     # name of the file of a kept body: $request_body_file
    cdef object folder
    cdef uint8_t is_file_only     # client_body_in_file_only: nothing stays in memory
    cdef uint8_t is_left          # and the file is not removed
    cdef uint8_t is_copy          # of a body that is streamed: kept while it fits in memory

    cdef bint grow(self, size_t n) noexcept
    cdef bint open_file(self) noexcept
    cdef bint append(self, const char* p, size_t n) noexcept
    cdef int put(self, const char* p, size_t n) noexcept
    cdef Py_ssize_t peek(self, const char** p, char* scratch, size_t cap) noexcept
    cdef void skip(self, size_t n) noexcept
    cdef void rewind(self) noexcept
    cdef bint is_empty(self) noexcept
    cdef int64_t room(self) noexcept
    cdef int to_file(self) noexcept


cdef Spool new_spool(size_t bound, int64_t file_bound, object folder, bint is_kept)
