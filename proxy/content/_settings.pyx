# Settings of content, filled by freeze.py and read-only from then on.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cython cimport final

from proxy.base.span cimport lower, of_bytes


@final
cdef class TryFiles:
    """try_files: `paths` are (Template, is it a folder); then `last`, or a status."""

    def __init__(self, paths, Template last, int status):
        self.paths = [path for path, _ in paths]
        self.is_folder = [bool(is_folder) for _, is_folder in paths]
        self.last = last
        self.status = <uint16_t>status


@final
cdef class ContentSettings:
    """All of them at once, by name; see the fields in _settings.pxd."""

    def __init__(
        self, *, Template root not None, bytes prefix not None, int rooted, int alias_n,
        list index not None, dict types not None, bytes default_type not None,
        TryFiles tries, dict named not None, FileCache cache, int since, bint has_etag,
        bint tells_not_found, unsigned int max_ranges, Template charset,
        frozenset charset_types, Template source_charset,
    ):
        self.root = root
        self.prefix = prefix
        self.rooted = <uint8_t>rooted
        self.alias_n = <uint32_t>alias_n
        self.index = index
        self.types = types
        self.default_type = default_type
        self.tries = tries
        self.named = named
        self.cache = cache
        self.since = <uint8_t>since
        self.has_etag = has_etag
        self.tells_not_found = tells_not_found
        self.max_ranges = max_ranges
        self.charset = charset
        self.charset_types = charset_types
        self.source_charset = source_charset


@final
cdef class ErrorPage:
    """One error_page; `status` is -1 without "=", 0 for a bare one."""

    def __init__(self, Template where not None, bytes args not None, int status):
        self.where = where
        self.args = args
        self.is_constant = where.is_constant
        self.status = status


@final
cdef class ErrorPages:
    """error_page of one location: `pages` are status -> ErrorPage."""

    def __init__(self, dict pages not None, bint is_recursive, dict named not None):
        self.pages = pages
        self.is_recursive = is_recursive
        self.named = named


cdef Str type_of(ContentSettings s, Str uri) noexcept:
    cdef uint32_t at = uri.n
    cdef uint32_t i
    cdef PyObject* found
    cdef bytes key
    cdef char* p
    while at > 1 and uri.n - at < 64:
        at -= 1
        if uri.p[at] == c"/":
            break
        if uri.p[at] == c".":
            if at < 2 or uri.p[at - 1] == c"/":    # a name that only begins with it has none
                break
            key = PyBytes_FromStringAndSize(NULL, uri.n - at - 1)
            p = PyBytes_AS_STRING(key)
            for i in range(at + 1, uri.n):
                p[i - at - 1] = <char>lower(<unsigned char>uri.p[i])
            found = PyDict_GetItem(s.types, key)
            if found != NULL:
                return of_bytes(<bytes>found)
            break
    return of_bytes(s.default_type)
