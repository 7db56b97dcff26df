# The head of an answer to an HTTP/1.1 client, re-encoded from what a Request holds.

from libc.stdint cimport uint8_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str


cdef enum:
    MAX_OWN_BYTES = 640       # what we add ourselves at most, beside the fields

# Decide how the body is framed (r.out_kind, r.is_header_only) and whether the connection
# can stay. Needs r.status, r.length, r.location.
cdef void frame_answer(Request r, uint8_t version) noexcept

# Bytes written, or NO_MEMORY when it does not fit.
cdef int write_answer_head(Request r, char* out, size_t cap) noexcept

# 103 with the fields of r.answer. Bytes written; 0: there are none, or they do not fit.
cdef int write_hints(Request r, char* out, size_t cap) noexcept

# Last chunk, trailer fields, empty line. Bytes written, or NO_MEMORY.
cdef int write_trailers(Request r, char* out, size_t cap) noexcept

# "Server" as server_tokens says.
cdef Str server_text(bint has_version) noexcept
