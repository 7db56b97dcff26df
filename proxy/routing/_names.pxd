# Server names: which server {} of a listen address answers for a host.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base._pcre cimport Captures
from proxy.routing._radix cimport Radix


# Host of a Host field or an authority: checked, lower case, without port and final dot.
# out: room for n bytes (may be p). *port is 0 when none was given. 0 or BAD_REQUEST.
cdef int read_host(
    const char* p, uint32_t n, char* out, uint32_t* out_n, uint32_t* port
) noexcept


cdef class Names:
    cdef readonly object default_server
    cdef Radix exact           # host
    cdef Radix heads           # *.x and .x: the host reversed, a dot behind
    cdef Radix tails           # x.*: the host, a dot behind
    cdef list patterns         # regexes in conf order, and beside them
    cdef list pattern_servers  # their servers


# The server for a host as read_host wrote it (n is 0 without one): exact, the longest
# *.x, the longest x.*, the first regex, else the default server. Borrowed from t.
# NULL: a regex ran into its limit (answer 500). c is written when a regex matches.
cdef PyObject* find_server(
    Names t, const char* host, uint32_t n, Captures* c
) noexcept
