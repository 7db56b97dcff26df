# What was read of a client's ClientHello, for the $ssl_preread_… variables.

from cython cimport final

from proxy.wire._client_hello cimport ClientHello


@final
cdef class Preread:
    """Hangs on Request.call of a session."""
    cdef ClientHello hello
