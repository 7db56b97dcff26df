# Makes Location fields absolute, and redirects inside.

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memchr, memcpy

from proxy.base._arena cimport take
from proxy.base._client cimport Address, address_text
from proxy.base._escape cimport ESCAPE_URI, escape_uri, escaped_size
from proxy.base.head cimport F_LOCATION
from proxy.base.span cimport text
from proxy.base.verdict cimport NO_MEMORY, REROUTE, STATUS


cdef int put_location(Request r, Str value) noexcept:
    cdef uint16_t i
    cdef uint16_t n = 0
    for i in range(r.n_out):
        if r.out[i].id != F_LOCATION:
            r.out[n] = r.out[i]
            n += 1
    r.n_out = n
    return 0 if r.add_field(text("Location", 8), value, F_LOCATION) != NULL else NO_MEMORY


cdef Str redirect_url(Request r, Str path) noexcept:
    cdef Str host
    cdef Address* local
    cdef uint32_t port = 0
    cdef uint32_t at
    cdef uint32_t i
    cdef char digits[8]
    cdef char* p
    cdef Str url
    if path.n == 0 or path.p[0] != c"/" or not r.location.absolute_redirect:
        return path
    local = r.client.local_address()
    if r.location.server_name_in_redirect:
        host = r.server.name_s
    elif r.host.n:
        host = r.host
    else:
        host = address_text(local)
    if r.location.port_in_redirect and local.port != (443 if r.client.is_tls else 80):
        port = local.port
    p = <char*>take(&r.arena, host.n + path.n + 24)
    if p == NULL:
        return text(NULL, 0)
    url.p = p
    memcpy(p, b"https://", 8)
    at = 8
    if not r.client.is_tls:
        memcpy(p + 4, b"://", 3)
        at = 7
    if not r.location.server_name_in_redirect and r.host.n == 0 and memchr(
            host.p, c":", host.n) != NULL and local.binary_n:
        p[at] = c"["                             # RFC 3986 §3.2.2
        memcpy(p + at + 1, host.p, host.n)
        at += host.n + 1
        p[at] = c"]"
        at += 1
    else:
        memcpy(p + at, host.p, host.n)
        at += host.n
    if port:
        p[at] = c":"
        at += 1
        i = 0
        while port:
            digits[i] = <char>(48 + port % 10)
            port //= 10
            i += 1
        while i:
            i -= 1
            p[at] = digits[i]
            at += 1
    memcpy(p + at, path.p, path.n)
    url.n = at + path.n
    return url


cdef int complete_location(Request r) noexcept:
    cdef uint16_t i
    cdef Str url
    for i in range(r.n_out):
        if r.out[i].id == F_LOCATION and r.location is not None and r.client is not None:
            url = redirect_url(r, r.out[i].value)
            if url.p == NULL and r.out[i].value.n:
                return NO_MEMORY
            r.out[i].value = url
    return 0


cdef int redirect_to_folder(Request r, Str uri) noexcept:
    cdef uint32_t n = escaped_size(uri.p, uri.n, ESCAPE_URI)
    cdef char* p = <char*>take(&r.arena, n + r.args.n + 2)
    if p == NULL:
        return NO_MEMORY
    if n == uri.n:
        memcpy(p, uri.p, n)
    else:
        escape_uri(p, uri.p, uri.n, ESCAPE_URI)
    p[n] = c"/"
    n += 1
    if r.args.n:
        p[n] = c"?"
        memcpy(p + n + 1, r.args.p, r.args.n)
        n += r.args.n + 1
    r.status = 301
    if put_location(r, text(p, n)) < 0:
        return NO_MEMORY
    return STATUS


cdef int redirect_inside(Request r, Str uri, Str args) noexcept:
    r.uri = uri
    r.args = args
    r.is_rewritten = 1
    r.uri_in_proxy = 0
    r.alias_takes_uri = 0
    return REROUTE


cdef void split_args(Str whole, Str* uri, Str* args) noexcept:
    cdef const char* mark = <const char*>memchr(whole.p, c"?", whole.n) if whole.n else NULL
    uri[0] = whole
    args[0] = text("", 0)
    if mark != NULL:
        uri.n = <uint32_t>(mark - whole.p)
        args[0] = text(mark + 1, whole.n - uri.n - 1)
