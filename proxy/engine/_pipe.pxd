# Pooled pipes for splice(2): one bound on all that this process has open.

cdef enum:
    PIPE_BYTES = 1 << 20

# Two descriptors, to read from and to write to; False: there are enough already, copy instead.
cdef bint take_pipe(int* ends) noexcept
cdef void give_pipe(int* ends, bint is_empty) noexcept
# splice(2) without waiting: bytes moved, 0 at the end of file, or -errno.
cdef ssize_t move_bytes(int source, int sink, size_t n, bint has_more) noexcept
