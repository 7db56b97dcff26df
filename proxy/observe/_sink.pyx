# The error log of compiled code: each report becomes one line, with whose request it was.
# nginx: ngx_log.c, ngx_http_log_error_handler.

import os

from cython cimport final
from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from proxy.base._client cimport address_text
from proxy.base._clock cimport clock
from proxy.base._report cimport R_ERROR, put_sink, report
from proxy.base._request cimport Attempt, Request
from proxy.base.head cimport F_REFERER, Field, find_field, span, value_of
from proxy.base.span cimport Str, is_equal, of_bytes, text
from proxy.observe._log cimport LogSettings


cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int, const void*, size_t)
    int getpid()


cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
    tm* localtime_r(const long*, tm*)


cdef enum:
    LINE_BYTES = 2048         # as in nginx, the end of line included

cdef const char** WORDS = [
    "stderr", "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"]


@final
cdef class ErrorFile:
    """One `error_log` of a worker: an open descriptor and the level up to which it wants lines.

    Files that the process keeps itself (`is_ours` false) are reopened by the process.
    """
    cdef readonly bytes path
    cdef readonly int level
    cdef int fd
    cdef bint is_ours

    def __init__(self, bytes path not None, int level, int fd=-1):
        """Raises OSError."""
        self.path = path
        self.level = level
        self.is_ours = fd < 0
        self.fd = fd if fd >= 0 else open_log(path)

    def reopen(self):
        """Under the same descriptor. Raises OSError."""
        if self.is_ours:
            new = open_log(self.path)
            os.dup2(new, self.fd, inheritable=False)
            os.close(new)

    def close(self):
        if self.is_ours and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_log(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


cdef list process_files = []      # where reports without a location go
cdef int process_level = R_ERROR


def begin(list files not None):
    """From now on reports are written: `files` (ErrorFile) are those of the process."""
    global process_files, process_level
    process_files = files
    process_level = max([(<ErrorFile>it).level for it in files], default=R_ERROR)
    put_sink(write_report)


def end():
    """Reports go nowhere again."""
    put_sink(NULL)


def tell(int level, str words not None, Request r=None):
    """A report from Python: `words` to the error log of the request's location."""
    cdef bytes raw = words.encode("utf-8", "surrogateescape")
    report(level, r, of_bytes(raw))


cdef struct Line:
    size_t n
    char[2048] p


cdef void add(Line* line, Str s) noexcept nogil:
    cdef size_t n = s.n
    if n > LINE_BYTES - 1 - line.n:
        n = LINE_BYTES - 1 - line.n
    if n:
        memcpy(line.p + line.n, s.p, n)
        line.n += n


cdef void add_named(Line* line, const char* name, uint32_t name_n, Str value) noexcept nogil:
    # , name: "value"
    add(line, text(name, name_n))
    add(line, value)
    add(line, text("\"", 1))


cdef void add_request(Line* line, Request r) noexcept:
    cdef const Field* f
    cdef Str value
    if r.client is not None:
        add(line, text(", client: ", 10))
        add(line, address_text(&r.client.address))
    if r.server is not None:
        add(line, text(", server: ", 10))
        add(line, r.server.name_s)
    if r.head.base == NULL:
        if r.n_attempts:                         # a session of stream { } has no head
            add_session(line, r)
        return
    if r.head.line_n:
        add_named(line, ", request: \"", 12, span(&r.head, r.head.line_off, r.head.line_n))
    if r.main is not None and r.main is not r:
        add_named(line, ", subrequest: \"", 15, r.uri)
    if r.n_attempts:
        add_upstream(line, r)
    if r.head.host_n:
        add_named(line, ", host: \"", 9, span(&r.head, r.head.host, r.head.host_n))
    if r.head.fields != NULL:
        f = find_field(&r.head, F_REFERER)
        if f != NULL:
            value = value_of(&r.head, f)
            add_named(line, ", referrer: \"", 13, value)


cdef void add_session(Line* line, Request r) noexcept:
    cdef Attempt* a = &r.attempts[r.n_attempts - 1]
    cdef char[160] words
    add_named(line, ", upstream: \"", 13, a.peer)
    snprintf(words, 160, ", bytes from/to client:%lld/%lld, bytes from/to upstream:%lld/%lld",
             <long long>r.body_n, <long long>r.sent_body, <long long>a.bytes_received,
             <long long>a.bytes_sent)
    add(line, text(words, strlen(words)))


cdef void add_upstream(Line* line, Request r) noexcept:
    cdef Attempt* a = &r.attempts[r.n_attempts - 1]
    add(line, text(", upstream: \"http", 17))
    add(line, text("://", 3))
    add(line, a.peer)
    if a.peer.n > 5 and is_equal(text(a.peer.p, 5), text("unix:", 5)):
        add(line, text(":", 1))
    add(line, r.proxy_uri if r.proxy_uri.n else r.uri if r.is_rewritten else r.target)
    add(line, text("\"", 1))


cdef void write_report(int level, Request r, Str message) noexcept:
    cdef LogSettings s = None
    cdef list files = process_files
    cdef int most = process_level
    cdef ErrorFile file
    cdef Line line
    cdef tm t
    cdef long now = clock.wall_s
    if r is not None:
        if r.location is not None and r.location.logs is not None:
            s = <LogSettings>r.location.logs
        elif r.server is not None and r.server.settings is not None:
            s = <LogSettings>r.server.settings.logs
        if s is not None and s.errors is not None:
            files = s.errors
            most = s.error_level
    if level > most:
        return
    localtime_r(&now, &t)
    line.n = <size_t>snprintf(
        line.p, LINE_BYTES, "%04d/%02d/%02d %02d:%02d:%02d [%s] %d#%d: ", t.tm_year + 1900,
        t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, WORDS[level], getpid(), getpid())
    if r is not None and r.id:
        line.n += <size_t>snprintf(
            line.p + line.n, LINE_BYTES - line.n, "*%llu ", <unsigned long long>r.id)
    add(&line, message)
    if r is not None:
        add_request(&line, r)
    line.p[line.n] = c"\n"
    for it in files:
        file = <ErrorFile>it
        if level <= file.level and file.fd >= 0:
            c_write(file.fd, line.p, line.n + 1)
