# What the conf says about content at one location: where files lie, what they are, what to try.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from proxy.base._request cimport Request
from proxy.base.span cimport Str
from proxy.content._open cimport FileCache
from proxy.variables._variables cimport Template


cdef enum Rooted:
    BY_ROOT = 0           # the whole path of the URI is appended
    BY_ALIAS = 1          # what follows the location's name is appended
    BY_PATTERN = 2        # alias in a regex location: nothing is


cdef enum SinceRule:
    SINCE_OFF = 0
    SINCE_EXACT = 1
    SINCE_BEFORE = 2


cdef class TryFiles:
    cdef list paths               # Template each
    cdef list is_folder           # bool each: it ended with "/"
    cdef Template last            # None: `status` answers
    cdef uint16_t status


cdef class ContentSettings:
    cdef Template root
    cdef bytes prefix             # what a root that is not absolute begins with
    cdef uint8_t rooted           # Rooted
    cdef uint32_t alias_n         # bytes of the URI that the alias stands for
    cdef list index               # Template each
    cdef dict types               # bytes extension, lower case -> bytes
    cdef bytes default_type
    cdef TryFiles tries           # or None
    cdef dict named               # bytes "@name" -> Location, of the server
    cdef FileCache cache          # or None
    cdef uint8_t since            # SinceRule
    cdef bint has_etag
    cdef bint tells_not_found     # log_not_found
    cdef uint32_t max_ranges
    cdef Template charset         # or None
    cdef frozenset charset_types  # None: all
    cdef Template source_charset  # or None


cdef class ErrorPage:
    cdef Template where
    cdef bytes args               # of a constant path
    cdef bint is_constant
    cdef int status               # -1: that of the error; 0: that of the answer


cdef class ErrorPages:
    cdef dict pages               # int status -> ErrorPage
    cdef bint is_recursive
    cdef dict named


# The type of a path's extension, else default_type (nginx: ngx_http_set_content_type).
cdef Str type_of(ContentSettings s, Str uri) noexcept
