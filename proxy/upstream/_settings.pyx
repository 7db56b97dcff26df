# The head that goes to an upstream, over HTTP/1.1 or 2, and what of its answer's comes back.

from libc.stdlib cimport free, malloc

from proxy.base._arena cimport copy
from proxy.base._told cimport R_ALERT, tell_error
from proxy.base.head cimport *
from proxy.base.span cimport is_same_word, of_bytes, text, to_bytes
from proxy.base.verdict cimport INTERNAL, NO_MEMORY
from proxy.base._escape cimport ESCAPE_URI, escape_uri, escaped_size
from proxy.variables._variables cimport evaluate
from proxy.wire._fields cimport find_name
from proxy.wire._h1write cimport *
from proxy.wire._h2head cimport cleaned
from proxy.wire._hpack cimport (
    MAX_WRITTEN, P_AUTHORITY, P_METHOD, P_PATH, P_SCHEME, PseudoId, put_literal, static_of_id,
)


cdef uint64_t NEVER_PASSED = (
    1 << F_CONNECTION | 1 << F_KEEP_ALIVE | 1 << F_PROXY_CONNECTION | 1 << F_TE
    | 1 << F_TRANSFER_ENCODING | 1 << F_CONTENT_LENGTH | 1 << F_EXPECT | 1 << F_HOST
    | <uint64_t>1 << F_HTTP2_SETTINGS | 1 << F_UPGRADE | 1 << F_TRAILER
)
cdef uint64_t NOT_FOR_H2 = (                     # RFC 9113 §8.2.2
    1 << F_CONNECTION | 1 << F_KEEP_ALIVE | 1 << F_PROXY_CONNECTION | 1 << F_TRANSFER_ENCODING
    | 1 << F_UPGRADE
)
cdef uint32_t[4] STATIC_OF_PSEUDO = [1, 2, 4, 6]  # RFC 7541 appendix A, from P_AUTHORITY on


cdef class ProxySettings:
    def __cinit__(self):
        self.version = 11
        self.is_buffered = self.is_request_buffered = self.passes_fields = self.passes_body = True
        self.connect_ms = self.send_ms = self.read_ms = 60000
        self.head_bytes = 4096
        self.buffer_bytes = 8 * 4096
        self.next_conditions = 3
        self.hidden_names = frozenset()
        self.replaced_names = frozenset()
        self.replaced = NEVER_PASSED

    def __dealloc__(self):
        free(self.ops)

    def set_fields(self, list pairs not None):
        """(name bytes, Template) in order: proxy_set_header, with the defaults that it leaves."""
        cdef bytes name
        cdef Template value
        cdef HeaderOp* op
        cdef set names = set()
        free(self.ops)
        self.kept = pairs
        self.n_ops = 0
        self.replaced = NEVER_PASSED
        self.ops = <HeaderOp*>malloc((len(pairs) + 1) * sizeof(HeaderOp))
        if self.ops == NULL:
            raise MemoryError
        for name, value in pairs:
            op = &self.ops[self.n_ops]
            op.name = of_bytes(name)
            op.value = <void*>value
            op.id = find_name(op.name.p, op.name.n)
            if op.id:
                self.replaced |= <uint64_t>1 << op.id
            else:
                names.add(name.lower())
            if value.is_constant and value.constant.n == 0:
                continue                     # an empty value takes the field away
            if op.id == F_CONTENT_LENGTH or op.id == F_TRANSFER_ENCODING:
                continue                     # framing is ours alone
            self.n_ops += 1
        self.replaced_names = frozenset(names)

    def set_hidden(self, names):
        """Names of answer fields that the client does not get (bytes)."""
        cdef bytes name
        cdef uint8_t field
        others = set()
        self.hidden = 0
        for name in names:
            field = find_name(name, <uint32_t>len(name))
            if field:
                self.hidden |= <uint64_t>1 << field
            else:
                others.add(name.lower())
        self.hidden_names = frozenset(others)

    def set_obeyed(self, names):
        cdef bytes name
        self.obeyed = 0
        for name in names:
            self.obeyed |= <uint64_t>1 << find_name(name, <uint32_t>len(name))


cdef uint64_t ONCE = (
    1 << F_CONTENT_TYPE | 1 << F_LAST_MODIFIED | 1 << F_ETAG | 1 << F_EXPIRES | 1 << F_LOCATION
    | 1 << F_REFRESH | 1 << F_DATE | 1 << F_SERVER
)


cdef bytes lowered(Str s):
    return to_bytes(s).lower()


cdef int put_target(ProxySettings s, Request r, char** out, char* end) noexcept:
    """The request-target: as sent, or the rewritten path escaped, prefix replaced, args behind."""
    cdef char* at = out[0]
    cdef Str rest
    cdef Str uri
    cdef uint32_t size
    if r.proxy_uri.n:                            # proxy_pass with variables and a URI: as it is
        if at + r.proxy_uri.n + 16 > end:
            return NO_MEMORY
        if r.proxy_uri.p[0] == c"?":
            at[0] = c"/"
            at += 1
        out[0] = put_str(at, r.proxy_uri)
        return 0
    if not s.has_uri and not r.is_rewritten and r.main is r:
        if at + r.target.n + 2 > end:
            return NO_MEMORY
        if r.head.flags & H_ABSOLUTE:
            rest = span(&r.head, r.head.path, r.head.path_n)
            if rest.n == 0 or rest.p[0] != c"/":
                at[0] = c"/"
                at += 1
            out[0] = put_str(at, rest)
        else:
            out[0] = put_str(at, r.target)
        return 0
    rest = r.uri
    if s.has_uri and not r.uri_in_proxy:
        uri = of_bytes(s.uri)
        if at + uri.n + 16 > end:
            return NO_MEMORY
        at = put_str(at, uri)
        if rest.n >= s.prefix_n:
            rest.p += s.prefix_n
            rest.n -= s.prefix_n
        else:
            rest.n = 0
    size = escaped_size(rest.p, rest.n, ESCAPE_URI)
    if at + size + r.args.n + 16 > end:
        return NO_MEMORY
    if rest.n:
        at += escape_uri(at, rest.p, rest.n, ESCAPE_URI)
    if r.args.n:
        at[0] = c"?"
        at = put_str(at + 1, r.args)
    out[0] = at
    return 0


cdef int method_of(ProxySettings s, Request r, Str* out) noexcept:
    cdef int rc
    if s.method is not None:
        rc = evaluate(s.method, r, out)
        return rc if rc < 0 else NO_MEMORY if out.n > 256 else 0
    if r.method == r.head.method:
        out[0] = span(&r.head, r.head.method_off, r.head.method_n)
    else:                                        # error_page made a GET of it
        out[0] = text(b"GET", 3)
    return 0


cdef int length_of(ProxySettings s, Request r, int64_t* length) noexcept:
    """Bytes of the body that goes on; -1: not known yet."""
    cdef Str value
    cdef int rc
    length[0] = 0
    if not s.passes_body:
        return 0
    if s.body is not None:
        rc = evaluate(s.body, r, &value)
        if rc < 0:
            return rc
        length[0] = value.n
    elif r.body_kind == BODY_LENGTH:
        length[0] = r.head.content_length
    elif r.body_kind == BODY_CHUNKED:
        length[0] = r.body_n if r.is_body_done else -1
    return 0


cdef inline bint says_length(ProxySettings s, Request r, int64_t length) noexcept:
    return (length != 0 or r.body_kind != BODY_NONE or s.body is not None
            or (r.head.content_length == 0 and r.method == r.head.method))


cdef inline bint is_passed(
    ProxySettings s, Request r, const Field* f, uint64_t replaced
) noexcept:
    """Does a field of the client go on? (Upgrade only where it was taken out of `replaced`.)"""
    if f.id:
        if replaced >> f.id & 1:
            return False
        return not f.flags or f.id == F_UPGRADE
    if f.flags:
        return False
    return len(s.replaced_names) == 0 or (
        lowered(name_of(&r.head, f)) not in s.replaced_names)


cdef int write_request_head(
    ProxySettings s, Request r, char* out, size_t cap, int64_t* length
) noexcept:
    cdef char* at = out
    cdef char* end = out + cap
    cdef Str value
    cdef Field* f
    cdef uint32_t i
    cdef int rc
    cdef bint is_upgrade = s.passes_upgrade and r.head.flags & H_UPGRADE
    cdef uint64_t replaced = s.replaced
    if r.head.size + 1024 > cap:
        return NO_MEMORY
    # request line
    rc = method_of(s, r, &value)
    if rc < 0:
        return rc
    at = put_str(at, value)
    at[0] = c" "
    at += 1
    rc = put_target(s, r, &at, end)
    if rc < 0:
        return rc
    if end - at < <int64_t>r.head.size + 512:
        return NO_MEMORY
    at = put_bytes(at, b" HTTP/1.1\r\n" if s.version == 11 else b" HTTP/1.0\r\n", 11)
    # what the conf sets
    for i in range(s.n_ops):
        rc = evaluate(<Template>s.ops[i].value, r, &value)
        if rc < 0:
            return rc
        if value.n == 0:
            continue
        if s.ops[i].id == F_CONNECTION and is_upgrade:
            continue
        if <size_t>(end - at) < s.ops[i].name.n + value.n + 512:
            return NO_MEMORY
        at = put_field(at, s.ops[i].name, value)
    if is_upgrade:
        at = put_bytes(at, b"Connection: upgrade\r\n", 21)
        replaced &= ~(<uint64_t>1 << F_UPGRADE)
    # the body's framing
    rc = length_of(s, r, length)
    if rc < 0:
        return rc
    if length[0] < 0:
        at = put_bytes(at, b"Transfer-Encoding: chunked\r\n", 28)
    elif says_length(s, r, length[0]):
        at = put_bytes(at, b"Content-Length: ", 16)
        at = put_end(put_decimal(at, <uint64_t>length[0]))
    # the client's fields
    if s.passes_fields:
        for i in range(r.head.n_fields):
            f = &r.head.fields[i]
            if not is_passed(s, r, f, replaced):
                continue
            if <size_t>(end - at) < <size_t>f.name_n + f.value_n + 64:
                return NO_MEMORY
            at = put_end(put_str(put_bytes(put_str(at, name_of(&r.head, f)), b": ", 2),
                                 value_of(&r.head, f)))
    at = put_end(at)
    return <int>(at - out)


cdef int write_request_block(
    ProxySettings s, Request r, bint is_tls, char* out, size_t cap, int64_t* length
) noexcept:
    cdef char* at = out
    cdef char* end = out + cap
    cdef char* aside = out + cap // 2            # used up before the block comes so far
    cdef char[32] digits
    cdef Str value
    cdef Field* f
    cdef uint32_t i
    cdef int rc
    cdef bint has_te = False
    if r.head.size + 2048 > cap // 2:
        return NO_MEMORY
    rc = method_of(s, r, &value)
    if rc < 0:
        return rc
    at = put_known(at, P_METHOD, value)
    at = put_known(at, P_SCHEME, text(b"https", 5) if is_tls else text(b"http", 4))
    value.p = aside
    rc = put_target(s, r, &aside, end)
    if rc < 0:
        return rc
    value.n = <uint32_t>(aside - value.p)
    at = put_known(at, P_PATH, value)
    for i in range(s.n_ops):
        if NOT_FOR_H2 >> s.ops[i].id & 1:
            continue
        rc = evaluate(<Template>s.ops[i].value, r, &value)
        if rc < 0:
            return rc
        if value.n == 0:
            continue
        if <size_t>(end - at) < s.ops[i].name.n + value.n + MAX_WRITTEN:
            return NO_MEMORY
        value = cleaned(r, value)
        has_te |= s.ops[i].id == F_TE
        if s.ops[i].id == F_HOST and not s.sets_host:
            at = put_known(at, P_AUTHORITY, value)
        else:
            at = put_literal(at, static_of_id[s.ops[i].id & 63] if s.ops[i].id else 0,
                             s.ops[i].name, value, False)
    rc = length_of(s, r, length)
    if rc < 0:
        return rc
    if <size_t>(end - at) < r.head.size + r.head.n_fields * MAX_WRITTEN + 128:
        return NO_MEMORY
    if length[0] >= 0 and says_length(s, r, length[0]):
        value = text(digits, put_decimal(digits, <uint64_t>length[0]) - digits)
        at = put_literal(at, static_of_id[<int>F_CONTENT_LENGTH], value, value, False)
    if (s.is_grpc or r.asked != NULL) and r.head.flags & H_TE_TRAILERS and not has_te:
        at = put_literal(at, 0, text(b"te", 2), text(b"trailers", 8), False)
    if s.passes_fields:
        for i in range(r.head.n_fields):
            f = &r.head.fields[i]
            if is_passed(s, r, f, s.replaced):
                at = put_literal(at, static_of_id[f.id & 63] if f.id else 0, name_of(&r.head, f),
                                 value_of(&r.head, f), f.id == F_AUTHORIZATION)
    return <int>(at - out)


cdef inline char* put_known(char* out, PseudoId id, Str value) noexcept:
    return put_literal(out, STATIC_OF_PSEUDO[<int>id - <int>P_AUTHORITY], value, value, False)


cdef int shape_answer(ProxySettings s, Request r) noexcept:
    cdef Head* h = &r.answer
    cdef Field* f
    cdef uint16_t i
    cdef uint64_t seen = 0
    cdef int rc
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.id:
            if ONCE >> f.id & 1:                 # nginx: duplicate header line ignored
                if seen >> f.id & 1:
                    f.flags |= F_IS_HIDDEN
                    continue
                seen |= <uint64_t>1 << f.id
            if s.hidden >> f.id & 1:
                f.flags |= F_IS_HIDDEN
            elif f.id == F_LOCATION or f.id == F_REFRESH:
                if s.redirects is not None:
                    rc = rewrite_field(s.redirects, r, f, f.id == F_REFRESH)
                    if rc < 0:
                        return rc
            elif f.id == F_SET_COOKIE and s.cookie_rules is not None:
                rc = rewrite_field(s.cookie_rules, r, f, False)
                if rc < 0:
                    return rc
        elif len(s.hidden_names) and lowered(name_of(h, f)) in s.hidden_names:
            f.flags |= F_IS_HIDDEN
    return 0


cdef bint wants_hints(ProxySettings s, Request r) noexcept:
    cdef Template template
    cdef Str value
    cdef Field* f
    cdef uint16_t i
    cdef bint is_wanted = False
    for template in s.hints:
        if evaluate(template, r, &value) < 0:
            return False
        is_wanted |= value.n > 1 or value.n == 1 and value.p[0] != c"0"
    for i in range(r.answer.n_fields if is_wanted else 0):
        f = &r.answer.fields[i]
        if f.id and s.hidden >> f.id & 1 or f.id == 0 and len(s.hidden_names) and (
                lowered(name_of(&r.answer, f)) in s.hidden_names):
            f.flags |= F_IS_HIDDEN
    return is_wanted


cdef int rewrite_field(object rules, Request r, Field* f, bint is_refresh) noexcept:
    """Ask the rules (a callable: request, bytes, is_refresh → bytes or None); -1 is a fault."""
    cdef bytes new
    cdef Str name
    cdef Str value
    try:
        new = rules(r, to_bytes(value_of(&r.answer, f)), is_refresh)
    except Exception as error:
        tell_error(R_ALERT, r, "rewriting a field of the answer", error)
        return INTERNAL
    if new is None:
        return 0
    name = copy(&r.arena, name_of(&r.answer, f))
    value = copy(&r.arena, of_bytes(new))
    f.flags |= F_IS_HIDDEN
    return 0 if r.add_field(name, value, f.id) != NULL else NO_MEMORY


cdef Str obey_accel(ProxySettings s, Request r) noexcept:
    cdef Head* h = &r.answer
    cdef Field* f
    cdef Str value
    cdef Str redirect
    cdef uint16_t i
    cdef uint32_t j
    cdef uint64_t rate
    redirect.p = NULL
    redirect.n = 0
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not F_X_ACCEL_REDIRECT <= f.id <= F_X_ACCEL_LIMIT_RATE or not s.obeyed >> f.id & 1:
            continue
        value = value_of(h, f)
        if f.id == F_X_ACCEL_REDIRECT:
            redirect = value
        elif f.id == F_X_ACCEL_BUFFERING:
            if value.n == 2 and is_same_word(value.p, b"no", 2):
                r.buffer_answer = 1
            elif value.n == 3 and is_same_word(value.p, b"yes", 3):
                r.buffer_answer = 2
        elif f.id == F_X_ACCEL_LIMIT_RATE and 0 < value.n <= 18:
            rate = 0
            for j in range(value.n):
                if not 48 <= value.p[j] <= 57:
                    break
                rate = rate * 10 + <uint64_t>(value.p[j] - 48)
            else:
                r.limit_rate = rate
    return redirect


cdef uint64_t TAKEN_ALONG = (
    1 << F_CONTENT_TYPE | 1 << F_SET_COOKIE | <uint64_t>1 << F_CONTENT_DISPOSITION
    | 1 << F_CACHE_CONTROL | 1 << F_EXPIRES | 1 << F_ACCEPT_RANGES
)


cdef int keep_for_redirect(Request r) noexcept:
    cdef Field* f
    cdef uint16_t i
    if r.keep_answer() < 0:
        return NO_MEMORY
    r.n_out = 0
    for i in range(r.answer.n_fields):
        f = &r.answer.fields[i]
        if f.id and TAKEN_ALONG >> f.id & 1:
            if r.add_field(name_of(&r.answer, f), value_of(&r.answer, f), f.id) == NULL:
                return NO_MEMORY
    return 0
