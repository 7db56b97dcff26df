# Lines of a request's head by a name that is not known before: a field, a cookie, an argument.
#
# `name` is a `const Str*`: of a field in lower case with "_" for "-" (as in $http_…), of a
# cookie or an argument as it is. 1 found, 0 not found, <0 fault; the value points into the head.

from libc.stdint cimport uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str


cdef int get_http(Request r, uint64_t name, Str* out) noexcept
cdef int get_cookie(Request r, uint64_t name, Str* out) noexcept
cdef int get_arg(Request r, uint64_t name, Str* out) noexcept
