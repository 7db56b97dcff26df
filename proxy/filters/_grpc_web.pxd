# gRPC-Web (grpc/doc/PROTOCOL-WEB.md): what browsers speak, translated into gRPC and back.
#
#     begin_web(r)              once, before the request is sent: is it such a call? Then it is one
#                               of gRPC from here on, and r.filters translates its answer.
#     n = take_text(r, &p, n)   a piece of its body came: where it is now, WEB_BROKEN: no base64
#     text_is_whole(r)          its body is over: was that at the end of a group?
#     dress_web(r)              the answer's head is about to be sent

from libc.stdint cimport uint8_t, uint32_t

from proxy.base._request cimport BodyFilter, Request


cdef enum:
    WEB_BROKEN = 0xffffffff


cdef class GrpcWeb(BodyFilter):
    """A call of a browser: base64 of both bodies, in text mode, and trailers as a last frame."""
    cdef bint is_text
    cdef uint8_t[4] group         # the beginning of a group of base64
    cdef uint32_t group_n
    cdef uint32_t room_n
    cdef char* room
    cdef char* take_room(self, size_t n) noexcept


cdef inline bint is_web(Request r) noexcept:
    return r.filters is not None and type(r.filters) is GrpcWeb


cdef void begin_web(Request r) noexcept
cdef uint32_t take_text(Request r, const char** p, uint32_t n) noexcept
cdef bint text_is_whole(Request r) noexcept
cdef void dress_web(Request r) noexcept
