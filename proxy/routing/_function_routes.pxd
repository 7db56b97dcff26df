# Function routes: which function answers for a host, a path and a method.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.routing._radix cimport Radix


cdef class Level:
    cdef readonly int priority
    cdef Radix exact      # host -> Radix of paths
    cdef Radix heads      # *.x: the host reversed, a dot behind
    cdef Radix tails      # x.*
    cdef Radix anywhere   # the paths of no particular host
    cdef Py_ssize_t size

    cdef Radix paths_of(self, bytes host, bint is_made)
    cdef void drop_host(self, bytes host)


cdef class FunctionRoutes:
    cdef list levels      # of Level, the highest priority first
    cdef readonly Py_ssize_t size
    cdef readonly uint32_t version    # grows with each change

    cdef Level level_of(self, int priority, bint is_made)


# The value of the route that fits best, borrowed; NULL: none. host in its one form
# (read_host), path normalised, method as it was sent. r: whose header and query are looked at
# where a route asks for them; None: such routes do not fit.
cdef PyObject* find_function(
    FunctionRoutes t, Str host, Str path, Str method, Request r
) noexcept
