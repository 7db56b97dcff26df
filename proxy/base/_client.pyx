# Asks the kernel for a connection's two ends and writes them as text.

from libc.string cimport memcpy, memset, strlen

from proxy.base._clock cimport clock


cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        AF_INET
        AF_INET6
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    int getpeername(int, sockaddr*, socklen_t*)
    int getsockname(int, sockaddr*, socklen_t*)


cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    unsigned short ntohs(unsigned short)


cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int, const void*, char*, socklen_t)
    int inet_pton(int, const char*, void*)


cdef void write_address(const sockaddr_storage* from_kernel, Address* out) noexcept nogil:
    cdef char text[46]
    cdef const void* raw
    cdef int family = from_kernel.ss_family
    cdef const uint8_t* six
    memset(out, 0, sizeof(Address))
    if family == AF_INET:
        raw = &(<const sockaddr_in*>from_kernel).sin_addr
        out.port = ntohs((<const sockaddr_in*>from_kernel).sin_port)
        out.binary_n = 4
    elif family == AF_INET6:
        six = (<const sockaddr_in6*>from_kernel).sin6_addr.s6_addr
        raw = six
        out.port = ntohs((<const sockaddr_in6*>from_kernel).sin6_port)
        out.binary_n = 16
    else:
        memcpy(out.text, b"unix:", 5)
        out.text_n = 5
        return
    memcpy(out.binary, raw, out.binary_n)
    if inet_ntop(family, raw, text, ADDRESS_MAX) != NULL:
        out.text_n = <uint8_t>strlen(text)
        memcpy(out.text, text, out.text_n)


cdef int read_address(Str text, Address* out) noexcept nogil:
    """An IPv4 or IPv6 address as text, the latter also in brackets, a port behind either;
    or "unix:". 0, or -1 with `out` untouched."""
    cdef char host[46]
    cdef const char* p = text.p
    cdef uint32_t n = text.n
    cdef uint32_t i
    cdef uint32_t at = 0
    cdef uint32_t port = 0
    cdef uint32_t colons = 0
    cdef Address made
    memset(&made, 0, sizeof(Address))
    if n == 5 and p[0] == c"u" and p[4] == c":":
        memcpy(made.text, b"unix:", 5)
        made.text_n = 5
        out[0] = made
        return 0
    if n == 0 or n > 64:
        return -1
    if p[0] == c"[":
        p += 1
        n -= 1
        while at < n and p[at] != c"]":
            at += 1
        if at == n:
            return -1
        i = at + 1
    else:
        for i in range(n):
            if p[i] == c":":
                colons += 1
                at = i
        if colons != 1:
            at = n
        i = at
    if at == 0 or at >= ADDRESS_MAX:
        return -1
    if i < n:
        if p[i] != c":" or i + 1 == n:
            return -1
        for i in range(i + 1, n):
            if p[i] < c"0" or p[i] > c"9":
                return -1
            port = port * 10 + (p[i] - c"0")
            if port > 65535:
                return -1
    memcpy(host, p, at)
    host[at] = 0
    if inet_pton(AF_INET, host, made.binary) == 1:
        made.binary_n = 4
    elif inet_pton(AF_INET6, host, made.binary) == 1:
        made.binary_n = 16
        if inet_ntop(AF_INET6, made.binary, host, ADDRESS_MAX) == NULL:  # written as all others
            return -1
        at = <uint32_t>strlen(host)
    else:
        return -1
    made.port = <uint16_t>port
    made.text_n = <uint8_t>at
    memcpy(made.text, host, at)
    out[0] = made
    return 0


cdef class Client:
    def __cinit__(self):
        self.fd = -1
        self.accepted_ms = clock.now_ms
        memset(&self.address, 0, sizeof(Address))
        memset(&self.peer, 0, sizeof(Address))
        memset(&self.local, 0, sizeof(Address))

    cdef void open(self, int fd, const void* address) noexcept:
        """A connection was accepted as `fd`; `address` is the sockaddr_storage it came from."""
        self.fd = fd
        self.has_local = 0
        self.requests = 0
        self.accepted_ms = clock.now_ms
        self.proxy_address.n = self.proxy_server_address.n = 0
        write_address(<const sockaddr_storage*>address, &self.peer)
        self.address = self.peer

    cdef Address* local_address(self) noexcept:
        """Our end of the connection; text_n is 0 when it cannot be known."""
        cdef sockaddr_storage a
        cdef socklen_t n = sizeof(a)
        if not self.has_local and self.fd >= 0:
            memset(&a, 0, sizeof(a))
            if getsockname(self.fd, <sockaddr*>&a, &n) == 0:
                write_address(&a, &self.local)
                self.has_local = 1
        return &self.local

    cdef int put_address(self, Str text) noexcept:
        """realip: from now on the client is `text` (a port may follow). 0, or -1: no address."""
        return read_address(text, &self.address)
