# $connections_active, _reading, _writing, _waiting: what stub_status tells, as variables.

from libc.stdint cimport int64_t, uint64_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.observe._counters cimport Block, Counters, sum_connections
from proxy.variables._variables cimport NO_CACHE, declare
from proxy.variables._write cimport tell_number

cdef Counters ours = None


def put_counters(Counters counters):
    """Whose numbers the variables tell; None: nobody's, they are not found."""
    global ours
    ours = counters


cdef int get_connections(Request r, uint64_t which, Str* out) noexcept:
    cdef Block total
    cdef int64_t number
    if ours is None:
        return 0
    sum_connections(ours, &total)
    if which == 0:
        number = total.active
    elif which == 1:
        number = total.reading
    elif which == 2:
        number = total.writing
    else:
        number = total.waiting
    return tell_number(r, <uint64_t>number if number > 0 else 0, out)


for _number, _name in enumerate((b"active", b"reading", b"writing", b"waiting")):
    declare(b"connections_" + _name, get_connections, _number, NO_CACHE)
