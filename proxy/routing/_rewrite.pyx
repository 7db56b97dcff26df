# Runs the rewrite directives of a server or location, in the order of the conf.
# nginx: ngx_http_rewrite_module, ngx_http_script.

from cpython.object cimport PyObject
from cython cimport final
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memmove, memset

from proxy.base._arena cimport take
from proxy.base._escape cimport (
    ESCAPE_ARGS, UNESCAPE_REDIRECT, escape_uri, escaped_size, unescape_uri)
from proxy.base._request cimport HANDLE_FILES, HANDLE_PROXY, MAX_REDIRECTS, Location, Request
from proxy.base.head cimport F_LOCATION
from proxy.base.span cimport Str, is_equal, text
from proxy.base.verdict cimport DONE, GO, INTERNAL, NO_MEMORY, REDIRECT_LOOP
from proxy.variables._variables cimport (
    CAPTURE, Regex, Template, evaluate, find_segment, find_value, keep,
    match_regex, put_value)


cdef extern from "<sys/stat.h>" nogil:
    struct stat_t "stat":
        unsigned int st_mode
    int file_stat "stat"(const char*, stat_t*)


cdef enum:
    S_IFMT = 0o170000
    S_IFDIR = 0o040000
    S_IFREG = 0o100000
    S_IXUSR = 0o100


cdef enum Code:
    O_SET = 0
    O_IF_VALUE = 1
    O_IF_EQUAL = 2
    O_IF_MATCH = 3
    O_IF_FILE = 4
    O_ENTER = 5           # the `if` holds: its Location is the request's
    O_REWRITE = 6
    O_RETURN = 7
    O_BREAK = 8


cdef enum OpFlag:
    OP_LAST = 1           # of a rewrite: nothing after it is run
    OP_BREAK = 2          # the same, and the location stays
    OP_REDIRECT = 4
    OP_ADD_ARGS = 8       # the request's own arguments are put behind
    OP_HAS_ARGS = 16      # the replacement has a "?" of its own
    OP_HAS_TEXT = 32      # of a return


@final
cdef class Program:
    """Ops of one block; rewrite.py fills it. Positions are numbers of ops."""

    def __cinit__(self, bint is_server=False):
        self.is_server = is_server
        self.held = []

    def __dealloc__(self):
        free(self.ops)

    cdef Op* append(self, uint8_t code, object what) except NULL:
        cdef Op* grown = <Op*>realloc(self.ops, (self.n + 1) * sizeof(Op))
        if grown == NULL:
            raise MemoryError
        self.ops = grown
        grown = &grown[self.n]
        memset(grown, 0, sizeof(Op))
        grown.code = code
        if what is not None:
            self.held.append(what)
            grown.what = <PyObject*>what
        self.n += 1
        return grown

    def add_set(self, uint32_t number, Template value not None):
        """set $variable value"""
        self.append(O_SET, value).number = number

    def add_if_value(self, uint32_t number):
        """if ($variable): position, for `skip_to_here`. The same for the other conditions."""
        self.append(O_IF_VALUE, None).number = number
        return self.n - 1

    def add_if_equal(self, uint32_t number, Template value not None, bint is_not):
        cdef Op* op = self.append(O_IF_EQUAL, value)
        op.number = number
        op.is_not = is_not
        return self.n - 1

    def add_if_match(self, uint32_t number, Regex regex not None, bint is_not):
        cdef Op* op = self.append(O_IF_MATCH, regex)
        op.number = number
        op.is_not = is_not
        return self.n - 1

    def add_if_file(self, str kind, Template path not None, bint is_not):
        """`kind`: one of f d e x."""
        cdef Op* op = self.append(O_IF_FILE, path)
        op.flags = <uint8_t>ord(kind)
        op.is_not = is_not
        return self.n - 1

    def add_enter(self, Location location not None):
        """What follows is inside an `if` in a location, whose settings these are."""
        self.append(O_ENTER, location)

    def skip_to_here(self, uint32_t position):
        """The condition at `position`, when false, goes on with what is added next."""
        self.ops[position].next = self.n

    def add_rewrite(self, Regex regex not None, list pieces not None, *, uint16_t status=0,
                    bint is_last=False, bint is_break=False, bint is_adding_args=True,
                    bint has_args=False):
        """`pieces`: Templates of the replacement, parted at each "?" (a redirect's is one, with
        `has_args` for its "?"). A status redirects."""
        cdef Op* op
        self.held.append(pieces)
        self.held.append(regex)
        op = self.append(O_REWRITE, pieces)
        op.pattern = <PyObject*>regex
        op.status = status
        op.flags = ((OP_LAST if is_last or is_break or status else 0)
                    | (OP_BREAK if is_break else 0) | (OP_REDIRECT if status else 0)
                    | (OP_ADD_ARGS if is_adding_args else 0)
                    | (OP_HAS_ARGS if has_args else 0))

    def add_return(self, uint16_t status, Template answer=None):
        cdef Op* op = self.append(O_RETURN, answer)
        op.status = status
        op.flags = OP_HAS_TEXT if answer is not None else 0

    def add_break(self):
        self.append(O_BREAK, None)


cdef bint is_quoted(Request r) noexcept:
    # Did the path come with percent-encoded bytes or a "+"? Then captures are encoded again.
    cdef uint32_t i
    for i in range(r.target.n):
        if r.target.p[i] == c"?":
            return False
        if r.target.p[i] == c"%" or r.target.p[i] == c"+":
            return True
    return False


cdef int join(Request r, list pieces, uint32_t quoted_from, uint32_t spare, Str* out,
              uint32_t* args_at) noexcept:
    # Evaluate pieces one behind the other, with room for `spare` bytes more. Captures in
    # pieces from quoted_from on are escaped. args_at: where the last piece begins.
    cdef Py_ssize_t k
    cdef Py_ssize_t n_pieces = len(pieces)
    cdef uint32_t i
    cdef uint32_t count = 0
    cdef uint32_t at = 0
    cdef size_t total = spare
    cdef Template t
    cdef Str* parts
    cdef uint8_t* is_escaped
    cdef char* p
    cdef int rc
    for k in range(n_pieces):
        count += (<Template>pieces[k]).n_segments
    parts = <Str*>take(&r.arena, count * (sizeof(Str) + 1))
    if parts == NULL:
        return NO_MEMORY
    is_escaped = <uint8_t*>(parts + count)
    for k in range(n_pieces):
        t = <Template>pieces[k]
        for i in range(t.n_segments):
            rc = find_segment(t, i, r, &parts[at])
            if rc < 0:
                return rc
            if rc == 0:
                parts[at].n = 0
            is_escaped[at] = k >= quoted_from and t.segments[i].kind == CAPTURE
            if is_escaped[at]:
                total += escaped_size(parts[at].p, parts[at].n, ESCAPE_ARGS)
            else:
                total += parts[at].n
            at += 1
    p = <char*>take(&r.arena, total)
    if p == NULL:
        return NO_MEMORY
    out.p = p
    at = 0
    for k in range(n_pieces):
        args_at[0] = <uint32_t>(p - out.p)
        for _ in range((<Template>pieces[k]).n_segments):
            if is_escaped[at]:
                p += escape_uri(p, parts[at].p, parts[at].n, ESCAPE_ARGS)
            elif parts[at].n:
                memcpy(p, parts[at].p, parts[at].n)
                p += parts[at].n
            at += 1
    out.n = <uint32_t>(p - out.p)
    return 0


cdef int evaluate_quoted(Template t, Request r, bint is_quoting, Str* out) noexcept:
    # set and if escape captures, until a rewrite of the same block matched (as nginx)
    cdef uint32_t at
    if is_quoting and t.has_captures and is_quoted(r):
        return join(r, [t], 0, 0, out, &at)
    return evaluate(t, r, out)


cdef bint is_file_so(Request r, Str path, uint8_t kind, bint* fault) noexcept:
    cdef stat_t found
    cdef char* name
    if path.n == 0 or path.n > 4095 or memchr(path.p, 0, path.n) != NULL:
        return False
    name = <char*>take(&r.arena, path.n + 1)
    if name == NULL:
        fault[0] = True
        return False
    memcpy(name, path.p, path.n)
    name[path.n] = 0
    if file_stat(name, &found) != 0:
        return False
    if kind == c"f":
        return found.st_mode & S_IFMT == S_IFREG
    if kind == c"d":
        return found.st_mode & S_IFMT == S_IFDIR
    if kind == c"x":
        return found.st_mode & S_IXUSR != 0
    return found.st_mode & S_IFMT == S_IFREG or found.st_mode & S_IFMT == S_IFDIR


cdef int encode_controls(Request r, Str* value) noexcept:
    # A decoded path may hold CR and LF: in a field they would begin another one, so they are
    # percent-encoded (RFC 9110 §5.5). nginx sends them; nobody can want that.
    cdef uint32_t i
    cdef uint32_t count = 0
    cdef char* p
    cdef uint8_t c
    for i in range(value.n):
        c = <uint8_t>value.p[i]
        count += c < 32 or c == 127
    if count == 0:
        return 0
    p = <char*>take(&r.arena, value.n + 2 * count)
    if p == NULL:
        return NO_MEMORY
    count = 0
    for i in range(value.n):
        c = <uint8_t>value.p[i]
        if c < 32 or c == 127:
            p[count] = c"%"
            p[count + 1] = b"0123456789ABCDEF"[c >> 4]
            p[count + 2] = b"0123456789ABCDEF"[c & 15]
            count += 3
        else:
            p[count] = <char>c
            count += 1
    value[0] = text(p, count)
    return 0


cdef int put_location(Request r, Str value) noexcept:
    cdef uint16_t i
    cdef uint16_t n = 0
    if encode_controls(r, &value) < 0:
        return NO_MEMORY
    for i in range(r.n_out):
        if r.out[i].id != F_LOCATION:
            r.out[n] = r.out[i]
            n += 1
    r.n_out = n
    return 0 if r.add_field(text("Location", 8), value, F_LOCATION) != NULL else NO_MEMORY


cdef int redirect(Op* op, Request r) noexcept:
    cdef Str made
    cdef uint32_t n
    cdef uint32_t used = 0
    cdef uint32_t at
    cdef char* p
    cdef int rc = join(r, <list>op.what, 0 if is_quoted(r) else 0xFFFFFFFF, r.args.n + 1,
                       &made, &at)
    if rc < 0:
        return rc
    p = <char*>made.p
    n = unescape_uri(p, p, made.n, UNESCAPE_REDIRECT, &used)
    if used < made.n:
        memmove(p + n, p + used, made.n - used)
        n += made.n - used
    if op.flags & OP_ADD_ARGS and r.args.n:
        p[n] = c"&" if op.flags & OP_HAS_ARGS else c"?"
        memcpy(p + n + 1, r.args.p, r.args.n)
        n += r.args.n + 1
    made.n = n
    r.status = op.status
    rc = put_location(r, made)
    return rc if rc < 0 else REWRITE_STATUS


cdef int replace_uri(Op* op, Request r) noexcept:
    cdef Str made
    cdef uint32_t at
    cdef char* p
    cdef int rc = join(r, <list>op.what, 1 if is_quoted(r) else 0xFFFFFFFF, r.args.n + 1,
                       &made, &at)
    if rc < 0:
        return rc
    r.is_internal = 1
    r.is_rewritten = 1
    if op.flags & OP_HAS_ARGS:
        if op.flags & OP_ADD_ARGS and r.args.n:
            p = <char*>made.p
            p[made.n] = c"&"
            memcpy(p + made.n + 1, r.args.p, r.args.n)
            made.n += r.args.n + 1
        r.args = text(made.p + at, made.n - at)
        made.n = at
    elif not op.flags & OP_ADD_ARGS:
        r.args.n = 0
    r.uri = made
    return 0 if made.n else INTERNAL


cdef int give_back(Op* op, Request r) noexcept:
    cdef Str answer
    cdef int rc
    cdef bint is_redirect = op.status in (301, 302, 303, 307, 308)
    answer = text("", 0)
    if op.flags & OP_HAS_TEXT:
        rc = evaluate(<Template>op.what, r, &answer)
        if rc < 0:
            return rc
        if is_redirect and put_location(r, answer) < 0:
            return NO_MEMORY
    if is_redirect or (op.status >= 400 and not op.flags & OP_HAS_TEXT):
        r.status = op.status
        return REWRITE_STATUS
    r.status = op.status
    r.text = answer
    return DONE


cdef int run(Program program, Request r) noexcept:
    cdef uint32_t at = 0
    cdef Op* op
    cdef Str value
    cdef Str other
    cdef bint is_true
    cdef bint is_changed = False
    cdef bint is_quoting = True
    cdef bint fault = False
    cdef int rc
    while at < program.n:
        op = &program.ops[at]
        at += 1
        if op.code == O_SET:
            rc = evaluate_quoted(<Template>op.what, r, is_quoting, &value)
            if rc == 0 and r is not r.main:
                value = keep(r, value)
            if rc == 0:
                rc = put_value(r, op.number, value)
            if rc < 0:
                return rc
        elif op.code <= O_IF_FILE:
            if op.code == O_IF_FILE:
                rc = evaluate_quoted(<Template>op.what, r, is_quoting, &value)
            else:
                rc = find_value(r, op.number, &value)
                if rc == 0:
                    value.n = 0
            if rc < 0:
                return rc
            if value.n == 0:
                value.p = ""
            if op.code == O_IF_VALUE:
                is_true = value.n != 0 and not (value.n == 1 and value.p[0] == c"0")
            elif op.code == O_IF_EQUAL:
                rc = evaluate_quoted(<Template>op.what, r, is_quoting, &other)
                if rc < 0:
                    return rc
                is_true = is_equal(value, other)
            elif op.code == O_IF_MATCH:
                rc = match_regex(<Regex>op.what, r, value)
                if rc < 0:
                    return rc
                if rc == 0:
                    r.captures.n = 0
                is_true = rc == 1
            else:
                is_true = is_file_so(r, value, op.flags, &fault)
                if fault:
                    return NO_MEMORY
            if is_true == op.is_not:
                at = op.next
        elif op.code == O_ENTER:
            # an `if` before it passes to an upstream, of which this one knows nothing (nginx)
            if r.location.handler_kind == HANDLE_PROXY and (
                    (<Location>op.what).handler_kind == HANDLE_FILES):
                return INTERNAL
            r.location = <Location>op.what
        elif op.code == O_REWRITE:
            rc = match_regex(<Regex>op.pattern, r, r.uri)
            if rc < 0:
                return rc
            if rc == 0:
                r.captures.n = 0
                continue
            if op.flags & OP_REDIRECT:
                return redirect(op, r)
            rc = replace_uri(op, r)
            if rc < 0:
                return rc
            is_quoting = False
            is_changed = True
            if op.flags & OP_BREAK:
                r.uri_in_proxy = 1
                is_changed = False
            if op.flags & OP_LAST:
                break
        elif op.code == O_RETURN:
            return give_back(op, r)
        else:
            if is_changed:
                r.uri_in_proxy = 1
                is_changed = False
            break
    # the server's own rewrites come before the first search: nothing to do again
    if not is_changed or program.is_server:
        return GO
    r.redirects += 1
    if r.redirects > MAX_REDIRECTS:
        return REDIRECT_LOOP
    return REWRITE_AGAIN


def run_on(Program program not None, Request r not None):
    """run(), for tests: "go", "again", "status", "done", or the number of a fault."""
    cdef int rc = run(program, r)
    if rc < 0:
        return rc
    return {GO: "go", REWRITE_AGAIN: "again", REWRITE_STATUS: "status", DONE: "done"}[rc]
