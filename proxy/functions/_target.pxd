# Which function a request is for: what function_pass names, and the routes of functions.

from cython cimport final
from libc.stdint cimport uint32_t

from proxy.base._request cimport Location, Request
from proxy.functions._function cimport Function, Functions
from proxy.variables._variables cimport Template


cdef enum TargetKind:
    T_NAME = 0            # function_pass NAME
    T_TEXT = 1            # function_pass $var
    T_LABELS = 2          # function_pass "label:KEY=VALUE,…"
    T_PATH = 3            # function_pass path:
    T_ROUTES = 4          # the location of function_routes: the route stage found the version


@final
cdef class Selection:
    """Those functions that have all of some labels; the oldest of them answers."""
    cdef public Function chosen


@final
cdef class FunctionTarget:
    """The handler of a location that passes to functions."""
    cdef readonly TargetKind kind
    cdef readonly bytes name      # as written
    cdef Functions functions
    cdef Function function        # of T_NAME, as found last
    cdef readonly Template text
    cdef readonly Selection selection
    cdef uint32_t prefix_n        # of the location: T_PATH
    cdef uint32_t call_id         # the numbers of two variables
    cdef uint32_t request_time
    cdef public Location asynchronous  # passes to the controller, which answers 202; or None
    cdef public bint is_async     # all that comes here is called later


@final
cdef class FunctionRoute:
    """What a route leads to."""
    cdef readonly Function function
    cdef readonly bytes prefix    # of the path, replaced by …
    cdef readonly bytes rewrite   # b"": as it came


# The version for this request (Request.version) as the location says. GO, DONE (404, 503: an
# error_page may stand in), a fault.
cdef int find_version(Request r) noexcept
# The request's path at a replica, behind a prefix of the replica's: 0, or NO_MEMORY.
cdef int put_prefix(Request r, bytes prefix) noexcept
# The same for a request whose route was found; then the URI may be another.
cdef int take_route(FunctionRoute route, Request r) noexcept
# Is the request to be called later? Then the controller is to be asked instead, at put_async's URI.
cdef bint is_later(Request r) noexcept
cdef int put_async(Request r) noexcept
# What the answer of a call by path tells beside the function's own fields. 0 or a fault.
cdef int tell_call(Request r) noexcept
