# From a URI to a path of the file system: root and alias.

from libc.stdint cimport uint32_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.content._settings cimport ContentSettings


cdef struct Path:
    char* p               # ends with NUL, in the request's arena
    uint32_t n            # without it
    uint32_t root_n       # where the URI's part begins


# root or alias, absolute. 0, or a fault.
cdef int find_root(ContentSettings s, Request r, Str* out) noexcept
# The path of r.uri, with room for `reserve` bytes behind. 0, or a fault.
cdef int map_path(ContentSettings s, Request r, uint32_t reserve, Path* out) noexcept
# root and `name` behind each other. 0, or a fault.
cdef int join_path(Request r, Str root, Str name, Path* out) noexcept
