# Who answers in a location with function_pass, as far as it is not the upstream's business.

from cython cimport final

from proxy.base._request cimport Request


@final
cdef class FunctionHandler:
    cdef readonly bytes name
    cdef readonly bytes unready       # body of the 503 while no replica is ready


# No replica is ready: the answer to r, with DONE; or NO_MEMORY.
cdef int answer_unready(Request r) noexcept
