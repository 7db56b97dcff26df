# The pages that say what went wrong.

from proxy.base.span cimport Str

# HTML of a status, kept for the life of the process; empty for a status without a page.
cdef Str error_page(int status, bint has_version) noexcept
