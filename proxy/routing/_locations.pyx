# Locations: which location {} of a server answers for a normalised URI.
#
# Called by the route stage, once per request and again after each internal redirect.
# Built by location.py; frozen from then on.

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base._pcre cimport Captures, Pattern, match_into
from proxy.routing._radix cimport Radix


cdef enum Search:
    S_NONE = 0            # nothing here, or only a prefix: regexes further out may still win
    S_FINAL = 1
    S_REDIRECT = 2


@cython.final
cdef class Tree:
    """A server or a location, and the locations directly inside it."""

    def __init__(self, settings, bytes name=b"", bint is_noregex=False):
        self.settings = settings
        self.name = name
        self.is_noregex = is_noregex
        self.exact = Radix()
        self.prefixes = Radix()
        self.slashes = Radix()
        self.patterns = []
        self.pattern_trees = []
        self.named = {}

    def add_exact(self, Tree tree not None):
        """`location = name`. False: there is one already."""
        return self.exact.get(tree.name) is None and self.exact.add(tree.name, tree)

    def add_prefix(self, Tree tree not None):
        """`location name` or `location ^~ name`. False: there is one already."""
        return self.prefixes.get(tree.name) is None and self.prefixes.add(tree.name, tree)

    @cython.wraparound(True)
    def add_slash(self, Tree tree not None, bint is_first=False):
        """Let the URI that lacks only the final "/" of tree.name be redirected to it.

        `is_first` puts it before another location of the same name.
        """
        if is_first or self.slashes.get(tree.name[:-1]) is None:
            self.slashes.add(tree.name[:-1], tree)

    def add_pattern(self, Pattern pattern not None, Tree tree not None):
        """`location ~ pattern`, after all that were added before."""
        self.patterns.append(pattern)
        self.pattern_trees.append(tree)

    @property
    def inner(self):
        """The Trees of the locations directly in here, named ones included."""
        found = self.exact.values() + self.prefixes.values() + list(self.named.values())
        return found + self.pattern_trees

    @property
    def own_patterns(self):
        """The Patterns of this level, for whoever defines variables of their named groups."""
        return list(self.patterns)

    def add_named(self, Tree tree not None):
        """`location @name`. False: there is one already."""
        return self.named.setdefault(tree.name.decode("utf-8", "surrogateescape"), tree) is tree

    def find(self, bytes uri not None):
        """(settings, is it a redirect, groups of the regex that matched or None)."""
        cdef Captures c
        cdef int how = 0
        c.n = 0
        cdef PyObject* settings = find_location(
            self, <const char*>uri, <uint32_t>len(uri), &c, &how
        )
        if settings == NULL:
            raise OverflowError(f"match limit reached with URI {uri!r}")
        groups = [uri[c.off[2 * i]:c.off[2 * i + 1]] for i in range(c.n)]
        return <object>settings, how == AT_REDIRECT, groups or None

    def get_named(self, str name not None):
        """The settings of `location @name`, or None."""
        cdef PyObject* settings = find_named(self, name)
        return <object>settings if settings != NULL else None


cdef int search(
    Tree t, const char* uri, uint32_t n, Captures* c, PyObject** best
) noexcept:
    """Look below t; *best becomes the deepest Tree that matched. Negative: a regex failed."""
    cdef PyObject* found = NULL
    cdef uint32_t length = 0
    cdef uint32_t i
    cdef int rc
    cdef bint is_noregex = False
    if t.exact.size:
        found = t.exact.find(uri, n)
        if found != NULL:
            best[0] = found
            return S_FINAL
    if t.prefixes.size:
        found = t.prefixes.find_prefix(uri, n, &length)
    if t.slashes.size and (found == NULL or length < n):
        if t.slashes.find(uri, n) != NULL:
            best[0] = t.slashes.find(uri, n)
            return S_REDIRECT
    if found != NULL:
        best[0] = found
        is_noregex = (<Tree>found).is_noregex
        rc = search(<Tree>found, uri, n, c, best)
        if rc != S_NONE:
            return rc
    if is_noregex:
        return S_NONE
    for i in range(<uint32_t>len(t.patterns)):
        rc = match_into(<Pattern>PyList_GET_ITEM(t.patterns, i), uri, n, c)
        if rc < 0:
            return rc
        if rc > 0:
            best[0] = PyList_GET_ITEM(t.pattern_trees, i)
            rc = search(<Tree>best[0], uri, n, c, best)
            return rc if rc < 0 else S_FINAL
    return S_NONE


cdef PyObject* find_location(
    Tree t, const char* uri, uint32_t n, Captures* c, int* how
) noexcept:
    cdef PyObject* best = <PyObject*>t
    cdef int rc = search(t, uri, n, c, &best)
    if rc < 0:
        return NULL
    if rc == S_REDIRECT:
        how[0] = AT_REDIRECT
    else:
        how[0] = AT_SERVER if best == <PyObject*>t else AT_LOCATION
    return <PyObject*>(<Tree>best).settings


cdef PyObject* find_named(Tree t, object name) noexcept:
    cdef PyObject* found = PyDict_GetItem(t.named, name)
    return <PyObject*>(<Tree>found).settings if found != NULL else NULL
