# $proxy_host, $proxy_port, $proxy_add_x_forwarded_for.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport take
from proxy.base._client cimport address_text
from proxy.base._request cimport Request
from proxy.base.head cimport F_IS_INVALID, F_X_FORWARDED_FOR, value_of
from proxy.base.span cimport Str, of_bytes
from proxy.base.verdict cimport NO_MEMORY
from proxy.upstream._settings cimport ProxySettings
from proxy.variables._variables cimport NO_CACHE, declare


cdef int get_where(Request r, uint64_t is_port, Str* out) noexcept:
    cdef ProxySettings s
    cdef bytes value
    if r.location is None or r.location.proxy is None:
        return 0
    s = <ProxySettings>r.location.proxy
    if r.found is not None:
        value = r.found.proxy_port if is_port else r.found.proxy_host
    else:
        value = s.proxy_port if is_port else s.proxy_host
    if value is None:
        return 0
    out[0] = of_bytes(value)
    return 1


cdef int get_forwarded(Request r, uint64_t data, Str* out) noexcept:
    """X-Forwarded-For as it came, all lines of it, and the client's address behind."""
    cdef Str mine = address_text(&r.client.address)
    cdef Str value
    cdef uint64_t n = mine.n
    cdef char* at
    cdef int i
    for i in range(r.head.n_fields):
        if r.head.fields[i].id == F_X_FORWARDED_FOR and not r.head.fields[i].flags & F_IS_INVALID:
            n += r.head.fields[i].value_n + 2
    at = <char*>take(&r.arena, n)
    if at == NULL:
        return NO_MEMORY
    out.p = at
    out.n = <unsigned int>n
    for i in range(r.head.n_fields):
        if r.head.fields[i].id == F_X_FORWARDED_FOR and not r.head.fields[i].flags & F_IS_INVALID:
            value = value_of(&r.head, &r.head.fields[i])
            memcpy(at, value.p, value.n)
            memcpy(at + value.n, b", ", 2)
            at += value.n + 2
    memcpy(at, mine.p, mine.n)
    return 1


declare(b"proxy_host", get_where, 0, NO_CACHE)
declare(b"proxy_port", get_where, 1, NO_CACHE)
declare(b"proxy_add_x_forwarded_for", get_forwarded, 0, NO_CACHE)
