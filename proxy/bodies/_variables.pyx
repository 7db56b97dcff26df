# $request_body and $request_body_file: what was read of the client's body.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport take
from proxy.base._request cimport Request
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport NO_MEMORY
from proxy.bodies._spool cimport Spool
from proxy.variables._variables cimport NO_CACHE, declare


cdef int get_body(Request r, uint64_t data, Str* out) noexcept:
    """The body while it is in memory; nothing when it lies in a file (nginx)."""
    cdef Spool q
    if r.main.body is None:
        return 0
    q = <Spool>r.main.body
    if q.fd >= 0 or q.n == 0:
        return 0
    out[0] = text(q.memory, <Py_ssize_t>q.n)
    return 1


cdef int get_file(Request r, uint64_t data, Str* out) noexcept:
    cdef Spool q
    cdef bytes path
    cdef char* at
    if r.main.body is None:
        return 0
    q = <Spool>r.main.body
    if q.path is None:
        return 0
    path = q.path.encode()
    at = <char*>take(&r.arena, len(path))
    if at == NULL:
        return NO_MEMORY
    memcpy(at, <const char*>path, len(path))
    out[0] = text(at, len(path))
    return 1


declare(b"request_body", get_body, 0, NO_CACHE)
declare(b"request_body_file", get_file, 0, NO_CACHE)
