# Accepts the connections of one listening socket, while it is open.

from proxy.engine._watch cimport Watched
from proxy.engine._wheel cimport Wheel


cdef class Acceptor(Watched):
    cdef Wheel wheel

    cdef void accept(self, int most) noexcept
    cdef void rest(self, int error) noexcept
    cdef void on_accepted(self, int fd, const void* address) noexcept
