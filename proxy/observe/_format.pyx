# Log lines, segment by segment: each value is escaped on its way, nothing is kept.

from cython cimport final
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.base.span cimport Str
from proxy.variables._variables cimport LITERAL, find_segment

from time import perf_counter_ns

cdef const char* HEX_DIGITS = "0123456789ABCDEF"
# how many bytes each byte becomes, by LogEscape
cdef uint8_t[2][256] SIZES
cdef char[256] SHORT              # JSON's short forms: \n and its like; 0: none

for _i in range(256):
    SIZES[<int>LOG_DEFAULT][_i] = 4 if _i < 32 or _i >= 127 or _i in b'"\\' else 1
    SIZES[<int>LOG_JSON][_i] = 6 if _i < 32 else 1
    SHORT[_i] = 0
for _byte, _word in zip(b'"\\\n\r\t\b\f', b'"\\nrtbf'):
    SHORT[_byte] = _word
    SIZES[<int>LOG_JSON][_byte] = 2


cdef Py_ssize_t write_escaped(char* p, size_t room, Str s, int escape) noexcept nogil:
    # Bytes written, -1 without room.
    cdef const uint8_t* sizes = SIZES[escape]
    cdef uint32_t i
    cdef size_t size = 0
    cdef uint8_t c
    cdef char* start = p
    for i in range(s.n):
        size += sizes[<uint8_t>s.p[i]]
    if size > room:
        return -1
    if size == s.n:
        memcpy(p, s.p, s.n)
        return <Py_ssize_t>size
    for i in range(s.n):
        c = <uint8_t>s.p[i]
        if sizes[c] == 1:
            p[0] = <char>c
            p += 1
        elif escape == LOG_DEFAULT:
            p[0] = c"\\"
            p[1] = c"x"
            p[2] = HEX_DIGITS[c >> 4]
            p[3] = HEX_DIGITS[c & 15]
            p += 4
        elif SHORT[c]:
            p[0] = c"\\"
            p[1] = SHORT[c]
            p += 2
        else:
            memcpy(p, b"\\u00", 4)
            p[4] = HEX_DIGITS[c >> 4]
            p[5] = HEX_DIGITS[c & 15]
            p += 6
    return p - start


@final
cdef class Format:
    """`Format(template, escape)`: escape is default, json or none."""

    def __init__(self, Template template not None, str escape="default"):
        self.template = template
        self.escape = ("default", "json", "none").index(escape)

    cdef Py_ssize_t write_line(self, Request r, char* p, size_t room) noexcept:
        cdef Template t = self.template
        cdef char* start = p
        cdef char* end = p + room - 1            # the end of line always has its place
        cdef Str value
        cdef uint32_t i
        cdef int found
        cdef Py_ssize_t n
        if room == 0:
            return -1
        for i in range(t.n_segments):
            found = find_segment(t, i, r, &value)
            if found == 1:
                if t.segments[i].kind == LITERAL or self.escape == LOG_NONE:
                    if value.n > <size_t>(end - p):
                        return -1
                    memcpy(p, value.p, value.n)
                    p += value.n
                else:
                    n = write_escaped(p, <size_t>(end - p), value, self.escape)
                    if n < 0:
                        return -1
                    p += n
            elif self.escape == LOG_DEFAULT:     # missing, or it could not be found out
                if p == end:
                    return -1
                p[0] = c"-"
                p += 1
        p[0] = c"\n"
        return p + 1 - start

    def line(self, Request r not None, size_t room=65536):
        """The line as bytes, None when it does not fit; for tests."""
        cdef char* p = <char*>malloc(room + 1)
        cdef Py_ssize_t n
        if p == NULL:
            raise MemoryError
        try:
            n = self.write_line(r, p, room)
            return p[:n] if n >= 0 else None
        finally:
            free(p)

    def measure(self, Request r not None, uint32_t times):
        """Nanoseconds that one line takes, with values and arena let go each time."""
        cdef char[4096] room
        cdef char* at = r.arena.at
        cdef uint32_t _i
        began = perf_counter_ns()
        for _i in range(times):
            r.values = NULL
            r.value_states = NULL
            r.arena.at = at
            self.write_line(r, room, 4096)
        return (perf_counter_ns() - began) / times
