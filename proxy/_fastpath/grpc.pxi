# What of gRPC the stages know: a call's deadline, and our own errors in its words.
#
# A call is told by its type and by its path, which names a service and a method
# (grpc/doc/PROTOCOL-HTTP2.md): whoever asks for something else gets an answer of HTTP.

cdef enum GrpcStatus:         # grpc/doc/statuscodes.md
    GRPC_UNKNOWN = 2
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14
    GRPC_UNAUTHENTICATED = 16

cdef enum:
    TIMEOUT_DIGITS = 8        # of grpc-timeout

cdef dict fault_words = {_number: _fault.message.encode() for _number, _fault in FAULTS.items()}


cdef bint is_grpc_call(Request r) noexcept:
    cdef const Field* type
    cdef Str value
    cdef uint32_t i
    cdef uint32_t slashes = 0
    if r.parent is not None or r.head.version < 20 and not is_web(r):
        return False
    type = find_field(&r.head, F_CONTENT_TYPE)
    if type == NULL:
        return False
    value = value_of(&r.head, type)
    if value.n < 16 or memcmp(value.p, b"application/grpc", 16) != 0 or value.n > 16 and not (
            value.p[16] == c"+" or value.p[16] == c";" or value.p[16] == c" "):
        return False
    value = span(&r.head, r.head.path, r.head.path_n)
    for i in range(value.n):
        slashes += value.p[i] == c"/"
    return slashes == 2 and value.p[value.n - 1] != c"/" and value.p[1] != c"/"


cdef uint64_t grpc_deadline(Request r) noexcept:
    """When the client gives the call up (grpc-timeout), 0: never."""
    cdef Field* f
    cdef const char* p
    cdef uint64_t n = 0
    cdef uint32_t i
    cdef uint16_t k
    for k in range(r.head.n_fields):
        f = &r.head.fields[k]
        if f.id or f.name_n != 12 or not 2 <= f.value_n <= TIMEOUT_DIGITS + 1 or (
                not is_word(name_of(&r.head, f), b"grpc-timeout", 12)):
            continue
        p = r.head.base + f.value
        for i in range(f.value_n - 1):
            if not c"0" <= p[i] <= c"9":
                return 0
            n = n * 10 + <uint64_t>(p[i] - 48)
        if p[f.value_n - 1] == c"H":
            n *= 3600000
        elif p[f.value_n - 1] == c"M":
            n *= 60000
        elif p[f.value_n - 1] == c"S":
            n *= 1000
        elif p[f.value_n - 1] == c"u":
            n = (n + 999) // 1000
        elif p[f.value_n - 1] == c"n":
            n = (n + 999999) // 1000000
        elif p[f.value_n - 1] != c"m":
            return 0
        return r.start_ms + n
    return 0


cdef int grpc_status_of(Request r, int status) noexcept:
    """grpc/doc/http-grpc-status-mapping.md; a deadline that is over says so."""
    cdef uint64_t until_ms = grpc_deadline(r)
    if until_ms and clock.now_ms >= until_ms:
        return GRPC_DEADLINE_EXCEEDED
    if status == 401:
        return GRPC_UNAUTHENTICATED
    if status == 403:
        return GRPC_PERMISSION_DENIED
    if status == 404:
        return GRPC_UNIMPLEMENTED
    if status == 413:                            # as servers say of messages that are too large
        return GRPC_RESOURCE_EXHAUSTED
    if status == 429 or 502 <= status <= 504:
        return GRPC_UNAVAILABLE
    if status == 400 or status == 494 or status == 431:
        return GRPC_INTERNAL
    return GRPC_UNKNOWN


cdef Str grpc_words(Request r, int status) noexcept:
    """What went wrong, for people. ASCII without a percent sign."""
    cdef char[32] words
    if r.fault < 0 and r.fault in fault_words:
        return of_bytes(<bytes>fault_words[r.fault])
    return copy(&r.arena, text(words, <uint32_t>snprintf(words, 32, "HTTP status %d", status)))


cdef Str grpc_number(Request r, int status) noexcept:
    cdef char[16] digits
    return copy(&r.arena, text(digits, <uint32_t>snprintf(
        digits, 16, "%d", grpc_status_of(r, status))))


cdef bint answer_grpc(Worker w, Request r, int status) noexcept:
    """An error of ours where a page would stand: trailers only. False: it is no call."""
    if not is_grpc_call(r) or status < 300 or status == 444 or status == 499:
        return False
    r.told_status = <uint16_t>status
    r.status = 200
    r.text.n = 0
    r.content_type = text(b"application/grpc", 16)
    if r.add_field(text(b"grpc-status", 11), grpc_number(r, status), 0) == NULL or (
            r.add_field(text(b"grpc-message", 12), grpc_words(r, status), 0) == NULL):
        return False
    w.answer(r)
    return True


cdef bint end_grpc(Worker w, Request r, int fault) noexcept:
    """An answer that cannot be completed ends with a status all the same. False: cut it."""
    if r.is_done or r.out_kind != BODY_CHUNKED or not is_grpc_call(r):
        return False
    r.n_trailers = 0
    if r.add_trailer(text(b"grpc-status", 11), grpc_number(r, status_of(fault))) == NULL or (
            r.add_trailer(text(b"grpc-message", 12), grpc_words(r, fault)) == NULL):
        return False
    r.waiting = None
    r.is_answer_read = True
    w.finish(r)
    return True
