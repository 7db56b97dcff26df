# error_page: another answer in place of an error's default page.

from proxy.base._request cimport Request


# Is there a page for this status here, and may it be used?
cdef bint has_error_page(Request r, int status) noexcept
# REROUTE, REENTER, STATUS (a redirect: r.status and Location are set, its default page follows),
# 0 (no error_page: the default page of `status`), or a fault.
cdef int on_error(Request r, int status) noexcept
# The named location "@name" of this server: REENTER, or a fault.
cdef int enter_named(Request r, dict named, object name) noexcept
