# What is known about one client's connection: addresses, age, how many requests it carried.
#
# The fast path fills one per connection (or derives its own class from it) and hangs it
# on Request.client; variables and limits read it. Addresses are kept as text and as bytes,
# so that no request formats them again.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base.span cimport Str


cdef enum:
    ADDRESS_MAX = 46         # INET6_ADDRSTRLEN


cdef struct Address:
    uint8_t text_n
    uint8_t binary_n         # 4, 16, or 0 for a Unix socket
    uint16_t port            # 0 for a Unix socket
    char text[46]            # "127.0.0.1", "::1", "unix:"; not ended by NUL
    uint8_t binary[16]       # network order


cdef class Client:
    cdef int fd                          # -1: none to ask
    cdef Address address                 # the client's, or what realip put in its place
    cdef Address peer                    # what connected to us ($realip_remote_addr)
    cdef Address local                   # ours; asked for on first use: local_address()
    cdef uint8_t has_local
    cdef public bint is_tls
    cdef public uint64_t serial          # $connection
    cdef public uint32_t requests        # begun on it, the current one included
    cdef public uint64_t accepted_ms     # monotonic
    cdef Str proxy_address               # PROXY protocol: the client's, empty without one;
    cdef Str proxy_server_address        # their bytes belong to `proxy_header`
    cdef uint16_t proxy_port
    cdef uint16_t proxy_server_port
    cdef public object proxy_header      # bytes that the two Strs point into, or None
    cdef public object tls               # what $ssl_* read, or None

    cdef void open(self, int fd, const void* address) noexcept
    cdef Address* local_address(self) noexcept
    cdef int put_address(self, Str text) noexcept


cdef int read_address(Str text, Address* out) noexcept nogil


cdef inline bint is_unix(const Address* a) noexcept nogil:
    return a.binary_n == 0


cdef inline Str address_text(const Address* a) noexcept nogil:
    cdef Str s
    s.p = <const char*>a.text
    s.n = a.text_n
    return s


cdef inline Str address_binary(const Address* a) noexcept nogil:
    """4 or 16 bytes; the text itself for a Unix socket, as nginx."""
    cdef Str s
    if a.binary_n == 0:
        return address_text(a)
    s.p = <const char*>a.binary
    s.n = a.binary_n
    return s
