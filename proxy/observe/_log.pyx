# A line is written straight into its log's buffer; a full buffer or a quiet second empties it.

import os
import zlib

from cython cimport final
from libc.errno cimport EINTR, ENOSPC, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, strerror

from proxy.base._clock cimport clock
from proxy.base._report cimport R_ALERT, R_CRIT, report
from proxy.base.span cimport Str, of_bytes, to_bytes
from proxy.observe._format cimport Format
from proxy.variables._variables cimport Template, evaluate


cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int, const void*, size_t)


cdef enum:
    LINE_FIRST = 16 * 1024
    LINE_MAX = 4 << 20            # a longer line is lost (and counted)
    REPORT_EVERY_S = 60           # a log that cannot be written is reported this often

# one line at a time: of unbuffered logs, and what is too long for a buffer
cdef char* scratch = NULL
cdef size_t scratch_cap = 0

OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


@final
cdef class LogFile:
    """`LogFile(path, buffer_bytes, flush_ms, gzip_level)`; `open` before lines are put."""

    def __cinit__(self):
        self.fd = -1

    def __init__(self, bytes path not None, size_t cap=0, int flush_ms=0, int level=0):
        self.path = path
        self.cap = cap
        self.flush_ms = flush_ms
        self.level = level
        if cap:
            self.buf = <char*>malloc(cap)
            if self.buf == NULL:
                raise MemoryError

    def __dealloc__(self):
        free(self.buf)

    @property
    def parameters(self):
        """What two logs of one file must agree on."""
        return self.cap, self.flush_ms, self.level

    def open(self, later=None):
        """Open for appending; `later(seconds, callback)` is the loop's. Raises OSError."""
        self.later = later
        self.fd = os.open(self.path, OPEN_FLAGS, 0o644)

    def reopen(self):
        """Write what is buffered to the file as it was, then open the path anew (USR1)."""
        cdef int before = self.fd
        self.flush()
        try:
            self.fd = os.open(self.path, OPEN_FLAGS, 0o644)
        except OSError as error:                 # the old file is better than none
            told = f'open() "{os.fsdecode(self.path)}" failed ({error.errno}: {error.strerror})'
            report_bytes(R_CRIT, told.encode("utf-8", "surrogateescape"))
            return
        if before >= 0:
            os.close(before)

    def close(self):
        self.flush()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def on_flush_time(self):
        self.timer = None
        self.is_timed = False
        self.flush()

    def append(self, bytes line not None):
        """`put`, from Python."""
        self.put(line, len(line))

    cdef void put(self, const char* p, size_t n) noexcept:
        """A line that was written elsewhere."""
        if n > self.cap - self.n:
            self.flush()
            if n > self.cap:
                self.write(p, n, 1)
                return
        memcpy(self.buf + self.n, p, n)
        self.n += n
        if not self.is_timed:
            self.arm()

    cdef void put_request(self, Format f, Request r) noexcept:
        cdef Py_ssize_t n
        if self.n < self.cap:
            n = f.write_line(r, self.buf + self.n, self.cap - self.n)
            if n >= 0:
                self.n += <size_t>n
                if not self.is_timed:
                    self.arm()
                return
        n = write_scratch(f, r)
        if n < 0:
            self.lost += 1
            return
        self.put(scratch, <size_t>n)

    cdef void arm(self) noexcept:
        # at the first line of a buffer: then it is flushed in time
        if self.flush_ms == 0 or self.later is None:
            return
        self.is_timed = True
        self.timer = self.later(self.flush_ms / 1000, self.on_flush_time)

    cdef void flush(self) noexcept:
        cdef uint64_t lines = 0
        cdef size_t i
        if self.n == 0:
            return
        for i in range(self.n):
            lines += self.buf[i] == c"\n"
        self.write(self.buf, self.n, lines)
        self.n = 0

    cdef void write(self, const char* p, size_t n, uint64_t lines) noexcept:
        """To the file, whole; what it will not take is lost, and the requests go on."""
        cdef ssize_t done
        cdef bytes packed
        if self.fd < 0 or self.full_s == clock.wall_s:   # nginx: a full disk is left alone a second
            self.lost += lines
            return
        if self.level:
            try:
                packed = pack(p[:n], self.level)
            except MemoryError:
                self.lost += lines
                return
            p = packed
            n = <size_t>len(packed)
        while n:
            done = c_write(self.fd, p, n)
            if done < 0:
                if errno == EINTR:
                    continue
                if errno == ENOSPC:
                    self.full_s = clock.wall_s
                self.lost += lines
                if clock.wall_s - self.told_s >= REPORT_EVERY_S:
                    self.told_s = clock.wall_s
                    self.complain(errno)
                return
            p += done
            n -= <size_t>done

    cdef void complain(self, int number) noexcept:
        report_bytes(R_ALERT, b'write() to "%b" failed (%d: %b)' % (
            self.path, number, strerror(number)))


cdef bytes pack(bytes lines, int level):
    """One gzip member: members that follow each other are one file (RFC 1952 §2.2)."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(lines) + packer.flush()


cdef void report_bytes(int level, bytes words) noexcept:
    report(level, None, of_bytes(words))


cdef Py_ssize_t write_scratch(Format f, Request r) noexcept:
    """The line stands in `scratch`; its bytes, or -1 when it is too long."""
    global scratch, scratch_cap
    cdef Py_ssize_t n = -1
    cdef size_t cap = scratch_cap
    cdef char* grown
    while True:
        if cap:
            n = f.write_line(r, scratch, cap)
        if n >= 0 or cap >= LINE_MAX:
            return n
        cap = cap * 4 if cap else LINE_FIRST
        grown = <char*>realloc(scratch, cap)
        if grown == NULL:
            return -1
        scratch = grown
        scratch_cap = cap


@final
cdef class AccessLog:
    """One `access_log`: `file` a LogFile, or `path` a Template; `condition` a Template or None."""
    cdef readonly Format format
    cdef readonly LogFile file
    cdef readonly Template path
    cdef readonly object prefix          # bytes, before a relative path
    cdef readonly Template condition

    def __init__(self, Format format not None, LogFile file=None, Template path=None,
                 bytes prefix=b"", Template condition=None):
        self.format = format
        self.file = file
        self.path = path
        self.prefix = prefix
        self.condition = condition


@final
cdef class LogSettings:
    """What a location tells, and where."""

    def __init__(self):
        self.logs = []


cdef inline bint is_wanted(AccessLog a, Request r) noexcept:
    """if=: neither empty nor "0"."""
    cdef Str value
    if a.condition is None:
        return True
    if evaluate(a.condition, r, &value) < 0 or value.n == 0:
        return False
    return value.n != 1 or value.p[0] != c"0"


cdef void write_logs(Request r) noexcept:
    cdef LogSettings s
    cdef AccessLog a
    if r.location is None or r.location.logs is None:
        return
    s = <LogSettings>r.location.logs
    for it in s.logs:
        a = <AccessLog>it
        if not is_wanted(a, r):
            continue
        if a.file is not None:
            a.file.put_request(a.format, r)
        else:
            write_to_path(s, a, r)


cdef void write_sub_logs(Request r) noexcept:
    if r.location is not None and r.location.logs is not None and (
            (<LogSettings>r.location.logs).tells_subs):
        write_logs(r)


cdef void write_to_path(LogSettings s, AccessLog a, Request r) noexcept:
    """A path with variables is opened for each line, unless open_log_file_cache keeps it."""
    cdef Str value
    cdef bytes path
    cdef Py_ssize_t n
    cdef LogFile file
    if evaluate(a.path, r, &value) < 0:
        return
    path = to_bytes(value)
    if not is_root_there(s, r):
        return
    n = write_scratch(a.format, r)
    if n < 0:
        return
    try:
        path = os.path.join(a.prefix, path)
        if s.path_cache is not None:
            file = s.path_cache.find(path, clock.now_ms)
        else:
            file = LogFile(path)
            file.open()
        file.put(scratch, <size_t>n)
        if s.path_cache is None:
            file.close()
        else:
            s.path_cache.give(file)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "invalid name"
        number = getattr(error, "errno", None) or 22
        report(R_CRIT, r, of_bytes(b'"%b" failed (%d: %b)' % (path, number, words.encode())))


cdef bint is_root_there(LogSettings s, Request r) noexcept:
    # nginx: who may make up names of logs may not make up directories of sites
    cdef Str value
    if s.root is None:
        return True
    if evaluate(<Template>s.root, r, &value) < 0:
        return False
    path = to_bytes(value)
    try:
        if os.path.isdir(path):
            return True
    except ValueError:
        pass
    words = b'testing "%b" existence failed (2: No such file or directory)' % path
    report(R_CRIT, r, of_bytes(words))
    return False
