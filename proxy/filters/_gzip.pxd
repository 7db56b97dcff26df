# Compresses answers on their way to clients that take gzip (nginx: ngx_http_gzip_filter_module).
#
#     begin_gzip(s, r)          the answer's head is settled, other filters have begun: compress it?
#                               Then r.filters ends in a GzipFilter, and the head says so.

from cython cimport final
from libc.stdint cimport int64_t, uint8_t, uint16_t

from proxy.base._request cimport BodyFilter, Request


cdef enum Proxied:                # gzip_proxied: bits of what lets an answer through a proxy in
    PROXIED_ANY = 1
    PROXIED_EXPIRED = 2
    PROXIED_NO_CACHE = 4
    PROXIED_NO_STORE = 8
    PROXIED_PRIVATE = 16
    PROXIED_NO_LAST_MODIFIED = 32
    PROXIED_NO_ETAG = 64
    PROXIED_AUTH = 128


@final
cdef class GzipSettings:
    """The gzip directives of one location."""
    cdef public frozenset types           # bytes, lower case; None: all but streams of events
    cdef public int64_t least             # gzip_min_length
    cdef public int level                 # gzip_comp_level
    cdef public bint is_vary              # gzip_vary
    cdef public uint16_t proxied          # Proxied
    cdef public uint8_t version           # gzip_http_version: 10 or 11
    cdef public list disabled             # gzip_disable: a Pattern each


@final
cdef class BodyFilters:
    """What a location's filters hang on: Location.filters."""
    cdef public object ssi                # content: SsiSettings, or None
    cdef public GzipSettings gzip         # or None


@final
cdef class GzipFilter(BodyFilter):
    """One answer's body through zlib. It holds nothing back but what zlib does."""
    cdef object compressor
    cdef bytes held                       # what zlib gave, too little to be sent
    cdef bint is_stream                   # its length was not told: nobody waits for a piece
    cdef readonly int64_t taken
    cdef readonly int64_t given
    cdef int give(self, Request r) noexcept


cdef int begin_gzip(GzipSettings s, Request r) noexcept
