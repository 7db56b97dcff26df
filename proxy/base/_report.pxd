# The door to the error log for compiled code: one sink, filled by the room that writes logs.
#
# Nobody imports observe, so who meets a fault reports it here. A message is a few words
# without an end of line; the sink adds whose request it was. Before a sink is put,
# reports go nowhere.

from proxy.base._request cimport Request
from proxy.base.span cimport Str


cdef enum ReportLevel:    # nginx: ngx_log.h
    R_EMERG = 1
    R_ALERT = 2
    R_CRIT = 3
    R_ERROR = 4
    R_WARN = 5
    R_NOTICE = 6
    R_INFO = 7
    R_DEBUG = 8


# r may be None: then only the words are told.
ctypedef void (*Sink)(int level, Request r, Str message) noexcept


cdef void put_sink(Sink sink) noexcept
cdef void report(int level, Request r, Str message) noexcept
# The same for a literal, ended by NUL.
cdef void report_text(int level, Request r, const char* message) noexcept
# For words with one name in them: before, about, behind.
cdef void report_about(int level, Request r, const char* before, Str about,
                       const char* behind) noexcept
