# What a function location answers when the function does not, and its variables.

import json

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf

from proxy.base._arena cimport copy
from proxy.base._report cimport R_ERROR, report
from proxy.base._request cimport Request
from proxy.base.head cimport (
    F_IS_INVALID, F_USER_AGENT, F_X_REQUEST_ID, M_OPTIONS, Field, find_field, name_of, value_of,
)
from proxy.base.span cimport Str, is_same_word, is_word, of_bytes, text
from proxy.base.verdict cimport DONE, GO, NO_MEMORY
from proxy.functions._counts cimport TICKETS
from proxy.functions._function cimport Version
from proxy.functions._waiting cimport (
    R_QUEUE_BYTES, R_QUEUE_SIZE, R_QUEUE_TICKETS, R_QUEUE_WAIT, R_TIMEOUT, Asked,
)
from proxy.variables._variables cimport NO_CACHE, declare, find_number, find_value

from proxy.functions._waiting import WORDS

cdef enum:
    ID_BYTES = 128        # a longer X-Call-Id of a client is not taken over
    X_CALL_ID = 0
    FUNCTION_KEY = 0
    FUNCTION_VERSION = 1
    REPLICA = 0
    COLD_START = 1
    QUEUE_TIME = 2


cdef uint32_t request_id      # the number of $request_id in this plan


cdef int number_names() except -1:
    global request_id
    request_id = find_number(b"request_id")
    return 0


cdef bint wakes_nobody(Request r) noexcept:
    cdef uint16_t i
    cdef Str name
    cdef const Field* agent = find_field(&r.head, F_USER_AGENT)
    cdef bint is_preflight = r.method == M_OPTIONS
    if agent != NULL and is_probe(value_of(&r.head, agent)):
        return True
    for i in range(r.head.n_fields):
        if r.head.fields[i].id or r.head.fields[i].flags & F_IS_INVALID:
            continue
        name = name_of(&r.head, &r.head.fields[i])
        if is_preflight and is_word(name, b"access-control-request-method", 29):
            return True
        if is_word(name, b"k-network-probe", 15) or is_word(name, b"k-kubelet-probe", 15):
            return True
    return False


cdef bint is_probe(Str agent) noexcept:
    """kube-probe/VERSION, Knative-Activator-Probe and its kin."""
    cdef Str end = agent
    if agent.n > 11 and is_same_word(agent.p, b"kube-probe/", 11):
        return True
    if agent.n < 14 or not is_same_word(agent.p, b"knative-", 8):
        return False
    end.p = agent.p + agent.n - 6
    end.n = 6
    return is_word(end, b"-probe", 6)


cdef int answer_asleep(Request r) noexcept:
    cdef Str why = text(b"probe", 5)
    r.status = 204
    r.reason.n = 0
    if r.method == M_OPTIONS:
        why = text(b"preflight", 9)
    if r.add_field(text(b"X-Function-Asleep", 17), why, 0) == NULL:
        return NO_MEMORY
    return DONE


cdef int STATUSES[7]
STATUSES[:] = [0, 503, 503, 504, 503, 502, 504]
MESSAGES = (
    "", "as many requests wait for a replica as may", "what waits for a replica is too large",
    "no replica was free in time", "as many requests wait in this worker as may",
    "no replica could be started", "the function took too long",
)


cdef bytes refusal_word(int refusal):
    return (<str>WORDS[refusal]).encode()


cdef uint64_t limit_of(Version v, int refusal) noexcept:
    if refusal == R_QUEUE_SIZE:
        return v.queue_size
    if refusal == R_QUEUE_BYTES:
        return v.queue_bytes
    if refusal == R_QUEUE_WAIT:
        return v.queue_ms
    if refusal == R_QUEUE_TICKETS:
        return TICKETS - 1
    return v.timeout_ms if refusal == R_TIMEOUT else 0


cdef int answer_refusal(Request r, int status) noexcept:
    cdef Asked* a = <Asked*>r.asked
    cdef Version v = <Version>r.version
    cdef bytes body
    if v is None or STATUSES[a.refusal] != status:
        return GO
    try:
        told = {"error": WORDS[a.refusal], "function": v.function.key.decode(),
                "version": v.name.decode(), "message": MESSAGES[a.refusal]}
        if limit_of(v, a.refusal):
            told["limit"] = limit_of(v, a.refusal)
        body = json.dumps(told).encode() + b"\n"
        r.text = copy(&r.arena, of_bytes(body))
    except Exception:
        return NO_MEMORY
    r.status = <uint16_t>status
    r.content_type = text(b"application/json", 16)
    if status == 503 and r.add_field(
            text(b"Retry-After", 11), text(b"1", 1), 0) == NULL or r.text.n == 0:
        return NO_MEMORY
    return DONE


cdef void report_refusal(Request r) noexcept:
    cdef Asked* a = <Asked*>r.asked
    cdef Version v = <Version>r.version
    cdef bytes words
    if a == NULL or v is None or a.refusal == 0:
        return
    words = b"function %s: %s" % (v.key, refusal_word(a.refusal))
    if a.refusal in (R_QUEUE_WAIT, R_TIMEOUT):
        words += b" (%d ms)" % limit_of(v, a.refusal)
    elif limit_of(v, a.refusal):
        words += b" (%d)" % limit_of(v, a.refusal)
    words += b", " + (<str>MESSAGES[a.refusal]).encode()
    report(R_ERROR, r, of_bytes(words))


cdef int add_timing(Request r) noexcept:
    cdef Asked* a = <Asked*>r.asked
    cdef char words[96]
    cdef int n
    cdef Str value
    if a == NULL:
        return 0
    n = snprintf(words, 96, "queue;dur=%llu", <unsigned long long>a.queue_ms)
    if a.is_cold:
        n += snprintf(words + n, 96 - n, ", start;dur=%llu", <unsigned long long>a.start_ms)
    value = copy(&r.arena, text(words, <uint32_t>n))
    if value.n == 0 or r.add_field(text(b"Server-Timing", 13), value, 0) == NULL:
        return NO_MEMORY
    return 0


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
    return find_value(r, request_id, out)


cdef int get_function(Request r, uint64_t data, Str* out) noexcept:
    cdef Version v = <Version>r.version
    if v is None:
        return 0
    if data == FUNCTION_VERSION:
        out[0] = of_bytes(v.name)
    else:
        out[0] = of_bytes(v.function.key)
    return 1


cdef int get_asked(Request r, uint64_t data, Str* out) noexcept:
    """Of a function's request: which replica, 1 or 0, seconds in the queue."""
    cdef Asked* a = <Asked*>r.asked
    cdef char words[32]
    cdef int n
    if a == NULL or r.version is None:
        return 0
    if data == REPLICA:
        out[0] = a.replica
        return 1 if a.replica.n else 0
    if data == COLD_START:
        out[0] = text(b"1" if a.is_cold else b"0", 1)
        return 1
    n = snprintf(words, 32, "%llu.%03u", <unsigned long long>(a.queue_ms // 1000),
                 <unsigned int>(a.queue_ms % 1000))
    out[0] = copy(&r.arena, text(words, <uint32_t>n))
    return 1 if out.n else NO_MEMORY


declare(b"call_id", get_id, X_CALL_ID, 0)
declare(b"function_request_id", get_id, F_X_REQUEST_ID, 0)
declare(b"function_name", get_function, FUNCTION_KEY, NO_CACHE)
declare(b"function_version", get_function, FUNCTION_VERSION, NO_CACHE)
declare(b"replica", get_asked, REPLICA, NO_CACHE)
declare(b"cold_start", get_asked, COLD_START, NO_CACHE)
declare(b"queue_time", get_asked, QUEUE_TIME, NO_CACHE)
