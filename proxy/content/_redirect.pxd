# Redirects that we make ourselves, to the client or inside.

from proxy.base._request cimport Request
from proxy.base.span cimport Str


# The answer's Location becomes this one; it must live as long as the request. 0, or a fault.
cdef int put_location(Request r, Str value) noexcept
# What Location says for a path that begins with "/": absolute, where absolute_redirect is on.
# out.p NULL: no room.
cdef Str redirect_url(Request r, Str path) noexcept
# The Locations of an answer of ours that begin with "/" become what redirect_url says. 0, or
# a fault. Called once, before the answer's head is written.
cdef int complete_location(Request r) noexcept
# STATUS 301 to r.uri with a "/" behind, args kept. Or a fault.
cdef int redirect_to_folder(Request r, Str uri) noexcept
# REROUTE to another URI; both must live as long as the request.
cdef int redirect_inside(Request r, Str uri, Str args) noexcept
# `path?args` into both.
cdef void split_args(Str whole, Str* uri, Str* args) noexcept
