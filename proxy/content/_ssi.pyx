# Reads an answer's body for <!--#commands --> and sends what they stand for, in order.
#
# Sub-requests of one page run side by side; each keeps its place in the queue of what is to be
# sent, and holds back at most HELD_BYTES before its turn. nginx: ngx_http_ssi_module.

from cython cimport final
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from proxy.base._arena cimport take
from proxy.base._escape cimport ESCAPE_HTML, escape_uri, escaped_size
from proxy.base._clock cimport clock
from proxy.base._pcre cimport Pattern
from proxy.base._request cimport BLOCKED, BodyFilter, Request
from proxy.base._told cimport R_ALERT, tell_error
from proxy.base.head cimport *
from proxy.base.span cimport Str, of_bytes, text, to_bytes
from proxy.base.verdict cimport INTERNAL, NO_MEMORY
from proxy.variables._variables cimport NO_CACHE, declare, find_number, find_value

from collections import deque
from re import DOTALL
from re import compile as compile_pattern

from proxy.base._escape import unescape
from proxy.variables._variables import declared, numbers, prefixes

cdef extern from "<time.h>" nogil:
    struct tm:
        pass
    tm* localtime_r(const long*, tm*)
    tm* gmtime_r(const long*, tm*)
    size_t strftime(char*, size_t, const char*, const tm*)

cdef enum:
    HELD_BYTES = 65536        # of one sub-request before its turn, and of input before it is read
    MOST_COMMAND = 16384      # bytes of one command
    MOST_NESTED = 32          # if inside if
    MOST_NAMES = 4096         # variables of the conf and of pages together
    MOST_SHARED = 1 << 20     # bytes of variables and blocks of one request

START = b"<!--#"
COMMAND = compile_pattern(
    rb"<!--#\s*+([A-Za-z]++)((?:\s++[A-Za-z]++\s*+=\s*+"
    rb"(?:\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'))*+)\s*+-->", DOTALL)
PARAMETER = compile_pattern(
    rb"([A-Za-z]++)\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*+)\"|'((?:[^'\\]|\\.)*+)')", DOTALL)
PIECE = compile_pattern(rb"\\([\\'\"$])|\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))", DOTALL)
EXPRESSION = compile_pattern(rb"\s*([^=!]*?)\s*(!?=)\s*(.*?)\s*", DOTALL)
ENTITIES = {38: b"&amp;", 60: b"&lt;", 62: b"&gt;", 34: b"&quot;"}
KNOWN = {
    b"include": {b"virtual", b"file", b"wait", b"set", b"stub"},
    b"echo": {b"var", b"default", b"encoding"},
    b"config": {b"errmsg", b"timefmt"},
    b"set": {b"var", b"value"},
    b"if": {b"expr"}, b"elif": {b"expr"}, b"else": set(), b"endif": set(),
    b"block": {b"name"}, b"endblock": set(),
}


class CommandError(Exception):
    """A command that cannot be obeyed; the page says so at its place."""


@final
cdef class Shared:
    """What all pages of one request of a client know together."""
    cdef dict variables       # name, lower case → bytes
    cdef dict blocks          # name → bytes
    cdef list captures        # of the last regex
    cdef Py_ssize_t size
    cdef bytes errmsg
    cdef bytes timefmt

    def __cinit__(self):
        self.variables = {}
        self.blocks = {}
        self.captures = []
        self.errmsg = b"[an error occurred while processing the directive]"
        self.timefmt = b"%A, %d-%b-%Y %H:%M:%S %Z"

    cdef int put(self, dict where, bytes name, bytes value) except -1:
        self.size += len(name) + len(value)
        if self.size > MOST_SHARED:
            raise CommandError("too much is set")
        where[name] = value
        return 0


@final
cdef class Included:
    """The place of a sub-request's answer in the output."""
    cdef Request sub          # that waits for room
    cdef list pieces          # bytes that came and were not sent
    cdef Py_ssize_t size
    cdef bint is_over
    cdef bint is_held         # it waits for room
    cdef bint is_any          # a byte came
    cdef bytes stub           # None: its own error page stands
    cdef bytes variable       # include … set, else None


cdef class SsiSettings:
    pass


@final
cdef class SsiFilter(BodyFilter):
    cdef SsiSettings s
    cdef Shared shared
    cdef bytes rest           # of the input, not understood yet
    cdef object queue         # deque of bytes and Included, as they are to be sent
    cdef Included awaited     # nothing more is understood before it is over
    cdef list ifs             # of each open `if`: (is the outer one active, was one true)
    cdef bint is_active       # what is here now is output
    cdef bytes block          # name of the block that is being defined, or None
    cdef list block_pieces
    cdef bint is_busy

    def __cinit__(self):
        self.rest = b""
        self.queue = deque()
        self.ifs = []
        self.is_active = True

    # ---------------------------------------------------------------- what the conductor calls

    cdef int body(self, Request r, const char* p, size_t n) noexcept:
        cdef bint was_busy = self.is_busy
        cdef int rc = 0
        self.is_busy = True
        try:
            self.rest = self.rest + p[:n]
            self.read(r)
        except Exception as error:
            tell_error(R_ALERT, r, "reading a document with SSI", error)
            rc = INTERNAL
        self.is_busy = was_busy
        return rc if rc < 0 else self.pump(r)

    cdef int end(self, Request r) noexcept:
        cdef int rc = 0
        if not self.is_ended:
            self.is_ended = True
            try:
                self.read(r)
            except Exception as error:
                tell_error(R_ALERT, r, "reading a document with SSI", error)
                rc = INTERNAL
        if rc == 0:
            rc = self.pump(r)
        return rc if rc or self.next is None else self.next.end(r)

    cdef int pump(self, Request r) noexcept:
        cdef bint was_busy = self.is_busy
        cdef int rc
        if was_busy:
            return BLOCKED
        self.is_busy = True
        try:
            rc = self.send_queue(r)
        except Exception as error:
            tell_error(R_ALERT, r, "reading a document with SSI", error)
            rc = INTERNAL
        self.is_busy = was_busy
        if rc == 0 and (self.awaited is not None or len(self.rest) > HELD_BYTES):
            return BLOCKED
        return rc

    cdef int send_queue(self, Request r) except? INTERNAL:
        cdef Included it
        cdef int rc
        while self.queue:
            head = self.queue[0]
            if type(head) is bytes:
                self.queue.popleft()
                rc = self.give(r, head)
                if rc:
                    return rc
                continue
            it = <Included>head
            while it.pieces:
                piece = it.pieces.pop(0)
                it.size -= len(piece)
                rc = self.give(r, piece)
                if rc:
                    return rc
            if it.is_over:
                self.queue.popleft()
            elif it.is_held:
                it.is_held = False
                r.conductor.go_on(it.sub)
                if not it.pieces and not it.is_over:
                    return BLOCKED
            else:
                return BLOCKED
        return 0

    cdef int give(self, Request r, bytes piece) noexcept:
        if not piece:
            return 0
        if self.next is not None:
            return self.next.body(r, piece, <size_t>len(piece))
        return r.stream.send_body(r, piece, <size_t>len(piece))

    cdef int on_sub_body(self, Request sub, const char* p, size_t n) noexcept:
        cdef Included it = <Included>sub.sub_tag
        cdef bint is_error = sub.is_answer_ours and sub.status >= 300
        if it.stub is not None and is_error:
            return 0
        try:
            it.pieces.append(p[:n])
        except Exception:
            return NO_MEMORY
        it.is_any = True
        it.size += <Py_ssize_t>n
        if it.variable is not None:
            if it.size > self.s.most_set:
                it.pieces.clear()            # too large to be a variable: it stays empty
                it.size = 0
            return 0
        if not self.is_busy and self.pump(sub.parent) < 0:
            return INTERNAL
        if it.size > HELD_BYTES:
            it.is_held = True
            it.sub = sub
            return BLOCKED
        return 0

    cdef void on_sub(self, Request sub) noexcept:
        cdef Included it = <Included>sub.sub_tag
        cdef Request r = sub.parent
        cdef bint is_waited = self.awaited is it
        it.is_over = True
        it.sub = None
        try:
            if it.stub is not None and not it.is_any:
                it.pieces.append(it.stub)
            if it.variable is not None:
                self.shared.put(self.shared.variables, it.variable, b"".join(it.pieces))
        except Exception as error:
            tell_error(R_ALERT, r, "taking what SSI included", error)
        if is_waited:
            self.awaited = None
        if self.is_busy:                         # whoever is at work sees that it is over
            return
        if is_waited:
            self.is_busy = True
            try:
                self.read(r)
            except Exception as error:
                tell_error(R_ALERT, r, "reading a document with SSI", error)
                self.is_ended = True
            self.is_busy = False
        r.conductor.go_on(r)

    # ---------------------------------------------------------------- reading commands

    cdef int read(self, Request r) except -1:
        """Understand what came; stops at a command that has to be waited for."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t start
        cdef bytes rest = self.rest
        cdef Py_ssize_t size = len(rest)
        while at < size and self.awaited is None:
            start = rest.find(START, at)
            if start < 0:
                start = size
                if not self.is_ended:
                    start -= held_back(rest, at)
                self.put(rest[at:start])
                at = start
                break
            self.put(rest[at:start])
            at = start
            found = COMMAND.match(rest, start)
            if found is not None:
                at = found.end()
                self.obey(r, found[1].lower(), found[2])
                continue
            end = rest.find(b"-->", start)
            if end >= 0:
                at = end + 3
                if self.is_active:
                    self.put_error()
            elif size - start > MOST_COMMAND or self.is_ended:
                self.put(rest[start:])           # it never ends: then it is text
                at = size
            else:
                break
        self.rest = rest[at:]
        return 0

    cdef int put(self, bytes piece) except -1:
        if not piece or not self.is_active:
            return 0
        if self.block is not None:
            self.block_pieces.append(piece)
        else:
            self.queue.append(piece)
        return 0

    cdef int put_error(self) except -1:
        if not self.s.is_silent:
            self.put(self.shared.errmsg)
        return 0

    cdef int obey(self, Request r, bytes name, bytes words) except -1:
        given = {}
        try:
            for it in PARAMETER.finditer(words):
                given[it[1].lower()] = it[2] if it[2] is not None else it[3]
            if name not in KNOWN or given.keys() - KNOWN[name]:
                raise CommandError(name)
            if name in (b"if", b"elif", b"else", b"endif"):
                self.branch(r, name, given)
            elif not self.is_active:
                pass
            elif name == b"include":
                self.ask(r, given)
            elif name == b"echo":
                self.echo(r, given)
            elif name == b"set":
                self.shared.put(self.shared.variables, given[b"var"].lower(),
                                self.value_of(r, given[b"value"]))
            elif name == b"config":
                self.shared.errmsg = given.get(b"errmsg", self.shared.errmsg)
                self.shared.timefmt = given.get(b"timefmt", self.shared.timefmt)[:256]
            elif name == b"block":
                if self.block is not None:
                    raise CommandError(name)
                self.block = given[b"name"]
                self.block_pieces = []
            elif self.block is not None:         # endblock
                self.shared.put(self.shared.blocks, self.block, b"".join(self.block_pieces))
                self.block = None
                self.block_pieces = None
            else:
                raise CommandError(name)
        except (CommandError, KeyError, ValueError, OverflowError):
            if self.is_active:
                self.put_error()
        return 0

    cdef int branch(self, Request r, bytes name, dict given) except -1:
        if name == b"if":
            if len(self.ifs) >= MOST_NESTED:
                raise CommandError(name)
            outer = self.is_active
            is_true = outer and self.is_true(r, given[b"expr"])
            self.ifs.append((outer, is_true))
            self.is_active = is_true
            return 0
        if not self.ifs:
            raise CommandError(name)
        outer, was_true = self.ifs.pop()
        if name == b"endif":
            self.is_active = outer
            return 0
        is_true = outer and not was_true and (
            name == b"else" or self.is_true(r, given[b"expr"]))
        self.ifs.append((outer, was_true or is_true))
        self.is_active = is_true
        return 0

    cdef bint is_true(self, Request r, bytes expression) except -1:
        """`text`, `text = text`, `text != text`, or a /regex/ on the right."""
        found = EXPRESSION.fullmatch(expression)
        if found is None:
            return bool(self.value_of(r, expression.strip()))
        left = self.value_of(r, found[1])
        right = found[3]
        is_equal = found[2] == b"="
        if len(right) > 1 and right.startswith(b"/") and right.endswith(b"/"):
            pattern = Pattern(right[1:len(right) - 1])
            groups = pattern.match(left)
            if groups is not None:
                self.shared.captures = groups
                for name, number in pattern.names:
                    if number < len(groups):
                        self.shared.put(self.shared.variables, name.lower().encode(),
                                        groups[number])
            return (groups is not None) == is_equal
        return (left == self.value_of(r, right)) == is_equal

    cdef object find(self, Request r, bytes name):
        """The value of a variable: set here, a group, or one of the conf's; None without."""
        cdef Str value
        cdef uint32_t number
        name = name.lower()
        if name in self.shared.variables:
            return self.shared.variables[name]
        if name.isdigit():
            index = int(name) if len(name) < 3 else 99
            return self.shared.captures[index] if index < len(self.shared.captures) else None
        if name not in numbers and (len(numbers) >= MOST_NAMES or name not in declared and not any(
                name.startswith(prefix) and name != prefix for prefix in prefixes)):
            return None
        number = find_number(name)
        return to_bytes(value) if find_value(r, number, &value) == 1 else None

    cdef bytes value_of(self, Request r, bytes words):
        """Text with $variables and \\-escapes."""
        parts = []
        at = 0
        for it in PIECE.finditer(words):
            parts.append(words[at:it.start()])
            at = it.end()
            if it[1] is not None:
                parts.append(it[1])
            else:
                parts.append(self.find(r, it[2] or it[3]) or b"")
        parts.append(words[at:])
        return b"".join(parts)

    cdef int echo(self, Request r, dict given) except -1:
        value = self.find(r, given[b"var"])
        if value is None:
            self.put(given.get(b"default", b"(none)"))
            return 0
        encoding = given.get(b"encoding", b"entity").lower()
        if encoding == b"entity":
            value = b"".join([ENTITIES.get(byte, b"") or value[i:i + 1]
                              for i, byte in enumerate(value)])
        elif encoding == b"url":
            value = escaped(value)
        elif encoding != b"none":
            raise CommandError(encoding)
        self.put(value)
        return 0

    cdef int ask(self, Request r, dict given) except -1:
        cdef Included it
        cdef bytes path
        cdef bytes args
        if (b"virtual" in given) == (b"file" in given) or self.block is not None:
            raise CommandError("include")
        if b"set" in given and b"wait" in given:
            raise CommandError("include")
        path = self.value_of(r, given.get(b"virtual") or given.get(b"file"))
        path, _, args = path.partition(b"?")
        path = unescape(path)
        if not path.startswith(b"/"):
            base = to_bytes(r.uri)
            path = base[:base.rfind(b"/") + 1] + path
        if b"\0" in path or b".." in path.split(b"/") or not path:
            raise CommandError("unsafe URI")
        it = Included.__new__(Included)
        it.pieces = []
        if b"stub" in given:
            it.stub = self.shared.blocks[given[b"stub"]]
        if b"set" in given:
            it.variable = given[b"set"].lower()
            self.awaited = it
        else:
            if given.get(b"wait", b"no").lower() == b"yes":
                self.awaited = it
            self.queue.append(it)
        if r.conductor.ask_sub(r, of_bytes(path), of_bytes(args), self, it) < 0:
            it.is_over = True
            if self.awaited is it:
                self.awaited = None
            raise CommandError("too many")
        return 0


cdef Py_ssize_t held_back(bytes rest, Py_ssize_t at):
    """Bytes at the end that may begin a command."""
    cdef Py_ssize_t n = 4
    while n:
        if len(rest) - at >= n and rest.endswith(START[:n]):
            return n
        n -= 1
    return 0


cdef bytes escaped(bytes value):
    cdef const char* p = value
    cdef uint32_t n = <uint32_t>len(value)
    cdef bytes out = bytes(escaped_size(p, n, ESCAPE_HTML))
    if n:
        escape_uri(<char*><const char*>out, p, n, ESCAPE_HTML)
    return out


# -- the head ----------------------------------------------------------------------------

cdef bytes type_of_answer(Request r):
    cdef const Field* f
    cdef Str value = r.content_type
    if value.n == 0 and r.answer.fields != NULL and not r.is_answer_ours:
        f = find_field(&r.answer, F_CONTENT_TYPE)
        if f != NULL:
            value = value_of(&r.answer, f)
    return to_bytes(value).partition(b";")[0].strip().lower()


cdef int begin_ssi(SsiSettings s, Request r) noexcept:
    cdef SsiFilter filter
    cdef uint16_t i
    if r.length == 0 or r.is_upgraded:
        return 0
    try:
        if s.types is not None and type_of_answer(r) not in s.types:
            return 0
        if r.head.method != M_HEAD and r.status not in (204, 304):
            filter = SsiFilter.__new__(SsiFilter)
            filter.s = s
            if r.parent is not None and type(r.parent.filters) is SsiFilter:
                filter.shared = (<SsiFilter>r.parent.filters).shared
            else:
                filter.shared = Shared.__new__(Shared)
            filter.next = <BodyFilter>r.filters
            r.filters = filter
    except Exception as error:
        tell_error(R_ALERT, r, "beginning a document with SSI", error)
        return INTERNAL
    r.length = -1
    if not s.keeps_modified:
        r.last_modified = -1
    if r.answer.fields != NULL and not r.is_answer_ours:
        for i in range(r.answer.n_fields):
            if is_untrue(s, r.answer.fields[i].id):
                r.answer.fields[i].flags |= F_IS_HIDDEN
    for i in range(r.n_out):
        if is_untrue(s, r.out[i].id):
            r.out[i].name.n = 0
            r.out[i].id = 0
    return 0


cdef inline bint is_untrue(SsiSettings s, uint8_t id) noexcept:
    """What a changed body makes of a field: no ranges, no entity tag, no date."""
    return id == F_ACCEPT_RANGES or id == F_ETAG or id == F_LAST_MODIFIED and not s.keeps_modified


# -- $date_local, $date_gmt --------------------------------------------------------------

cdef int get_date(Request r, uint64_t is_gmt, Str* out) noexcept:
    cdef bytes format = b"%A, %d-%b-%Y %H:%M:%S %Z"
    cdef long now = <long>clock.wall_s
    cdef tm t
    cdef char* p = <char*>take(&r.arena, 512)
    cdef Request at = r
    if p == NULL:
        return NO_MEMORY
    while at is not None:
        if type(at.filters) is SsiFilter:
            format = (<SsiFilter>at.filters).shared.timefmt
            break
        at = at.parent
    if is_gmt:
        gmtime_r(&now, &t)
    else:
        localtime_r(&now, &t)
    if format == b"%s":
        format = str(now).encode()
    out[0] = text(p, <Py_ssize_t>strftime(p, 512, format, &t))
    return 1


declare(b"date_local", get_date, 0, NO_CACHE)
declare(b"date_gmt", get_date, 1, NO_CACHE)
