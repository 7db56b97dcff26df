# Whom a trusted proxy speaks for: the settings of one location, and the step that obeys them.

from cython cimport final
from libc.stdint cimport uint8_t

from proxy.base._request cimport Request
from proxy.filters._access cimport AccessSettings


cdef enum RealipSource:
    FROM_FIELD = 0            # the first field of that name
    FROM_CHAIN = 1            # every X-Forwarded-For
    FROM_PROXY_HEADER = 2     # PROXY protocol


@final
cdef class RealipSettings:
    cdef public AccessSettings trusted    # set_real_ip_from, one rule each
    cdef public uint8_t source            # RealipSource
    cdef public bytes field               # its name, lower case
    cdef public bint is_recursive


cdef void put_real_address(AccessSettings s, Request r) noexcept
