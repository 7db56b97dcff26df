# Link: the bytes of one connection, plain or TLS. Nobody here speaks HTTP.
#
# TLS lies between the transport and the owner (tls is set before the connection is made):
# the owner gives what came to `unseal`, which leaves plain bytes in _tls.plain.
#
# While nothing waits in the transport a plain Link writes by send(2) straight from our
# memory; what the kernel did not take, and all after it until that is flushed, goes
# through the transport, whose high-water mark is 0, so that is_blocked mirrors it.

from libc.stdint cimport uint8_t

from proxy.engine._tls cimport Tls
from proxy.engine._wheel cimport Timed


cdef class Link(Timed):
    cdef object transport
    cdef Tls tls                  # None: plain
    cdef object view              # memoryview over the worker's shared read buffer
    cdef int fd                   # -1: closed
    cdef uint8_t is_plain
    cdef uint8_t is_blocked       # bytes wait in the transport
    cdef uint8_t is_paused        # reading is paused
    cdef uint8_t is_closing       # close or abort was called
    cdef uint8_t is_ended         # the peer sent FIN
    cdef uint8_t is_shut          # we sent FIN

    cdef int write(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int write_plain(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int write_sealed(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef int send_sealed(self) noexcept
    cdef Py_ssize_t unseal(self, const char* p, size_t n) noexcept
    cdef int hand_over(self, const char* p, size_t n, const char* q, size_t m) noexcept
    cdef void pause(self) noexcept
    cdef void unpause(self) noexcept
    cdef void close(self) noexcept
    cdef void abort(self) noexcept
    cdef void shut(self) noexcept
    cdef void on_made(self) noexcept
    cdef void on_ended(self) noexcept
    cdef void on_lost(self) noexcept
    cdef void on_drained(self) noexcept
