# Names and compiled strings: the one door to $variables for every room.
#
# At import a room declares the names it can answer. While a plan is made, names that the
# conf uses get numbers (find_number, Template); user variables (set, map, regex groups …) are
# defined by it. A request keeps the values it found by number, in its main request's arena.
# What a getter answers lives as long as the request or the plan – or it points into the
# request's own head (r.head, r.answer), then the variable must be NO_CACHE, because heads move.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from proxy.base._pcre cimport Pattern
from proxy.base._request cimport Request
from proxy.base.span cimport Str


# 1 found, 0 not found, <0 fault
ctypedef int (*Getter)(Request r, uint64_t data, Str* out) noexcept
# 0, <0 fault; the value lives as long as the request
ctypedef int (*Setter)(Request r, uint64_t data, Str value) noexcept


cdef enum VariableFlag:
    NO_CACHE = 1          # ask again each time: it changes, or points into a head
    CHANGEABLE = 2        # the conf may define it anew


cdef struct Variable:
    Getter get            # NULL: only its stored value, "" until one is set
    Setter put            # NULL: a set is stored
    uint64_t data
    uint8_t flags
    uint8_t is_known      # somebody declared or defined it


cdef struct Segment:
    Str text              # literal bytes, when kind is 0
    uint32_t number       # variable, or capture
    uint8_t kind          # SegmentKind


cdef enum SegmentKind:
    LITERAL = 0
    VALUE = 1
    CAPTURE = 2           # $1 … $9 of r.captures


# Declaring, at import: a name, or a family ("http_", …), whose getter gets in `data` a Str*
# with the rest of the name. ValueError for a name declared twice.
cdef int declare(bytes name, Getter get, uint64_t data, int flags) except -1
cdef int declare_prefix(bytes prefix, Getter get, int flags) except -1
cdef int declare_setter(bytes name, Setter put) except -1

# While a plan is made: the number of a name; a variable that the conf itself makes.
cdef int find_number(bytes name) except -1
# The same for a name that comes later, from who may name any: -1 if nobody knows it.
cdef int find_known(bytes name) except -2
cdef int define(bytes name, Getter get, uint64_t data, int flags) except -1
# Hold on to what a getter's `data` points to as long as the plan.
cdef int keep_alive(object thing) except -1

# Per request. 1 found, 0 not found, <0 fault.
cdef int find_value(Request r, uint32_t number, Str* out) noexcept
# By a name that comes with the request (ssi): slower, and numbered for nobody. The value lives
# as long as the main request. 1, 0 (also for a name that nobody knows), <0.
cdef int find_named(Request r, bytes name, Str* out) noexcept
# Store a value; it must live as long as the main request. 0, <0 fault.
cdef int put_value(Request r, uint32_t number, Str value) noexcept
# Copy bytes where stored values live (the main request's arena). p NULL: no room.
cdef Str keep(Request r, Str s) noexcept
# $1 … $9: group of the last regex that matched; empty without one.
cdef Str capture(Request r, uint32_t group) noexcept


cdef class Template:
    """A compiled string; the bytes of its literals belong to it."""
    cdef readonly bytes source
    cdef Str constant
    cdef readonly bint is_constant
    cdef readonly bint has_captures
    cdef Segment* segments
    cdef readonly uint32_t n_segments
    cdef list literals

    cdef int append(self, uint8_t kind, uint32_t number, bytes text) except -1


# 0, or <0 fault. The result lives as long as the request or the plan.
cdef int evaluate(Template t, Request r, Str* out) noexcept
# Segment i of a template, as it is, for who joins by his own rules (logs). 1, 0, <0.
cdef int find_segment(Template t, uint32_t i, Request r, Str* out) noexcept


cdef class Regex:
    """A pattern together with the variables that its named groups set."""
    cdef readonly Pattern pattern
    cdef uint32_t numbers[20]       # variable of each group …
    cdef uint8_t groups[20]
    cdef uint32_t n_named

# 1 matched (r.captures and the named groups are set), 0 no match, <0 fault. The subject must
# live as long as the request, or lie in r.head.
cdef int match_regex(Regex x, Request r, Str subject) noexcept

# Give the named groups of what a location or server name matched (r.captures.pattern, see
# adopt) to their variables. 0, <0 fault.
cdef int put_groups(Request r) noexcept
