# Link: the bytes of one connection, plain or TLS. Nobody here speaks HTTP.
#
# TLS lies between the socket and the owner (tls is set before the connection is made):
# the owner gives what came to `unseal`, which leaves plain bytes in _tls.plain.
#
# All Links of a process read into one buffer: who is told of bytes takes them before he
# returns. A Link writes by send(2) straight from its owner's memory; what the kernel did
# not take is kept in `rest`, and everything after it behind it, until is_blocked is false.

from libc.stdint cimport uint8_t, uint32_t

from proxy.engine._tls cimport Tls
from proxy.engine._watch cimport Watched


cdef enum:
    READ_BYTES = 256 * 1024       # the shared read buffer

cdef char* read_buffer


cdef struct Rest:                 # bytes that the kernel did not take yet
    size_t at
    size_t n                      # from `at` on
    size_t cap
    char* bytes


cdef class Diversion:
    """Moves bytes past a Link, which gives it the events that it waits for."""
    # the events that are left for the Link itself
    cdef int on_event(self, Link link, int events) noexcept


cdef class Link(Watched):
    cdef Tls tls                  # None: plain
    cdef Diversion diversion      # None: the Link reads and writes itself
    cdef Rest* rest
    cdef uint32_t most_bytes      # the most to read at once; 0: what the buffer holds
    cdef uint8_t is_plain
    cdef uint8_t is_dialing       # connect(2) is under way
    cdef uint8_t is_blocked       # bytes wait in `rest`, or with their owner: await_room
    cdef uint8_t is_paused        # reading is paused
    cdef uint8_t is_closing       # close or abort was called, or it broke
    cdef uint8_t is_ended         # the peer sent FIN
    cdef uint8_t is_shut          # we sent FIN, or will behind `rest`
    cdef size_t unsent            # bytes that the peer had not taken when last looked at

    cdef int open(self, int fd) noexcept
    cdef int open_dialing(self, int fd) noexcept
    cdef int write(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int write_plain(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int write_sealed(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int send_sealed(self) noexcept
    cdef int send_rest(self) noexcept
    cdef Py_ssize_t unseal(self, const char* p, size_t n) noexcept
    cdef int keep_rest(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef void receive(self) noexcept
    cdef void pause(self) noexcept
    cdef void unpause(self) noexcept
    cdef void close(self) noexcept
    cdef void abort(self) noexcept
    cdef void let_go(self) noexcept
    cdef void await_room(self) noexcept
    cdef size_t look_unsent(self) noexcept
    cdef bint has_moved(self) noexcept
    cdef void shut(self) noexcept
    cdef void on_bytes(self, uint32_t n) noexcept
    cdef void on_dialed(self, int error) noexcept
    cdef void on_ended(self) noexcept
    cdef void on_lost(self) noexcept
    cdef void on_drained(self) noexcept
