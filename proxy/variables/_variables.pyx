# The registry of names, the values that a request keeps, and compiled strings.
#
# Never called by name while requests run: numbers only. Evaluating never runs Python code.

from cython cimport final
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from proxy.base._arena cimport copy, take
from proxy.base._pcre cimport Pattern, group, match_into
from proxy.base._request cimport Request
from proxy.base.span cimport Str, of_bytes
from proxy.base.verdict cimport INTERNAL, NO_MEMORY

from proxy.base._pcre import PatternError
from proxy.conf.report import ConfError


cdef enum:
    CYCLE_DEPTH = 100         # getters inside getters: a map that asks for itself (as nginx)
    GATHERED = 24             # segments joined without a list in the arena
    NUMBERS_MAX = 16384       # names in one plan; their values must fit a request's arena


cdef enum ValueState:
    NOT_ASKED = 0
    FOUND = 1
    NOT_FOUND = 2


cdef struct Declared:
    Getter get
    Setter put
    uint64_t data
    uint8_t flags


cdef class Name:
    # One declared name or prefix; outlives every plan.
    cdef Declared how
    cdef bytes rest           # of a prefix's name, and the Str that data points to
    cdef Str rest_s


cdef Variable* table = NULL
cdef uint32_t n_variables = 0
cdef uint32_t cap_variables = 0
cdef int depth = 0

NUL = b"\0"
declared = {}                 # name: Name
prefixes = {}                 # prefix: Name
numbers = {}                  # name: number in this plan
places = {}                   # number: who asked for it first, while nobody defined it
kept = []                     # what getters' data points to in this plan
in_stream = {}                # name: Name, of what stream { } knows
prefixes_in_stream = {}       # prefix: Name
cdef bint is_stream = False   # what is compiled now stands in stream { }


# -- declaring ---------------------------------------------------------------------------

cdef int declare(bytes name, Getter get, uint64_t data, int flags) except -1:
    if name in declared and (<Name>declared[name]).how.get != NULL:
        raise ValueError(f"${name.decode()} is declared already")
    cdef Name it = declared.get(name) or Name()
    it.how.get = get
    it.how.data = data
    it.how.flags = <uint8_t>flags
    declared[name] = it
    return 0


cdef int declare_prefix(bytes prefix, Getter get, int flags) except -1:
    if prefix in prefixes:
        raise ValueError(f"${prefix.decode()}… is declared already")
    cdef Name it = Name()
    it.how.get = get
    it.how.flags = <uint8_t>flags
    prefixes[prefix] = it
    return 0


cdef int declare_setter(bytes name, Setter put) except -1:
    cdef Name it = declared.get(name) or Name()
    it.how.put = put
    declared[name] = it
    return 0


# -- numbers -----------------------------------------------------------------------------

def begin_plan():
    """Forget the numbers and the variables of the last plan; what rooms declared stays."""
    global n_variables
    n_variables = 0
    numbers.clear()
    places.clear()
    kept.clear()


def check_names():
    """When the whole conf is compiled: raises ConfError 'unknown "x" variable' for the first
    name that the conf uses and nobody defines."""
    cdef uint32_t number
    for number in range(n_variables):
        if not table[number].is_known:
            name = next(name for name, it in numbers.items() if it == number)
            raise ConfError(places.get(number), f'unknown "{_text(name.lstrip(NUL))}" variable')


cdef str _text(bytes name):
    return name.decode("utf-8", "surrogateescape")


def put_names(bint of_stream):
    """Whose names are compiled from now on: those of stream { }, or of http { }. They have one
    table of numbers, in which a name of stream stands behind a NUL."""
    global is_stream
    is_stream = of_stream


def tell_stream(bytes name not None, bytes declared_as not None):
    """stream { } knows what was declared under `declared_as` by the name `name`."""
    in_stream[name] = declared[declared_as]


def tell_stream_prefix(bytes prefix not None):
    """… and this family of names."""
    prefixes_in_stream[prefix] = prefixes[prefix]


def names_beginning(bytes prefix not None):
    """All names that are declared and begin so."""
    return [name for name in declared if name.startswith(prefix)]


cdef int find_number(bytes name) except -1:
    global table, n_variables, cap_variables
    if is_stream:
        name = b"\0" + name
    number = numbers.get(name)
    if number is not None:
        return number
    cdef Variable* grown
    cdef Name it
    if n_variables == cap_variables:
        if n_variables >= NUMBERS_MAX:
            raise ConfError(None, "too many variables")
        grown = <Variable*>realloc(table, (cap_variables * 2 + 64) * sizeof(Variable))
        if grown == NULL:
            raise MemoryError
        table = grown
        cap_variables = cap_variables * 2 + 64
    number = n_variables
    memset(&table[n_variables], 0, sizeof(Variable))
    n_variables += 1
    numbers[name] = number
    it = _declared(name)
    if it is not None:
        kept.append(it)
        _fill(number, it)
    return number


cdef int find_known(bytes name) except -2:
    name = name.lower()
    if name not in numbers and _declared(name) is None:
        return -1
    return find_number(name)


cdef Name _declared(bytes name):
    # Names are case-insensitive in nginx; a whole name goes before a family.
    cdef Name it
    if name[:1] == b"\0":
        it = in_stream.get(name[1:])
        return it if it is not None else _of_family(name[1:], prefixes_in_stream)
    if name in declared:
        it = declared[name]
        if it.how.get != NULL:
            return it
    return _of_family(name, prefixes)


cdef Name _of_family(bytes name, dict families):
    cdef Name it
    cdef Name family
    for prefix in families:
        if name.startswith(prefix):
            family = families[prefix]
            it = Name()
            it.how = family.how
            it.rest = name[len(prefix):]
            it.rest_s = of_bytes(it.rest)
            it.how.data = <uint64_t>&it.rest_s
            return it
    return None


cdef void _fill(uint32_t number, Name it) noexcept:
    cdef Variable* v = &table[number]
    v.get = it.how.get
    v.put = it.how.put
    v.data = it.how.data
    v.flags = it.how.flags
    v.is_known = 1


cdef int define(bytes name, Getter get, uint64_t data, int flags) except -1:
    """A variable of the conf's own; `get` NULL: only set, else the getter replaces an earlier
    one. Answers its number. ConfError (no place) when a room owns the name."""
    cdef Name it
    cdef int number
    cdef dict owned = in_stream if is_stream else declared
    name = name.lower()
    if name in owned:
        it = owned[name]
        if it.how.get != NULL:
            if not it.how.flags & CHANGEABLE:
                raise ConfError(None, f'the duplicate "{_text(name)}" variable')
            if get == NULL:
                return find_number(name)
    number = find_number(name)
    cdef Variable* v = &table[number]
    if get != NULL:
        v.get = get
        v.data = data
        v.flags = <uint8_t>(flags | CHANGEABLE)
    elif not v.is_known:
        # a name of a family ($http_x, $arg_x) keeps its getter for where nothing was set
        v.flags = CHANGEABLE
    v.is_known = 1
    return number


def number_of(name, place=None) -> int:
    """The number of variable `name` (without "$") in this plan."""
    cdef bytes raw = name.encode("utf-8", "surrogateescape").lower()
    cdef int number = find_number(raw)
    if not table[number].is_known:
        places.setdefault(number, place)
    return number


def define_stored(name, place=None) -> int:
    """Define a variable that is only set (`set`, a regex group, auth_request_set): its number.

    Raises ConfError when the name is one that nobody may change.
    """
    try:
        return define(name.encode("utf-8", "surrogateescape"), NULL, 0, 0)
    except ConfError as error:
        raise ConfError(place, error.message) from None


cdef int keep_alive(object thing) except -1:
    kept.append(thing)
    return 0


# -- values of a request -----------------------------------------------------------------

cdef Str* slot(Request m, uint32_t number) noexcept:
    # Where the main request keeps value `number`; makes the room. NULL: no memory. The count
    # that there is room for stands in front of the values.
    cdef uint32_t have = 0
    cdef uint32_t want
    cdef char* block
    if m.values != NULL:
        have = (<uint32_t*>m.values - 2)[0]
        if number < have:
            return &m.values[number]
    want = n_variables if n_variables > number else number + 1
    block = <char*>take(&m.arena, 8 + want * (sizeof(Str) + 1))
    if block == NULL:
        return NULL
    (<uint32_t*>block)[0] = want
    block += 8
    memset(block + want * sizeof(Str), 0, want)
    if have:
        memcpy(block, m.values, have * sizeof(Str))
        memcpy(block + want * sizeof(Str), m.value_states, have)
    m.values = <Str*>block
    m.value_states = <uint8_t*>block + want * sizeof(Str)
    return &m.values[number]


cdef int find_value(Request r, uint32_t number, Str* out) noexcept:
    global depth
    cdef Request m = r.main
    cdef Variable* v = &table[number]
    cdef Str* kept_value
    cdef int rc
    if m.values != NULL and number < (<uint32_t*>m.values - 2)[0]:
        if m.value_states[number] == FOUND:
            out[0] = m.values[number]
            return 1
        if m.value_states[number] == NOT_FOUND:
            out.p = NULL
            out.n = 0
            return 0
    out.p = ""
    out.n = 0
    if v.get == NULL:
        # set somewhere, but not on the way of this request: empty, as nginx
        return 1
    if depth >= CYCLE_DEPTH:
        return INTERNAL
    depth += 1
    rc = v.get(r, v.data, out)
    depth -= 1
    if rc < 0 or v.flags & NO_CACHE:
        if rc == 0:
            out.p = NULL
            out.n = 0
        return rc
    if r is not m and rc == 1:
        out[0] = keep(r, out[0])
        if out.p == NULL:
            return NO_MEMORY
    kept_value = slot(m, number)
    if kept_value == NULL:
        return NO_MEMORY
    if rc == 0:
        out.p = NULL
        out.n = 0
    kept_value[0] = out[0]
    m.value_states[number] = FOUND if rc == 1 else NOT_FOUND
    return rc


cdef int find_named(Request r, bytes name, Str* out) noexcept:
    cdef Name it
    out.p = ""
    out.n = 0
    try:
        name = name.lower()
        number = numbers.get(name)
        if number is not None and table[<uint32_t>number].is_known:
            return find_value(r, number, out)
        it = _declared(name)
    except MemoryError:
        return NO_MEMORY
    if it is None:
        return 0
    cdef int rc = it.how.get(r, it.how.data, out)
    if rc == 1:
        out[0] = keep(r, out[0])
        if out.p == NULL:
            return NO_MEMORY
    return rc


cdef int put_value(Request r, uint32_t number, Str value) noexcept:
    cdef Str* kept_value
    if table[number].put != NULL:
        return table[number].put(r, table[number].data, value)
    kept_value = slot(r.main, number)
    if kept_value == NULL:
        return NO_MEMORY
    kept_value[0] = value
    r.main.value_states[number] = FOUND
    return 0


cdef Str keep(Request r, Str s) noexcept:
    cdef Str kept_s
    if s.n == 0:
        kept_s.p = ""
        kept_s.n = 0
        return kept_s
    kept_s = copy(&r.main.arena, s)
    if kept_s.p == NULL:
        kept_s.n = 0
    return kept_s


cdef Str capture(Request r, uint32_t number) noexcept:
    """Group `number` of the last regex that matched; empty when there was none."""
    cdef Str s = group(&r.captures, number)
    if s.p == NULL:
        s.p = ""
    return s


# -- templates ---------------------------------------------------------------------------

cdef bint is_borrowed(Request r, const char* p) noexcept:
    # Does p point into a head, which moves?
    if r.head.base != NULL and r.head.base <= p < r.head.base + r.head.size:
        return True
    return r.answer.fields != NULL and r.answer.base <= p < r.answer.base + r.answer.size


@final
cdef class Template:
    """A string with variables, compiled: `compile` makes them."""

    def __cinit__(self):
        self.literals = []
        self.is_constant = True
        self.constant.p = ""

    def __dealloc__(self):
        free(self.segments)

    def __repr__(self):
        return f"Template({self.source!r})"

    cdef int append(self, uint8_t kind, uint32_t number, bytes text) except -1:
        """Add a segment; `text` is for a LITERAL. Between two literals nothing is joined."""
        cdef Segment* grown = <Segment*>realloc(
            self.segments, (self.n_segments + 1) * sizeof(Segment))
        if grown == NULL:
            raise MemoryError
        self.segments = grown
        grown = &grown[self.n_segments]
        memset(grown, 0, sizeof(Segment))
        grown.kind = kind
        grown.number = number
        self.n_segments += 1
        if kind == LITERAL:
            self.literals.append(text)
            grown.text = of_bytes(text)
        elif kind == CAPTURE:
            self.has_captures = True
        self.is_constant = self.n_segments == 1 and kind == LITERAL
        if self.is_constant:
            self.constant = grown.text
        return 0


cdef inline int segment(Segment* it, Request r, Str* out) noexcept:
    if it.kind == LITERAL:
        out[0] = it.text
        return 1
    if it.kind == VALUE:
        return find_value(r, it.number, out)
    out[0] = capture(r, it.number)
    return 1


cdef int find_segment(Template t, uint32_t i, Request r, Str* out) noexcept:
    return segment(&t.segments[i], r, out)


cdef int evaluate(Template t, Request r, Str* out) noexcept:
    cdef Str[GATHERED] on_stack
    cdef Str* parts = on_stack
    cdef uint32_t i
    cdef size_t total = 0
    cdef char* p
    cdef int rc
    if t.is_constant:
        out[0] = t.constant
        return 0
    if t.n_segments == 1:
        rc = segment(&t.segments[0], r, out)
        if rc < 0:
            return rc
        if rc == 0 or out.n == 0:
            out.p = ""
            out.n = 0
        elif is_borrowed(r, out.p):
            out[0] = copy(&r.arena, out[0])
            if out.p == NULL:
                return NO_MEMORY
        return 0
    if t.n_segments > GATHERED:
        parts = <Str*>take(&r.arena, t.n_segments * sizeof(Str))
        if parts == NULL:
            return NO_MEMORY
    for i in range(t.n_segments):
        rc = segment(&t.segments[i], r, &parts[i])
        if rc < 0:
            return rc
        if rc == 0:
            parts[i].n = 0
        total += parts[i].n
    p = <char*>take(&r.arena, total)
    if p == NULL:
        return NO_MEMORY
    out.p = p
    out.n = <uint32_t>total
    for i in range(t.n_segments):
        if parts[i].n:
            memcpy(p, parts[i].p, parts[i].n)
            p += parts[i].n
    return 0


NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def compile(text, where=None, captures=True):
    """A Template of conf text: `$name`, `${name}` and `$1` … `$9`.

    `text` is a Token (then errors tell its place), a str or bytes; `where` a Block to blame
    otherwise. Names may be defined later in the conf: `check_names` finds those that are not.
    Raises ConfError "invalid variable name" and the like. nginx: ngx_http_compile_complex_value.
    """
    return _compile(text, where if getattr(text, "line", 0) == 0 else text)


def are_ours(Template t not None) -> bytes:
    """For each segment 1 where the conf itself says it: a literal, or a variable of its own
    making (map, set, geo); 0 for what comes of a client or a connection."""
    names = {number: name for name, number in numbers.items()}
    return bytes([
        t.segments[i].kind == LITERAL
        or t.segments[i].kind == VALUE and _declared(names[t.segments[i].number]) is None
        for i in range(t.n_segments)
    ])


cdef Template _compile(text, place):
    cdef bytes raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    cdef Template t = Template()
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t dollar
    cdef Py_ssize_t end
    cdef Py_ssize_t size = len(raw)
    t.source = raw
    while at < size:
        dollar = raw.find(b"$", at)
        if dollar < 0:
            dollar = size
        if dollar > at:
            t.append(LITERAL, 0, raw[at:dollar])
        if dollar == size:
            break
        at = dollar + 1
        if at == size:
            raise ConfError(place, "invalid variable name")
        if b"1" <= raw[at:at + 1] <= b"9":
            t.append(CAPTURE, raw[at] - 48, b"")
            at += 1
            continue
        if raw[at:at + 1] == b"{":
            at += 1
            end = at
            while end < size and raw[end] in NAME_BYTES:
                end += 1
            if end == size or raw[end:end + 1] != b"}":
                raise ConfError(
                    place,
                    f'the closing bracket in "{_text(raw[at:end])}" variable is missing',
                )
            name = raw[at:end]
            at = end + 1
        else:
            end = at
            while end < size and raw[end] in NAME_BYTES:
                end += 1
            name = raw[at:end]
            at = end
        if not name:
            raise ConfError(place, "invalid variable name")
        t.append(VALUE, number_of(_text(name), place), b"")
    if t.n_segments == 0:
        t.append(LITERAL, 0, b"")
    return t


# -- patterns ----------------------------------------------------------------------------

@final
cdef class Regex:
    """`Regex(text, caseless, place)`: a pattern whose named groups are variables of the plan.

    Raises ConfError for a pattern that does not compile.
    """

    def __cinit__(self, text, bint caseless=False, place=None):
        cdef bytes raw
        place = text if getattr(text, "line", 0) else place
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        try:
            self.pattern = Pattern(raw, caseless)
        except PatternError as error:
            raise ConfError(place, str(error)) from None
        for name, number in self.pattern.names:
            if self.n_named == 20:
                break
            self.numbers[self.n_named] = define_stored(name, place)
            self.groups[self.n_named] = number
            self.n_named += 1

    def __repr__(self):
        return f"Regex({self.pattern.source!r})"


cdef int match_regex(Regex x, Request r, Str subject) noexcept:
    cdef uint32_t i
    cdef int rc
    cdef Str value
    rc = match_into(x.pattern, subject.p, subject.n, &r.captures)
    if rc <= 0:
        return rc if rc == 0 else INTERNAL
    for i in range(x.n_named):
        value = keep(r, capture(r, x.groups[i]))
        if value.p == NULL:
            return NO_MEMORY
        rc = put_value(r, x.numbers[i], value)
        if rc < 0:
            return rc
    return 1


def adopt(Pattern pattern not None):
    """The named groups of a pattern that another room matches become variables of the plan."""
    cdef Regex x = Regex.__new__(Regex, pattern.source, pattern.is_caseless)
    x.pattern = pattern
    pattern.owner = x if x.n_named else None


cdef int put_groups(Request r) noexcept:
    cdef Pattern pattern
    cdef Regex x
    cdef uint32_t i
    cdef Str value
    if r.captures.pattern == NULL:
        return 0
    pattern = <Pattern>r.captures.pattern
    if pattern.owner is None:
        return 0
    x = <Regex>pattern.owner
    for i in range(x.n_named):
        value = keep(r, capture(r, x.groups[i]))
        if value.p == NULL or put_value(r, x.numbers[i], value) < 0:
            return NO_MEMORY
    return 0
