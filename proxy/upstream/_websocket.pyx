"""What is limited of WebSockets in one location, and what their upstream agreed to."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr

from proxy.base.head cimport F_UPGRADE, Head, Field, name_of, value_of
from proxy.base.span cimport Str, is_word, text


cdef class WebSocketSettings:
    def __cinit__(self):
        self.close_labels = {}


cdef bint take_token(WebSocketSettings s, Tokens* t, uint64_t now_ms) noexcept:
    """The bucket leaks s.rate a second; burst + 1 frames fill it."""
    cdef uint64_t leaked = (now_ms - t.at_ms) * s.rate // 1000
    t.at_ms = now_ms
    t.excess = 0 if leaked >= t.excess else t.excess - <uint32_t>leaked
    if t.excess > s.burst:
        return False
    t.excess += 1000
    return True


cdef bint is_websocket(Head* answer) noexcept:
    cdef uint32_t i
    for i in range(answer.n_fields):
        if answer.fields[i].id == F_UPGRADE and is_word(
                value_of(answer, &answer.fields[i]), "websocket", 9):
            return True
    return False


cdef bint is_deflate(Head* answer) noexcept:
    cdef uint32_t i
    cdef Field* f
    for i in range(answer.n_fields):
        f = &answer.fields[i]
        if is_word(name_of(answer, f), "sec-websocket-extensions", 24) and names_deflate(
                value_of(answer, f)):
            return True
    return False


cdef bint names_deflate(Str list_of) noexcept:
    """Is it one of `name; parameter, name …` (RFC 6455 §9.1)?"""
    cdef const char* at = list_of.p
    cdef const char* end = list_of.p + list_of.n
    cdef const char* comma
    cdef Str one
    while at < end:
        comma = <const char*>memchr(at, c",", <size_t>(end - at))
        if comma == NULL:
            comma = end
        one = text(at, comma - at)
        while one.n and (one.p[0] == 32 or one.p[0] == 9):
            one.p += 1
            one.n -= 1
        if one.n >= 18 and is_word(text(one.p, 18), "permessage-deflate", 18) and (
                one.n == 18 or one.p[18] in (32, 9, 59)):
            return True
        at = comma + 1
    return False
