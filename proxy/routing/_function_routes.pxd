# Function routes: which function answers for a host, a path and a method.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base.span cimport Str
from proxy.routing._radix cimport Radix


cdef class FunctionRoutes:
    cdef Radix exact      # host -> Radix of paths
    cdef Radix heads      # *.x: the host reversed, a dot behind
    cdef Radix tails      # x.*
    cdef Radix anywhere   # the paths of no particular host
    cdef readonly Py_ssize_t size
    cdef readonly uint32_t version    # grows with each change

    cdef Radix paths_of(self, bytes host, bint is_made)
    cdef void drop_host(self, bytes host)


# The value of the route that fits best, borrowed; NULL: none. host in its one form
# (read_host), path normalised, method as it was sent.
cdef PyObject* find_function(
    FunctionRoutes t, Str host, Str path, Str method
) noexcept
