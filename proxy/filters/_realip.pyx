# Puts the address that a trusted proxy tells of in place of the proxy's own.
#
# nginx: ngx_http_realip_module. Asked after the head was read (the server's settings) and again
# before admit (the location's); the first that finds an address holds for the whole request.
# Read from the right: who stands there was written by the proxy next to us.

from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from proxy.base._client cimport Address, Client, read_address
from proxy.base.head cimport *
from proxy.base.span cimport Str, is_word
from proxy.filters._access cimport match_rule


cdef class RealipSettings:
    """Frozen by filters/realip.py."""


cdef inline bint is_between(char c) noexcept:
    return c == c" " or c == c"," or c == c"\t"


cdef bint read_last(Str* rest, Address* found) noexcept:
    """The last address of a list, which it is taken from. False: there is none to be read."""
    cdef Str word
    while rest.n and is_between(rest.p[rest.n - 1]):
        rest.n -= 1
    word = rest[0]
    while rest.n and not is_between(rest.p[rest.n - 1]):
        rest.n -= 1
    word.p += rest.n
    word.n -= rest.n
    # read_address knows "unix:" too, which no proxy forwards for
    return word.n > 0 and word.p[0] != c"u" and read_address(word, found) == 0


cdef bint follow(RealipSettings s, Str rest, Address* found, bint* is_over) noexcept:
    """One list of addresses, `found` being who handed it over. True: another stands there now."""
    cdef bint has_moved = False
    while True:
        if match_rule(s.trusted, found) == NULL or not read_last(&rest, found):
            is_over[0] = True
            return has_moved
        has_moved = True
        if not s.is_recursive:
            is_over[0] = True
            return True
        while rest.n and is_between(rest.p[rest.n - 1]):
            rest.n -= 1
        if rest.n == 0:
            return True


cdef void put_real_address(AccessSettings access, Request r) noexcept:
    cdef RealipSettings s = <RealipSettings>access.realip
    cdef Client client = r.client
    cdef Address found
    cdef Address before
    cdef const Field* f
    cdef uint32_t i
    cdef bint is_over = False
    cdef bint has_moved = False
    if client is None or is_replaced(client):
        return
    found = client.peer
    if s.source == FROM_PROXY_HEADER:
        if client.proxy_address.n and match_rule(s.trusted, &found) != NULL and (
                read_address(client.proxy_address, &found) == 0):
            found.port = client.proxy_port
            client.address = found
        return
    if r.head.fields == NULL:
        return
    for i in range(r.head.n_fields, 0, -1):
        f = &r.head.fields[i - 1]
        if f.flags & F_IS_INVALID:
            continue
        if s.source == FROM_CHAIN:
            if f.id == F_X_FORWARDED_FOR:
                has_moved |= follow(s, value_of(&r.head, f), &found, &is_over)
                if is_over:
                    break
        elif is_word(name_of(&r.head, f), <const char*>s.field, <uint32_t>len(s.field)):
            before = client.peer             # an earlier one of that name comes first
            has_moved = follow(s, value_of(&r.head, f), &before, &is_over)
            found = before
    if has_moved:
        client.address = found


cdef inline bint is_replaced(Client client) noexcept:
    cdef Address* a = &client.address
    cdef Address* b = &client.peer
    return a.text_n != b.text_n or a.port != b.port or memcmp(a.text, b.text, a.text_n) != 0
