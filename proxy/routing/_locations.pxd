# Locations: which location {} of a server answers for a normalised URI.

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from proxy.base._pcre cimport Captures
from proxy.routing._radix cimport Radix


cdef enum FoundHow:
    AT_SERVER = 0         # no location matched: the settings of the server itself
    AT_LOCATION = 1
    AT_REDIRECT = 2       # the URI lacks the final slash of a location: 301 to its name


cdef class Tree:
    # One level: the locations directly inside a server or inside another location.
    cdef readonly object settings       # opaque: of the server or location that holds this level
    cdef readonly bytes name            # location: its argument without the modifier
    cdef readonly bint is_noregex       # ^~
    cdef Radix exact                    # name -> Tree
    cdef Radix prefixes                 # name -> Tree
    cdef Radix slashes                  # name without its final slash -> Tree that redirects
    cdef list patterns                  # regexes in conf order, and beside them
    cdef list pattern_trees             # their Trees
    cdef dict named                     # "@name" -> Tree, on the server's level
    # on the server's level, with function_routes: FunctionRoutes, and the settings of who is found
    cdef public object function_routes
    cdef public object function_settings


# The settings for a URI, borrowed from t; *how is a FoundHow. NULL: a regex ran into its
# limit (answer 500). c is written when a regex location matches.
cdef PyObject* find_location(
    Tree t, const char* uri, uint32_t n, Captures* c, int* how
) noexcept

# The settings of a named location ("@" included), borrowed; NULL: there is none.
cdef PyObject* find_named(Tree t, object name) noexcept
