# The handshake of a WebSocket whose client made none: over HTTP/2 and HTTP/3 a key means nothing
# (RFC 8441 §5), but the upstream speaks HTTP/1.1 and wants one, and must prove that it saw it.

from proxy.base.head cimport Head


# KEY_BYTES of a fresh Sec-WebSocket-Key (RFC 6455 §4.1). 0, or -1: no randomness.
cdef int put_key(char* out) noexcept

# Does a 101 say that the WebSocket which `asked` is begun (RFC 6455 §4.1, the client's checks)?
# What only concerns that handshake is hidden in it.
cdef bint is_begun(const Head* asked, Head* answer) noexcept
