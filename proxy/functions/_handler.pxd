# What a function location answers while no replica is ready, and its variables.

from proxy.base._request cimport Request


# No replica is ready: the answer to r, with DONE; or NO_MEMORY.
cdef int answer_unready(Request r) noexcept
