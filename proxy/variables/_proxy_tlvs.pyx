# $proxy_protocol_tlv_…: what the header of PROXY, version 2, told beside addresses.
#
# Names, numbers (0x…) and what stands in the TLV of SSL are nginx's (since 1.23.2); a name that
# nobody knows, and a TLV that is not there or broken, are empty.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, strlen

from proxy.base._request cimport Request
from proxy.base.span cimport Str, text
from proxy.variables._variables cimport declare_prefix
from proxy.variables._write cimport tell_kept, tell_number
from proxy.wire._proxy_protocol cimport find_tlv, kept_tlvs

cdef enum:
    TLV_SSL = 0x20                # haproxy's proxy-protocol.txt §2.2.6: PP2_TYPE_SSL
    SSL_FIXED = 5                 # … its bytes before other TLVs: client, verify

    HEX_MOST = 8                  # digits: a longer number is no byte's, however it begins


cdef bint is_called(Str name, const char* wanted) noexcept:
    return name.n == strlen(wanted) and memcmp(name.p, wanted, name.n) == 0


cdef int type_in_header(Str name) noexcept:
    if is_called(name, b"alpn"):
        return 0x01
    if is_called(name, b"authority"):
        return 0x02
    if is_called(name, b"unique_id"):
        return 0x05
    if is_called(name, b"ssl"):
        return TLV_SSL
    if is_called(name, b"netns"):
        return 0x30
    return -1


cdef int type_in_ssl(Str name) noexcept:
    if is_called(name, b"version"):
        return 0x21
    if is_called(name, b"cn"):
        return 0x22
    if is_called(name, b"cipher"):
        return 0x23
    if is_called(name, b"sig_alg"):
        return 0x24
    if is_called(name, b"key_alg"):
        return 0x25
    return -1


cdef int type_of_number(Str name) noexcept:
    """Of `0x…`; -1: it is none, or more than a byte holds."""
    cdef int number = 0
    cdef uint32_t i
    cdef char c
    if name.n < 3 or name.n > 2 + HEX_MOST:
        return -1
    for i in range(2, name.n):
        c = name.p[i] | 32
        if number > 0xFF:
            return -1
        if c"0" <= c <= c"9":
            number = number << 4 | (c - c"0")
        elif c"a" <= c <= c"f":
            number = number << 4 | (c - c"a" + 10)
        else:
            return -1
    return number


cdef int get_tlv(Request r, uint64_t data, Str* out) noexcept:
    cdef Str name = (<Str*>data)[0]
    cdef const uint8_t* p
    cdef Str list_
    cdef bint of_ssl = name.n > 4 and memcmp(name.p, b"ssl_", 4) == 0
    cdef int type
    if r.client is None:
        return 0
    list_ = kept_tlvs(r.client)
    if of_ssl:
        list_ = find_tlv(list_, TLV_SSL)
        if list_.p == NULL or list_.n < SSL_FIXED:
            return 0
        name = text(name.p + 4, name.n - 4)
        if is_called(name, b"verify"):           # 0: the certificate is good
            p = <const uint8_t*>list_.p + 1
            return tell_number(r, <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16
                               | <uint32_t>p[2] << 8 | p[3], out)
        list_ = text(list_.p + SSL_FIXED, list_.n - SSL_FIXED)
    if name.n > 2 and memcmp(name.p, b"0x", 2) == 0:
        type = type_of_number(name)
    else:
        type = type_in_ssl(name) if of_ssl else type_in_header(name)
    if type < 0 or list_.p == NULL:
        return 0
    list_ = find_tlv(list_, <uint32_t>type)
    return tell_kept(r, list_, out) if list_.p != NULL else 0


declare_prefix(b"proxy_protocol_tlv_", get_tlv, 0)
