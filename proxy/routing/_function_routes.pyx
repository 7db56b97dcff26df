# Function routes: which function answers for a host, a path and a method.
#
# Part of the live table: changed by `change` while requests run, without a new plan. A
# search gives a borrowed value; a request that keeps it takes a reference and so outlives
# the route.
#
# The best route: the highest priority; there the most particular host (exact, the longest *.x,
# the longest x.*, any), there the longest path, there the method named before any method, more
# conditions before fewer, and of routes that are alike the older owner's.

cimport cython
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport uint32_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str, is_equal, of_bytes
from proxy.routing._radix cimport Radix
from proxy.variables._lines cimport get_arg, get_http


cdef enum:
    MOST_HOST = 1024
    MOST_FITS = 64        # hosts or paths that fit at once; of more, the longest
    MOST_RULES = 1024     # routes that share one beginning: they are tried one by one
    MOST_LEVELS = 32      # different priorities


@cython.final
cdef class Condition:
    """What a field or an argument of the request must be: value, or (None) anything at all."""
    cdef bytes name
    cdef Str name_s
    cdef bytes value      # a glob: "*" stands for any run of bytes
    cdef bint is_query
    cdef readonly tuple words

    def __init__(self, str kind, str name, value):
        self.words = (kind, name, value)
        self.is_query = kind == "query"
        if not self.is_query and kind != "header":
            raise ValueError(f'"{kind}" is no condition')
        self.name = name.encode()
        if not self.is_query:
            self.name = self.name.lower().replace(b"-", b"_")
        self.name_s = of_bytes(self.name)
        self.value = value.encode() if value is not None else None


@cython.final
cdef class Rule:
    """One route below a path: its glob, method and conditions, whose it is, its value.

    owner and rank tell routes apart that are alike in all else: the lowest rank wins.
    """
    cdef bytes glob       # the whole path pattern, None: a plain prefix
    cdef bytes method     # None: any
    cdef tuple conditions
    cdef object owner
    cdef object rank
    cdef object value

    def __init__(self, bytes glob, bytes method, tuple conditions, owner, rank, value):
        self.glob = glob
        self.method = method
        self.conditions = conditions
        self.owner = owner
        self.rank = rank
        self.value = value

    cdef bint is_like(self, bytes glob, bytes method, tuple conditions):
        return (self.glob == glob and self.method == method
                and words_of(self.conditions) == words_of(conditions))


cdef tuple words_of(tuple conditions):
    return tuple([(<Condition>it).words for it in conditions]) if conditions else ()


cdef object order_of(Rule rule):
    # long globs first, plain prefixes last; with a method before without; then more conditions
    return (-len(rule.glob) if rule.glob is not None else 1, rule.method is None,
            -len(rule.conditions), rule.rank)


cdef class Row:
    """A route as `change` was told it, read."""
    cdef bytes host
    cdef bytes key        # of the radix tree
    cdef bytes glob
    cdef bytes method
    cdef tuple conditions
    cdef int priority
    cdef object owner

    def __init__(self, host, path, method, conditions=(), int priority=0, owner=""):
        """Raises ValueError."""
        h = (host or "").encode().lower()
        p = path.encode()
        is_exact = p.startswith(b"=")
        if is_exact:
            p = p[1:]
        if h == b"*":
            h = b""
        if h:
            inner = h[2:] if h.startswith(b"*.") else h[:len(h) - 2] if h.endswith(b".*") else h
            if b"*" in inner or b".." in inner or inner.startswith(b".") or not inner:
                raise ValueError(f'invalid host "{host}" in a function route')
            if len(h) > MOST_HOST:
                raise ValueError("the host of a function route is too long")
        if not p.startswith(b"/"):
            raise ValueError(f'path "{path}" of a function route does not start with "/"')
        star = p.find(b"*")
        if star >= 0:
            rest = p[:len(p) - 2] if p.endswith(b"/**") else p
            if b"**" in rest or is_exact:
                raise ValueError(f'"**" is not the last segment of "{path}"')
        self.host = h
        self.key = p[:star] if star >= 0 else p
        self.glob = p if star >= 0 or is_exact else None
        self.method = method.encode() if method else None
        self.conditions = tuple([Condition(*it) for it in conditions]) if conditions else ()
        self.priority = priority
        self.owner = owner


@cython.final
cdef class Level:
    """The routes of one priority."""

    def __init__(self, int priority):
        self.priority = priority
        self.exact = Radix()
        self.heads = Radix()
        self.tails = Radix()
        self.anywhere = Radix()

    @cython.wraparound(True)
    cdef Radix paths_of(self, bytes host, bint is_made):
        cdef Radix hosts
        cdef bytes key
        if not host:
            return self.anywhere
        hosts, key = self.exact, host
        if host.startswith(b"*."):
            hosts, key = self.heads, host[:0:-1]
        elif host.endswith(b".*"):
            hosts, key = self.tails, host[:-1]
        paths = hosts.get(key)
        if paths is None and is_made:
            paths = Radix()
            hosts.add(key, paths)
        return paths

    @cython.wraparound(True)
    cdef void drop_host(self, bytes host):
        if host.startswith(b"*."):
            self.heads.remove(host[:0:-1])
        elif host.endswith(b".*"):
            self.tails.remove(host[:-1])
        else:
            self.exact.remove(host)


@cython.final
cdef class FunctionRoutes:
    """Routes to values.

    host: "" or "*" (any), "name", "*.name", "name.*". path: a prefix that ends where a
    segment ends ("/a" has "/a" and "/a/b", not "/ab"), or a glob for the whole path, where
    "*" stands for what one segment may hold and a last "/**" for all below, or "=" and the
    whole path. method: a name, or "" for any. conditions: ("header" or "query", name, glob or
    None) each; they must all hold. priority: the highest is asked first, whatever its host.
    """

    def __init__(self):
        self.levels = []

    def __len__(self):
        return self.size

    def change(self, adds=(), removes=(), owner="", rank=0):
        """Take out and put in the routes of one owner.

        removes: (host, path, method[, conditions[, priority]]), adds the same with the value
        behind the method. All of it or nothing: ValueError for a route that cannot be, before
        any change. A route that the owner has gets the new value; one that is not there to be
        taken out is no error. Owners may have the same route: that of the lowest rank answers.
        Gives the numbers (added, removed).
        """
        cdef Py_ssize_t before = self.size
        cdef Row row
        gone = [Row(*it, owner=owner) for it in removes]
        new = [(Row(it[0], it[1], it[2], *it[4:], owner=owner), it[3]) for it in adds]
        self.check_room(new, gone)
        for row in gone:
            take_out(self, row)
        removed = before - self.size
        before = self.size
        for row, value in new:
            put_in(self, row, rank, value)
        self.version += 1
        return self.size - before, removed

    def check_room(self, new, gone):
        """Refuse routes that would make a search try too many."""
        cdef Row row
        cdef Radix paths
        cdef Level level
        counts = {}
        priorities = {(<Level>it).priority for it in self.levels}
        for row, _ in new:
            priorities.add(row.priority)
            place = row.priority, row.host, row.key
            if place not in counts:
                level = self.level_of(row.priority, False)
                paths = level.paths_of(row.host, False) if level is not None else None
                counts[place] = len((paths.get(row.key) if paths is not None else None) or ())
            counts[place] += 1
            if counts[place] > MOST_RULES:
                raise ValueError(f"more than {MOST_RULES} routes begin with {row.key.decode()!r}")
        if len(priorities) > MOST_LEVELS:
            raise ValueError(f"more than {MOST_LEVELS} different priorities")

    def find(self, str host not None, str path not None, str method not None="GET",
             Request request=None):
        """The value of the route that fits best, or None. Without a request those that want
        something of its head fit nobody."""
        cdef bytes h = host.encode()
        cdef bytes p = path.encode()
        cdef bytes m = method.encode()
        cdef PyObject* value = find_function(self, of_bytes(h), of_bytes(p), of_bytes(m), request)
        return <object>value if value != NULL else None

    def owners(self, host, path, method, conditions=(), int priority=0):
        """Who has this very route, who wins it first."""
        cdef Row row = Row(host, path, method, conditions, priority)
        cdef Rule rule
        return [(<Rule>rule).owner for rule in rules_of(self, row)
                if rule.is_like(row.glob, row.method, row.conditions)]

    cdef Level level_of(self, int priority, bint is_made):
        cdef Level level
        for level in self.levels:
            if level.priority == priority:
                return level
        if not is_made:
            return None
        level = Level(priority)
        self.levels.append(level)
        self.levels.sort(key=lambda it: -it.priority)
        return level


cdef list rules_of(FunctionRoutes t, Row row):
    cdef Level level = t.level_of(row.priority, False)
    cdef Radix paths = level.paths_of(row.host, False) if level is not None else None
    return (paths.get(row.key) if paths is not None else None) or []


cdef put_in(FunctionRoutes t, Row row, rank, value):
    cdef Rule rule
    cdef Level level = t.level_of(row.priority, True)
    cdef Radix paths = level.paths_of(row.host, True)
    rules = paths.get(row.key)
    if rules is None:
        rules = []
        paths.add(row.key, rules)
    for rule in rules:
        if rule.owner == row.owner and rule.is_like(row.glob, row.method, row.conditions):
            rule.value = value
            if rule.rank != rank:
                rule.rank = rank
                rules.sort(key=order_of)
            return
    rules.append(Rule(row.glob, row.method, row.conditions, row.owner, rank, value))
    if len(rules) > 1:
        rules.sort(key=order_of)
    t.size += 1
    level.size += 1


cdef take_out(FunctionRoutes t, Row row):
    cdef Rule rule
    cdef Level level = t.level_of(row.priority, False)
    cdef Radix paths = level.paths_of(row.host, False) if level is not None else None
    rules = paths.get(row.key) if paths is not None else None
    if rules is None:
        return
    for rule in rules:
        if rule.owner == row.owner and rule.is_like(row.glob, row.method, row.conditions):
            rules.remove(rule)
            t.size -= 1
            level.size -= 1
            break
    if not rules:
        paths.remove(row.key)
        if not len(paths) and row.host:
            level.drop_host(row.host)
    if level.size == 0:
        t.levels.remove(level)


cdef bint is_glob_match(const char* glob, uint32_t gn, const char* s, uint32_t n) noexcept:
    """Whether the whole of s fits: "*" within one segment, a last "/**" for the rest.

    One step back per "*" is enough, so this takes at most gn * n steps.
    """
    cdef uint32_t g = 0
    cdef uint32_t i = 0
    cdef uint32_t star = gn       # offset behind the last "*"
    cdef uint32_t mark = 0        # what it swallowed ends here
    cdef bint has_star = False
    while i < n:
        if g < gn and glob[g] == 42:
            if g + 2 == gn and glob[g + 1] == 42:
                return True
            g += 1
            star = g
            mark = i
            has_star = True
        elif g < gn and glob[g] == s[i]:
            g += 1
            i += 1
        elif has_star and s[mark] != 47:
            mark += 1
            i = mark
            g = star
        else:
            return False
    while g < gn and glob[g] == 42:
        g += 1
    return g == gn


cdef bint is_text_match(Str glob, Str s) noexcept:
    """Whether the whole of s fits, "*" standing for any run of bytes. At most glob * s steps."""
    cdef uint32_t g = 0
    cdef uint32_t i = 0
    cdef uint32_t star = 0
    cdef uint32_t mark = 0
    cdef bint has_star = False
    while i < s.n:
        if g < glob.n and glob.p[g] == c"*":
            g += 1
            star = g
            mark = i
            has_star = True
        elif g < glob.n and glob.p[g] == s.p[i]:
            g += 1
            i += 1
        elif has_star:
            mark += 1
            i = mark
            g = star
        else:
            return False
    while g < glob.n and glob.p[g] == c"*":
        g += 1
    return g == glob.n


cdef bint holds(tuple conditions, Request r) noexcept:
    cdef Condition it
    cdef Str value
    cdef Py_ssize_t i
    cdef int rc
    if r is None:
        return False
    for i in range(len(conditions)):
        it = <Condition>PyTuple_GET_ITEM(conditions, i)
        if it.is_query:
            rc = get_arg(r, <uint64_t>&it.name_s, &value)
        else:
            rc = get_http(r, <uint64_t>&it.name_s, &value)
        if rc != 1 or it.value is not None and not is_text_match(of_bytes(it.value), value):
            return False
    return True


cdef PyObject* find_rule(
    PyObject* rules, uint32_t length, Str path, Str method, Request r
) noexcept:
    cdef list each = <list>rules
    cdef Rule rule
    cdef Py_ssize_t i
    cdef bint is_whole = (
        length == path.n or path.p[length] == 47 or length > 0 and path.p[length - 1] == 47
    )
    for i in range(len(each)):
        rule = <Rule>PyList_GET_ITEM(each, i)
        if rule.glob is None:
            if not is_whole:
                return NULL       # only plain ones follow
        elif not is_glob_match(<const char*>rule.glob, <uint32_t>len(rule.glob), path.p, path.n):
            continue
        if rule.method is not None and not is_equal(of_bytes(rule.method), method):
            continue
        if len(rule.conditions) and not holds(rule.conditions, r):
            continue
        return <PyObject*>rule.value
    return NULL


cdef PyObject* find_path(PyObject* paths, Str path, Str method, Request r) noexcept:
    cdef PyObject *rules[MOST_FITS]
    cdef uint32_t[MOST_FITS] lengths
    cdef PyObject* value
    cdef int i = (<Radix>paths).find_prefixes(path.p, path.n, rules, lengths, MOST_FITS)
    while i:
        i -= 1
        value = find_rule(rules[i], lengths[i], path, method, r)
        if value != NULL:
            return value
    return NULL


cdef PyObject* find_in(Level t, Str host, Str path, Str method, Request r) noexcept:
    cdef char[MOST_HOST] reversed_host
    cdef PyObject *hosts[MOST_FITS]
    cdef uint32_t[MOST_FITS] lengths
    cdef PyObject* value
    cdef PyObject* paths
    cdef uint32_t i
    cdef int k
    if t.exact.size:
        paths = t.exact.find(host.p, host.n)
        if paths != NULL:
            value = find_path(paths, path, method, r)
            if value != NULL:
                return value
    if t.heads.size and host.n <= MOST_HOST:
        for i in range(host.n):
            reversed_host[i] = host.p[host.n - 1 - i]
        k = t.heads.find_prefixes(reversed_host, host.n, hosts, lengths, MOST_FITS)
        while k:
            k -= 1
            value = find_path(hosts[k], path, method, r)
            if value != NULL:
                return value
    if t.tails.size:
        k = t.tails.find_prefixes(host.p, host.n, hosts, lengths, MOST_FITS)
        while k:
            k -= 1
            value = find_path(hosts[k], path, method, r)
            if value != NULL:
                return value
    return find_path(<PyObject*>t.anywhere, path, method, r)


cdef PyObject* find_function(
    FunctionRoutes t, Str host, Str path, Str method, Request r
) noexcept:
    cdef PyObject* value
    cdef Py_ssize_t i
    for i in range(len(t.levels)):
        value = find_in(<Level>PyList_GET_ITEM(t.levels, i), host, path, method, r)
        if value != NULL:
            return value
    return NULL
