# Which function a request is for: what function_pass names, and the routes of functions.
#
# Called by the stages route and pick. A request holds the version that it was given to its end,
# whatever becomes of names, routes and weights meanwhile.

from cython cimport final
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from proxy.base._arena cimport copy, take
from proxy.base._escape cimport ESCAPE_URI, escape_uri, escaped_size
from proxy.base._request cimport Request
from proxy.base.head cimport (
    F_IS_HIDDEN, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_PATCH, M_POST, M_PUT, name_of,
    span,
)
from proxy.base.span cimport Str, is_equal, is_word, of_bytes, text, to_bytes
from proxy.base.verdict cimport DONE, GO, NO_MEMORY, NOT_ALLOWED
from proxy.functions._arms cimport Arms, choose_arm
from proxy.functions._function cimport Function, Functions, Version
from proxy.functions._handler cimport number_names
from proxy.variables._variables cimport declare, evaluate, find_number, find_value
from proxy.variables._write cimport tell_number

import json

from proxy.functions.values import NAMESPACE

cdef bytes in_default = b"." + NAMESPACE.encode()

cdef enum:
    SHOWN_BYTES = 256     # of an unknown name, in the answer

KINDS = {"name": T_NAME, "text": T_TEXT, "labels": T_LABELS, "path": T_PATH, "routes": T_ROUTES}


@final
cdef class Selection:
    """Kept by directory.Directory."""


@final
cdef class FunctionTarget:
    """kind: name, text, labels, path, routes; selection and template as they are needed.

    prefix_n: the bytes of the location's name that a path begins with.
    """

    def __init__(self, str kind not None, str name not None, Functions functions not None,
                 Template template=None, Selection selection=None, uint32_t prefix_n=0):
        self.kind = KINDS[kind]
        self.name = name.encode()
        self.functions = functions
        self.text = template
        self.selection = selection
        self.prefix_n = prefix_n
        self.call_id = find_number(b"call_id")
        self.request_time = find_number(b"request_time")
        number_names()
        if self.kind == T_NAME:
            self.function = find_name(functions, self.name)


@final
cdef class FunctionRoute:
    def __init__(self, Function function not None, bytes prefix=b"", bytes rewrite=b""):
        self.function = function
        self.prefix = prefix
        self.rewrite = rewrite


cdef Function find_name(Functions functions, bytes name):
    """The key itself, the one in the default namespace, else the only one of that name."""
    cdef list alike
    found = functions.by_key.get(name)
    if found is None:
        found = functions.by_key.get(name + in_default)
        if found is None:
            alike = functions.by_name.get(name)
            if alike is not None and len(alike) == 1:
                found = alike[0]
    return found


cdef int find_version(Request r) noexcept:
    cdef FunctionTarget t = <FunctionTarget>r.location.handler
    cdef Function f = None
    cdef Str name = of_bytes(t.name)
    cdef int rc
    if t.kind == T_NAME:
        f = t.function
        if f is None or f.is_gone:
            f = t.function = find_name(t.functions, t.name)
    elif t.kind == T_TEXT:
        rc = evaluate(t.text, r, &name)
        if rc < 0:
            return rc
        f = find_name(t.functions, to_bytes(name))
    elif t.kind == T_LABELS:
        f = t.selection.chosen
    elif t.kind == T_PATH:
        if r.method not in (M_GET, M_POST, M_PUT, M_PATCH, M_DELETE, M_OPTIONS, M_HEAD):
            return NOT_ALLOWED
        name = name_in_path(r.uri, t.prefix_n)
        f = find_name(t.functions, to_bytes(name))
        if f is not None:
            rc = cut_path(r, t.prefix_n + name.n)
            if rc < 0:
                return rc
    if f is None:
        return answer_unknown(r, name)
    return take_version(f, r)


cdef int take_version(Function f, Request r) noexcept:
    cdef int arm = choose_arm(<Arms>f.arms, r) if f.arms is not None else 0
    if arm >= 0:
        r.version = f.versions[arm]
        return GO
    if arm < -1:
        return arm
    return problem(r, 503, "Service Unavailable", "no version of the function has weight",
                   f.key.decode())


cdef int take_route(FunctionRoute route, Request r) noexcept:
    cdef int rc = take_version(route.function, r)
    if rc != GO or len(route.rewrite) == 0:
        return rc
    return put_path(r, of_bytes(route.rewrite), <uint32_t>len(route.prefix))


# -- paths -------------------------------------------------------------------------------

cdef Str name_in_path(Str path, uint32_t begin) noexcept:
    cdef uint32_t end = begin
    while end < path.n and path.p[end] != c"/":
        end += 1
    return text(path.p + begin, end - begin)


cdef int cut_path(Request r, uint32_t n) noexcept:
    """The function gets what is behind the first n bytes, as the client wrote it if it can."""
    cdef Str sent = span(&r.head, r.head.path, r.head.path_n)
    if not r.is_rewritten and r.main is r and r.head.path_n >= n and is_equal(
            text(sent.p, n), text(r.uri.p, n)) and (
            r.head.path_n == n or sent.p[n] == c"/" or sent.p[n] == c"?"):
        if r.head.path_n == n:
            r.proxy_uri = text(b"/", 1)
            return 0
        r.proxy_uri = copy(&r.arena, text(sent.p + n, r.head.path_n - n))
        return 0 if r.proxy_uri.n else NO_MEMORY
    return put_path(r, text(b"/", 1), n)


cdef int put_prefix(Request r, bytes prefix) noexcept:
    cdef Str new = of_bytes(prefix)
    cdef char* p
    cdef char* at
    if r.proxy_uri.n == 0:
        return put_path(r, new, 0)
    p = at = <char*>take(&r.arena, new.n + r.proxy_uri.n + 1)
    if p == NULL:
        return NO_MEMORY
    memcpy(at, new.p, new.n)
    at += new.n
    if r.proxy_uri.p[0] != c"/":
        at[0] = c"/"
        at += 1
    memcpy(at, r.proxy_uri.p, r.proxy_uri.n)
    r.proxy_uri = text(p, at - p + r.proxy_uri.n)
    return 0


cdef int put_path(Request r, Str new, uint32_t n) noexcept:
    """The path without its first n bytes, behind `new`, with one slash where they meet."""
    cdef Str rest
    cdef char* p
    cdef char* at
    cdef bint has_slash = False
    rest.p = r.uri.p + n if n < r.uri.n else r.uri.p + r.uri.n
    rest.n = r.uri.n - n if n < r.uri.n else 0
    if rest.n and rest.p[0] == c"/":
        rest.p += 1
        rest.n -= 1
        has_slash = True
    if (rest.n or has_slash) and new.n and new.p[new.n - 1] == c"/":
        new.n -= 1
    p = at = <char*>take(&r.arena, new.n + escaped_size(rest.p, rest.n, ESCAPE_URI) + r.args.n + 2)
    if p == NULL:
        return NO_MEMORY
    memcpy(at, new.p, new.n)
    at += new.n
    if rest.n or has_slash:
        at[0] = c"/"
        at += 1
    if rest.n:
        at += escape_uri(at, rest.p, rest.n, ESCAPE_URI)
    if r.args.n:
        at[0] = c"?"
        memcpy(at + 1, r.args.p, r.args.n)
        at += 1 + r.args.n
    r.proxy_uri = text(p, at - p)
    return 0


# -- asynchronous calls --------------------------------------------------------------------

cdef bint is_later(Request r) noexcept:
    cdef FunctionTarget t = <FunctionTarget>r.location.handler
    if t.asynchronous is None or r.parent is not None:
        return False
    return t.is_async or (<Version>r.version).function.is_async


cdef int put_async(Request r) noexcept:
    """/async-call/KEY, and behind it what the function would be asked for."""
    cdef Str key = of_bytes((<Version>r.version).function.key)
    cdef Str rest = r.proxy_uri
    cdef char* p
    cdef int rc
    if rest.n == 0 and not r.is_rewritten and r.main is r:
        rest = span(&r.head, r.head.path, r.head.path_n)
    elif rest.n == 0:
        rc = put_path(r, text(b"/", 1), 0)
        if rc < 0:
            return rc
        rest = r.proxy_uri
    p = <char*>take(&r.arena, 12 + key.n + rest.n)
    if p == NULL:
        return NO_MEMORY
    memcpy(p, b"/async-call/", 12)
    memcpy(p + 12, key.p, key.n)
    memcpy(p + 12 + key.n, rest.p, rest.n)
    r.proxy_uri = text(p, 12 + key.n + rest.n)
    return 0


# -- answers -----------------------------------------------------------------------------

cdef int answer_unknown(Request r, Str name) noexcept:
    if name.n > SHOWN_BYTES:
        name.n = SHOWN_BYTES
    return problem(r, 404, "Not Found", "no such function",
                   to_bytes(name).decode("utf-8", "replace"))


cdef int problem(Request r, int status, str title, str detail, str function) noexcept:
    """An answer in place of the function's (RFC 9457)."""
    cdef bytes body
    r.status = <uint16_t>status
    r.reason.n = 0
    if r.add_field(text(b"X-OpenFaaS-Internal", 19), text(b"gateway", 7), 0) == NULL:
        return NO_MEMORY
    try:
        body = json.dumps({"type": "about:blank", "title": title, "status": status,
                           "detail": detail, "function": function}).encode() + b"\n"
    except Exception:
        return NO_MEMORY
    r.content_type = text(b"application/problem+json", 24)
    r.text = copy(&r.arena, of_bytes(body))
    return DONE


cdef bint has_field(Request r, const char* name, uint32_t n) noexcept:
    """Did the function say it itself?"""
    cdef uint16_t i
    if r.answer.fields == NULL:
        return False
    for i in range(r.answer.n_fields):
        if not r.answer.fields[i].flags & F_IS_HIDDEN and is_word(
                name_of(&r.answer, &r.answer.fields[i]), name, n):
            return True
    return False


cdef int tell_call(Request r) noexcept:
    cdef Str value
    cdef FunctionTarget t
    cdef int rc
    if r.parent is not None or not isinstance(r.location.handler, FunctionTarget):
        return 0
    t = <FunctionTarget>r.location.handler
    if t.kind != T_PATH:
        return 0
    if not has_field(r, b"x-call-id", 9):
        rc = find_value(r, t.call_id, &value)
        if rc < 0 or rc and r.add_field(text(b"X-Call-Id", 9), value, 0) == NULL:
            return NO_MEMORY
    if not has_field(r, b"x-start-time", 12):
        rc = get_start_time(r, 0, &value)
        if rc < 0 or r.add_field(text(b"X-Start-Time", 12), value, 0) == NULL:
            return NO_MEMORY
    if not has_field(r, b"x-duration-seconds", 18):
        rc = find_value(r, t.request_time, &value)
        if rc < 0 or rc and r.add_field(text(b"X-Duration-Seconds", 18), value, 0) == NULL:
            return NO_MEMORY
    return 0


cdef int get_start_time(Request r, uint64_t data, Str* out) noexcept:
    """When the request came, in nanoseconds since 1970."""
    return tell_number(
        r, <uint64_t>r.start_wall_s * 1000000000 + <uint64_t>r.start_wall_ms * 1000000, out)


declare(b"function_start_time", get_start_time, 0, 0)
