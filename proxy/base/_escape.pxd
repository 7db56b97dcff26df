# Escaping in URIs: which bytes each place needs percent-encoded, and the way back.

from libc.stdint cimport uint8_t, uint32_t


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


cdef uint8_t[256] HEX             # value of a hex digit, 255: none

# Bytes that escape_uri would write; n when nothing needs it.
cdef uint32_t escaped_size(const char* s, uint32_t n, int kind) noexcept
# Writes to out (escaped_size bytes; not overlapping s), returns the bytes written.
cdef uint32_t escape_uri(char* out, const char* s, uint32_t n, int kind) noexcept
# out may be s. Returns the bytes written; *used (unless NULL) the bytes read.
cdef uint32_t unescape_uri(
    char* out, const char* s, uint32_t n, int kind, uint32_t* used
) noexcept
