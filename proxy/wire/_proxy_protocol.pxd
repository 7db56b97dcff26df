# The PROXY header that a load balancer writes before anything else (versions 1 and 2).

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from proxy.base._client cimport Address, Client
from proxy.base.span cimport Str


cdef enum:
    PROXY_HEADER_MAX = 4096       # nginx; version 1 has 107 at most
    PROXY_WRITE_MAX = 128


cdef struct ProxyHeader:
    uint8_t has_addresses         # not so: UNKNOWN, LOCAL, or a family without addresses
    uint8_t source_n
    uint8_t target_n
    uint16_t source_port
    uint16_t target_port
    char source[46]               # text, not ended by NUL; "unix:" for a Unix socket
    char target[46]
    uint32_t tlvs_n
    const char* tlvs              # version 2: what follows the addresses, where it was read


# Bytes of the header, 0: more must come, -1: this is none.
cdef int read_proxy_header(const char* p, uint32_t n, ProxyHeader* out) noexcept

# The client is who the header says; its bytes are copied. False: no memory.
cdef bint keep_proxy_header(Client client, const ProxyHeader* h) noexcept

# The TLVs of a client's header; p is NULL without any.
cdef Str kept_tlvs(Client client) noexcept

# The value of the first TLV of this type in a list, p is NULL: there is none before the list ends
# or breaks off.
cdef Str find_tlv(Str tlvs, uint32_t type) noexcept

# Write the header of `version` (1 or 2) for a connection from source to target; bytes, at most
# PROXY_WRITE_MAX.
cdef uint32_t write_proxy_header(int version, const Address* source, const Address* target,
                                 char* out) noexcept
