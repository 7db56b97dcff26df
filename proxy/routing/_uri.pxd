# Request targets: normalised as nginx does it, escaped and unescaped.

from libc.stdint cimport uint8_t, uint32_t

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


cdef enum Escape:
    ESCAPE_URI = 0        # a path: space " # % < > ? \ ^ ` { | } and what is not printable ASCII
    ESCAPE_ARGS = 1       # the same and & + ;
    ESCAPE_COMPONENT = 2  # all but ALPHA DIGIT - . _ ~
    ESCAPE_HTML = 3       # a path inside HTML: as URI, but "?" stays and ' goes
    ESCAPE_REFRESH = 4    # a Refresh field or a Location of ours: "%" stays


cdef enum Unescape:
    UNESCAPE_ALL = 0
    UNESCAPE_URI = 1      # stop behind the first "?", encoded or not
    UNESCAPE_REDIRECT = 2  # the same, and decode only what is printable and above "%"


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

# Bytes that escape_uri would write; n when nothing needs it.
cdef uint32_t escaped_size(const char* s, uint32_t n, int kind) noexcept
# Writes to out (escaped_size bytes; not overlapping s), returns the bytes written.
cdef uint32_t escape_uri(char* out, const char* s, uint32_t n, int kind) noexcept
# out may be s. Returns the bytes written; *used (unless NULL) the bytes read.
cdef uint32_t unescape_uri(
    char* out, const char* s, uint32_t n, int kind, uint32_t* used
) noexcept
