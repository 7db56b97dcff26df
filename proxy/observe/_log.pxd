# Access logs at work: the files, their buffers, and what a location writes into which.

from libc.stdint cimport int64_t, uint64_t

from proxy.base._request cimport Request
from proxy.observe._format cimport Format


cdef class LogFile:
    cdef readonly bytes path
    cdef int fd                       # -1: not open, lines are lost and counted
    cdef char* buf
    cdef size_t n
    cdef size_t cap                   # buffer=, 0: each line is written at once
    cdef readonly int flush_ms        # 0: only when it is full
    cdef readonly int level           # gzip=, 0: as it is
    cdef object timer
    cdef bint is_timed
    cdef object later                 # callable(seconds, callback) of the loop
    cdef readonly uint64_t lost       # lines that could not be written
    cdef int64_t told_s               # when that was last reported
    cdef int64_t full_s               # the second in which the disk was full

    cdef void put(self, const char* p, size_t n) noexcept
    cdef void put_request(self, Format f, Request r) noexcept
    cdef void arm(self) noexcept
    cdef void flush(self) noexcept
    cdef void write(self, const char* p, size_t n, uint64_t lines) noexcept
    cdef void complain(self, int number) noexcept


cdef class LogSettings:
    cdef public list logs             # AccessLog, in order
    cdef public list errors           # ErrorFile each, or None: the worker's
    cdef public int error_level       # the most talkative of them
    cdef public bint tells_subs       # log_subrequest
    cdef public object root           # Template: must exist where a log's path has variables
    cdef public object path_cache     # open_log_file_cache, or None


# Write the access logs of a request that is over.
cdef void write_logs(Request r) noexcept
# The same of a sub-request, if its location tells of them.
cdef void write_sub_logs(Request r) noexcept
