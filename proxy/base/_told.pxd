# Errors of Python that end something for one request: told in the error log, not swallowed.

from proxy.base._report cimport R_ALERT, R_ERROR
from proxy.base._request cimport Request


# `doing` says what failed; r may be None. The same words are told once in TELL_EVERY_MS, and of
# different ones MOST_TOLD in that time: a request that fails each time does not fill the log.
cdef void tell_error(int level, Request r, const char* doing, object error) noexcept
