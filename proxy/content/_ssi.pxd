# Server-side includes: a filter of bodies that asks sub-requests and sets their answers in.

from cython cimport final
from libc.stdint cimport uint32_t

from proxy.base._request cimport BodyFilter, Request


@final
cdef class SsiSettings:
    cdef public frozenset types           # bytes, lower case; None: all
    cdef public bint keeps_modified       # ssi_last_modified
    cdef public bint is_silent            # ssi_silent_errors
    cdef public Py_ssize_t most_set       # subrequest_output_buffer_size: of include … set


# For r.location.filters, when the head of an answer is settled: 0 or a fault. Sets r.filters
# when the body is to be read for commands, and takes away what is no longer true of it.
cdef int begin_ssi(SsiSettings s, Request r) noexcept
