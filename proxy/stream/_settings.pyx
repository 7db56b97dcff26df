# Nothing but fields: freeze.py fills them.


cdef class StreamServer:
    pass
