# What a function location answers while no replica is ready, and its variables.
#
# The door for waking is here: answer_unready may PARK one day and resume the request later.

import json

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from proxy.base._arena cimport copy
from proxy.base._request cimport Request
from proxy.base.head cimport F_IS_INVALID, F_X_REQUEST_ID, name_of, value_of
from proxy.base.span cimport Str, is_word, of_bytes, text
from proxy.base.verdict cimport DONE, NO_MEMORY
from proxy.functions._function cimport Version
from proxy.variables._variables cimport NO_CACHE, declare, find_named

cdef enum:
    ID_BYTES = 128        # a longer X-Call-Id of a client is not taken over
    X_CALL_ID = 0
    FUNCTION_KEY = 0
    FUNCTION_VERSION = 1


cdef int answer_unready(Request r) noexcept:
    cdef Version v = <Version>r.version
    cdef bytes body = json.dumps(
        {"error": "no replica is ready", "function": v.function.key.decode()}).encode() + b"\n"
    r.status = 503
    r.reason.n = 0
    r.content_type = text(b"application/json", 16)
    r.text = copy(&r.arena, of_bytes(body))
    if r.add_field(text(b"Retry-After", 11), text(b"1", 1), 0) == NULL:
        return NO_MEMORY
    return DONE


cdef bint is_id(Str value) noexcept nogil:
    """Short and of visible characters only."""
    cdef uint32_t i
    if not 0 < value.n <= ID_BYTES:
        return False
    for i in range(value.n):
        if not 33 <= value.p[i] <= 126:
            return False
    return True


cdef int get_id(Request r, uint64_t field, Str* out) noexcept:
    """What the client sent as X-Call-Id or X-Request-Id, else one of our own."""
    cdef Str name
    cdef uint16_t i
    for i in range(r.head.n_fields):
        if r.head.fields[i].flags & F_IS_INVALID:
            continue
        if field == X_CALL_ID:
            name = name_of(&r.head, &r.head.fields[i])
            if r.head.fields[i].id or not is_word(name, b"x-call-id", 9):
                continue
        elif r.head.fields[i].id != field:
            continue
        if is_id(value_of(&r.head, &r.head.fields[i])):
            out[0] = copy(&r.arena, value_of(&r.head, &r.head.fields[i]))
            return 1 if out.p != NULL else NO_MEMORY
        break
    return find_named(r, b"request_id", out)


cdef int get_function(Request r, uint64_t data, Str* out) noexcept:
    cdef Version v = <Version>r.version
    if v is None:
        return 0
    if data == FUNCTION_VERSION:
        out[0] = of_bytes(v.name)
    else:
        out[0] = of_bytes(v.function.key)
    return 1


declare(b"call_id", get_id, X_CALL_ID, 0)
declare(b"function_request_id", get_id, F_X_REQUEST_ID, 0)
declare(b"function_name", get_function, FUNCTION_KEY, NO_CACHE)
declare(b"function_version", get_function, FUNCTION_VERSION, NO_CACHE)
