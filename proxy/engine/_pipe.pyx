# Opens pipes, keeps empty ones for the next who splices, and moves bytes through them.

from libc.errno cimport errno
from posix.unistd cimport close as c_close


cdef extern from "<fcntl.h>" nogil:
    enum:
        SPLICE_F_MOVE
        SPLICE_F_NONBLOCK
        SPLICE_F_MORE
        F_SETPIPE_SZ
        O_NONBLOCK
        O_CLOEXEC
    ssize_t c_splice "splice"(int, long long*, int, long long*, size_t, unsigned int)
    int fcntl(int, int, ...)

cdef extern from "<unistd.h>" nogil:
    int pipe2(int*, int)

cdef enum:
    PIPES_MAX = 256               # open at once; without one the bytes are copied
    KEPT = 64                     # descriptors of empty pipes

cdef int[KEPT] kept_pipes         # read ends and write ends
cdef int n_kept_pipes = 0
cdef int n_pipes = 0


cdef bint take_pipe(int* ends) noexcept:
    global n_kept_pipes, n_pipes
    if n_kept_pipes:
        n_kept_pipes -= 2
        ends[0] = kept_pipes[n_kept_pipes]
        ends[1] = kept_pipes[n_kept_pipes + 1]
        return True
    if n_pipes >= PIPES_MAX or pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
        return False
    fcntl(ends[1], F_SETPIPE_SZ, <int>PIPE_BYTES)
    n_pipes += 1
    return True


cdef void give_pipe(int* ends, bint is_empty) noexcept:
    global n_kept_pipes, n_pipes
    if is_empty and n_kept_pipes < KEPT:
        kept_pipes[n_kept_pipes] = ends[0]
        kept_pipes[n_kept_pipes + 1] = ends[1]
        n_kept_pipes += 2
    else:
        c_close(ends[0])
        c_close(ends[1])
        n_pipes -= 1


cdef ssize_t move_bytes(int source, int sink, size_t n, bint has_more) noexcept:
    cdef ssize_t moved = c_splice(source, NULL, sink, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK
                                  | (SPLICE_F_MORE if has_more else 0))
    return moved if moved >= 0 else -errno
