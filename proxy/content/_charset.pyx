# Appends "; charset=…" to the Content-Type; never recodes.
# nginx: ngx_http_charset_filter_module.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memchr, memcpy

from proxy.base._arena cimport take
from proxy.base.head cimport F_CONTENT_TYPE, F_IS_HIDDEN, Field, value_of
from proxy.base.span cimport Str, is_same_word, lower, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.content._settings cimport ContentSettings
from proxy.variables._variables cimport evaluate


cdef bint has_charset(Str type) noexcept:
    cdef unsigned int i
    if memchr(type.p, c";", type.n) == NULL:
        return False
    for i in range(type.n):
        if type.n - i > 8 and is_same_word(type.p + i, b"charset=", 8):
            return True
    return False


cdef bint is_wanted(ContentSettings s, Str type) noexcept:
    cdef bytes name
    cdef char* p
    cdef unsigned int n = 0
    if s.charset_types is None:
        return True
    while n < type.n and type.p[n] != c";" and type.p[n] != c" ":
        n += 1
    name = PyBytes_FromStringAndSize(type.p, n)
    p = PyBytes_AS_STRING(name)
    while n:
        n -= 1
        p[n] = <char>lower(<unsigned char>p[n])
    return name in s.charset_types


cdef int add_charset(Request r) noexcept:
    cdef ContentSettings s
    cdef Field* f = NULL
    cdef Str type = r.content_type
    cdef Str name
    cdef Str source
    cdef char* p
    cdef unsigned short i
    cdef int rc
    if r.location is None or r.location.content is None or r is not r.main:
        return 0
    s = <ContentSettings>r.location.content
    if s.charset is None or r.status == 301 or r.status == 302 or r.status == 304:
        return 0
    if type.n == 0 and r.answer.fields != NULL:
        for i in range(r.answer.n_fields):
            if r.answer.fields[i].id == F_CONTENT_TYPE and not r.answer.fields[i].flags:
                f = &r.answer.fields[i]
                type = value_of(&r.answer, f)
                break
    if type.n == 0 or has_charset(type) or not is_wanted(s, type):
        return 0
    rc = evaluate(s.charset, r, &name)
    if rc < 0:
        return rc
    if s.source_charset is not None:
        rc = evaluate(s.source_charset, r, &source)
        if rc < 0:
            return rc
        if source.n != name.n or not is_same_word(source.p, name.p, name.n):
            return 0                             # it would have to be recoded
    if name.n == 0:
        return 0
    p = <char*>take(&r.arena, type.n + 10 + name.n)
    if p == NULL:
        return NO_MEMORY
    memcpy(p, type.p, type.n)
    memcpy(p + type.n, b"; charset=", 10)
    memcpy(p + type.n + 10, name.p, name.n)
    r.content_type = text(p, type.n + 10 + name.n)
    if f != NULL:
        f.flags |= F_IS_HIDDEN
    return 0
