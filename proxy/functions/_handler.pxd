# Who answers in a location with function_pass, as far as it is not the upstream's business.

from cython cimport final

from proxy.base._request cimport Request
from proxy.functions._function cimport Function, Version


@final
cdef class FunctionHandler:
    cdef readonly Function function   # whom function_pass names
    cdef readonly bytes unready       # body of the 503 while no replica is ready


# Which version of which function a request is for; None: no such function.
cdef Version find_version(Request r) noexcept


# No replica is ready: the answer to r, with DONE; or NO_MEMORY.
cdef int answer_unready(Request r) noexcept
