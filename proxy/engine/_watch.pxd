# Watches one descriptor on uvloop's own libuv loop: an event is a C call, with no Python
# object between. uvloop stays the loop; we hang our handles beside its own.

from libc.stdint cimport uint8_t

from proxy.engine._wheel cimport Timed


cdef enum:
    READABLE = 1              # UV_READABLE, UV_WRITABLE
    WRITABLE = 2
    FAILED = 8                # ours: the kernel reports an error; a read or SO_ERROR tells which


cdef extern from * nogil:
    """
    struct headrace_uv_handle { void *data; };     /* the public first field of each handle */
    """
    struct headrace_uv_handle:
        void* data


cdef class Watched(Timed):
    cdef int fd                          # -1: closed
    cdef int closing_fd
    cdef uint8_t mask                    # what is watched for
    cdef headrace_uv_handle* handle      # NULL: never opened, or gone
    cdef void* next_watched              # all that are open, for detach()
    cdef void* prev_watched

    # fd is ours from now on, whatever is returned: 0, or -errno and it is closed
    cdef int open_watch(self, int fd) noexcept
    cdef void watch(self, int mask) noexcept
    cdef void close_watch(self) noexcept         # at the end of this turn, then on_closed comes
    cdef void on_ready(self, int events) noexcept
    cdef void on_closed(self) noexcept


# Calls `what(whom)` with the GIL when the events of a turn of the loop have been told, or nobody:
# what they made is written then, once. One a process.
ctypedef void (*TurnEnd)(void* whom) noexcept
cdef void at_turn_end(TurnEnd what, void* whom) noexcept
cdef bint is_in_turn() noexcept      # is it still to come for what is done now?
