# What the first bytes of a TLS client say in clear: its versions, the name it wants, its ALPN.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum:
    HELLO_MAX = 64 * 1024         # of handshake bytes; a message that says more is not read
    NAME_MAX = 255                # of a host name (RFC 1035 §2.3.4)
    ALPN_MAX = 1024               # of the list as text; what is longer is cut at a name


cdef enum HelloVerdict:
    HELLO_MORE = 0                # as far as it came it may be one
    HELLO_READ = 1
    HELLO_NONE = -1               # it is no ClientHello


cdef struct ClientHello:
    uint8_t major                 # of the highest version offered; 0, 2: SSL 2
    uint8_t minor
    uint8_t name_n                # 0: no SNI
    uint16_t alpn_n
    char name[255]
    char alpn[1024]               # with commas between


# A HelloVerdict. p is all that the client sent so far; out is whole with HELLO_READ alone.
cdef int read_client_hello(const char* p, uint32_t n, ClientHello* out) noexcept
