# Function routes: which function answers for a host, a path and a method.
#
# Part of the live table: changed by `change` while requests run, without a new plan. A
# search gives a borrowed value; a request that keeps it takes a reference and so outlives
# the route.
#
# The best route: the most particular host (exact, the longest *.x, the longest x.*, any),
# there the longest path, there the method named before any method.

cimport cython
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base.span cimport Str, is_equal, of_bytes
from proxy.routing._radix cimport Radix


cdef enum:
    MOST_HOST = 1024
    MOST_FITS = 64        # hosts or paths that fit at once; of more, the longest
    MOST_GLOBS = 1024     # globs that share one beginning: they are tried one by one


@cython.final
cdef class Rule:
    """One route below a path: its glob, its method, its value."""
    cdef bytes glob       # the whole path pattern, None: a plain prefix
    cdef bytes method     # None: any
    cdef object value

    def __init__(self, bytes glob, bytes method, value):
        self.glob = glob
        self.method = method
        self.value = value


cdef object order_of(Rule rule):
    # long globs first, plain prefixes last; with a method before without
    return -len(rule.glob) if rule.glob is not None else 1, rule.method is None


cdef tuple read_route(host, path, method):
    """(host, radix key, glob or None, method or None), all bytes. Raises ValueError."""
    h = (host or "").encode().lower()
    p = path.encode()
    m = method.encode() if method else None
    if h == b"*":
        h = b""
    inner = h[2:] if h.startswith(b"*.") else h[:len(h) - 2] if h.endswith(b".*") else h
    if b"*" in inner or b".." in inner or inner.startswith(b".") or h and not inner:
        raise ValueError(f'invalid host "{host}" in a function route')
    if len(h) > MOST_HOST:
        raise ValueError("the host of a function route is too long")
    if not p.startswith(b"/"):
        raise ValueError(f'path "{path}" of a function route does not start with "/"')
    star = p.find(b"*")
    if star < 0:
        return h, p, None, m
    rest = p[:len(p) - 2] if p.endswith(b"/**") else p
    if b"**" in rest:
        raise ValueError(f'"**" is not the last segment of "{path}"')
    return h, p[:star], p, m


@cython.final
cdef class FunctionRoutes:
    """Routes (host, path, method) to values.

    host: "" or "*" (any), "name", "*.name", "name.*". path: a prefix that ends where a
    segment ends ("/a" has "/a" and "/a/b", not "/ab"), or a glob for the whole path, where
    "*" stands for what one segment may hold and a last "/**" for all below. method: a name,
    or "" for any.
    """

    def __init__(self):
        self.exact = Radix()
        self.heads = Radix()
        self.tails = Radix()
        self.anywhere = Radix()

    def __len__(self):
        return self.size

    def change(self, adds=(), removes=()):
        """Take out (host, path, method) routes, then put in (host, path, method, value) ones.

        All of it or nothing: ValueError for a route that cannot be, before any change. A
        route that is there gets the new value; one that is not there to be taken out is no
        error. Gives the numbers (added, removed).
        """
        cdef Py_ssize_t before = self.size
        gone = [read_route(host, path, method) for host, path, method in removes]
        new = [
            (*read_route(host, path, method), value) for host, path, method, value in adds
        ]
        self.check_globs(new)
        for host, key, glob, method in gone:
            self.take_out(host, key, glob, method)
        removed = before - self.size
        before = self.size
        for host, key, glob, method, value in new:
            self.put_in(host, key, glob, method, value)
        self.version += 1
        return self.size - before, removed

    def check_globs(self, new):
        """Refuse routes that would make a search try too many globs."""
        cdef Radix paths
        counts = {}
        for host, key, glob, _, _ in new:
            if glob is None:
                continue
            if (host, key) not in counts:
                paths = self.paths_of(host, False)
                counts[host, key] = len((paths.get(key) if paths is not None else None) or ())
            counts[host, key] += 1
            if counts[host, key] > MOST_GLOBS:
                raise ValueError(f"more than {MOST_GLOBS} globs begin with {key!r}")

    def find(self, str host not None, str path not None, str method not None="GET"):
        """The value of the route that fits best, or None."""
        cdef bytes h = host.encode()
        cdef bytes p = path.encode()
        cdef bytes m = method.encode()
        cdef PyObject* value = find_function(self, of_bytes(h), of_bytes(p), of_bytes(m))
        return <object>value if value != NULL else None

    def put_in(self, bytes host, bytes key, bytes glob, bytes method, value):
        """One route, already read."""
        cdef Rule rule
        cdef Radix paths = self.paths_of(host, True)
        rules = paths.get(key)
        if rules is None:
            rules = []
            paths.add(key, rules)
        for rule in rules:
            if rule.glob == glob and rule.method == method:
                rule.value = value
                return
        rules.append(Rule(glob, method, value))
        if len(rules) > 1:
            rules.sort(key=order_of)
        self.size += 1

    def take_out(self, bytes host, bytes key, bytes glob, bytes method):
        """One route, already read."""
        cdef Rule rule
        cdef Radix paths = self.paths_of(host, False)
        rules = paths.get(key) if paths is not None else None
        if rules is None:
            return
        for rule in rules:
            if rule.glob == glob and rule.method == method:
                rules.remove(rule)
                self.size -= 1
                break
        if not rules:
            paths.remove(key)
            if not len(paths) and host:
                self.drop_host(host)

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


cdef PyObject* find_rule(
    PyObject* rules, uint32_t length, Str path, Str method
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
        if rule.method is None or is_equal(of_bytes(rule.method), method):
            return <PyObject*>rule.value
    return NULL


cdef PyObject* find_path(PyObject* paths, Str path, Str method) noexcept:
    cdef PyObject *rules[MOST_FITS]
    cdef uint32_t[MOST_FITS] lengths
    cdef PyObject* value
    cdef int i = (<Radix>paths).find_prefixes(path.p, path.n, rules, lengths, MOST_FITS)
    while i:
        i -= 1
        value = find_rule(rules[i], lengths[i], path, method)
        if value != NULL:
            return value
    return NULL


cdef PyObject* find_function(
    FunctionRoutes t, Str host, Str path, Str method
) noexcept:
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
            value = find_path(paths, path, method)
            if value != NULL:
                return value
    if t.heads.size and host.n <= MOST_HOST:
        for i in range(host.n):
            reversed_host[i] = host.p[host.n - 1 - i]
        k = t.heads.find_prefixes(reversed_host, host.n, hosts, lengths, MOST_FITS)
        while k:
            k -= 1
            value = find_path(hosts[k], path, method)
            if value != NULL:
                return value
    if t.tails.size:
        k = t.tails.find_prefixes(host.p, host.n, hosts, lengths, MOST_FITS)
        while k:
            k -= 1
            value = find_path(hosts[k], path, method)
            if value != NULL:
                return value
    return find_path(<PyObject*>t.anywhere, path, method)
