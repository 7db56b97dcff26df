# The rewrite machine: set, if, rewrite, return and break of one block, compiled in order.
#
# `run` is called by the route stage, once for the server and once for each location found.
# It never waits; what it can loop over is the conf's own length, and MAX_REDIRECTS rounds.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from proxy.base._request cimport Request


cdef enum Rewritten:
    # GO: go on with r.location (an `if` may have replaced it)
    # DONE: answered: r.status and r.text (r.content_type is not set: by r.uri, as for a file)
    REWRITE_AGAIN = 16    # r.uri changed: search the location again
    REWRITE_STATUS = 17   # answer with r.status and its page (error_page holds)
    # A redirect has its Location among r.out; 444 closes the connection without a word.


cdef struct Op:
    uint8_t code
    uint8_t is_not        # conditions: true when it does not hold
    uint8_t flags         # OpFlag; of a file test: which
    uint16_t status
    uint32_t number       # of a variable
    uint32_t next         # conditions: where to go on when it is false
    PyObject* what        # Template, Regex or Location, held by the Program
    PyObject* pattern     # Regex of a rewrite


cdef class Program:
    cdef Op* ops
    cdef readonly uint32_t n
    cdef readonly bint is_server
    cdef list held

    cdef Op* append(self, uint8_t code, object what) except NULL


# GO, DONE, REWRITE_AGAIN, REWRITE_STATUS, <0 fault
cdef int run(Program program, Request r) noexcept
