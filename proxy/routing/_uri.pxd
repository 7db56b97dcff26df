# Request targets, normalised as nginx does it (escaping is base/_escape).

from libc.stdint cimport uint32_t

from proxy.base.span cimport Str


cdef enum UriFlag:
    U_PLAIN = 1           # path borrows the target itself; nothing was written to out
    U_QUOTED = 2          # the target had a percent-encoded byte
    U_PLUS = 4            # the path has a "+"
    U_EMPTY_PATH = 8      # absolute-form without a path: the target cannot be passed on as it is
    U_HAS_ARGS = 16       # there was a "?"; args may still be empty


cdef struct Uri:
    Str path              # normalised and decoded: $uri
    Str args              # behind the first "?", before a "#": $args
    Str exten             # behind the last "." of the last segment; n is 0 if none
    uint32_t flags        # UriFlag


# p: the target without scheme and authority (Head.path). out: room for n + 1 bytes.
# 0 or BAD_REQUEST. The Strs of uri borrow p or out.
cdef int read_uri(
    const char* p, uint32_t n, bint is_merging, char* out, Uri* uri
) noexcept

# A URI that an upstream or a conf names (X-Accel-Redirect, error_page, ssi): decoded where
# needed, split at "?", refused (BAD_REQUEST) with a ".." segment or a NUL.
# out: room for n bytes.
cdef int read_inner_uri(const char* p, uint32_t n, char* out, Uri* uri) noexcept

# The extension of a path that was changed (rewrite, index, try_files).
cdef Str find_exten(const char* path, uint32_t n) noexcept
