# Maps URIs to paths, and answers $document_root, $realpath_root and $request_filename.
# nginx: ngx_http_map_uri_to_path.

from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcpy, strlen

from proxy.base._arena cimport copy, take
from proxy.base.span cimport of_bytes, text
from proxy.base.verdict cimport INTERNAL, NO_MEMORY
from proxy.content._settings cimport BY_ALIAS, BY_PATTERN
from proxy.variables._variables cimport NO_CACHE, declare, evaluate

cdef extern from "<stdlib.h>" nogil:
    char* realpath(const char*, char*)


cdef int find_root(ContentSettings s, Request r, Str* out) noexcept:
    cdef Str root
    cdef Str prefix
    cdef char* p
    cdef int rc = evaluate(s.root, r, &root)
    if rc < 0:
        return rc
    if root.n and root.p[0] != c"/":
        prefix = of_bytes(s.prefix)
        p = <char*>take(&r.arena, prefix.n + root.n + 1)
        if p == NULL:
            return NO_MEMORY
        memcpy(p, prefix.p, prefix.n)
        p[prefix.n] = c"/"
        memcpy(p + prefix.n + 1, root.p, root.n)
        root = text(p, prefix.n + 1 + root.n)
    out[0] = root
    return 0


cdef int join(Request r, Str root, Str name, uint32_t reserve, Path* out) noexcept:
    cdef char* p = <char*>take(&r.arena, root.n + name.n + reserve + 1)
    if p == NULL:
        return NO_MEMORY
    memcpy(p, root.p, root.n)
    memcpy(p + root.n, name.p, name.n)
    out.p = p
    out.n = root.n + name.n
    out.root_n = root.n
    p[out.n] = 0
    if memchr(p, 0, out.n) != NULL:              # it would name another file
        return INTERNAL
    return 0


cdef int join_path(Request r, Str root, Str name, Path* out) noexcept:
    return join(r, root, name, 0, out)


cdef int map_path(ContentSettings s, Request r, uint32_t reserve, Path* out) noexcept:
    cdef Str root
    cdef Str rest = r.uri
    cdef int rc = find_root(s, r, &root)
    if rc < 0:
        return rc
    if s.rooted == BY_ALIAS:
        if rest.n < s.alias_n:                   # rewritten away from the location's name
            return INTERNAL
        rest.p += s.alias_n
        rest.n -= s.alias_n
    elif s.rooted == BY_PATTERN and not r.alias_takes_uri:
        rest.n = 0
    return join(r, root, rest, reserve, out)


cdef inline ContentSettings settings_of(Request r):
    if r.location is None:
        return None
    return <ContentSettings>r.location.content


cdef int get_document_root(Request r, uint64_t data, Str* out) noexcept:
    cdef ContentSettings s = settings_of(r)
    cdef int rc
    if s is None:
        return 0
    rc = find_root(s, r, out)
    return rc if rc < 0 else 1


cdef int get_realpath_root(Request r, uint64_t data, Str* out) noexcept:
    cdef ContentSettings s = settings_of(r)
    cdef Path path
    cdef Str root
    cdef char* real
    cdef int rc
    if s is None:
        return 0
    rc = find_root(s, r, &root)
    if rc == 0:
        rc = join(r, root, text("", 0), 0, &path)
    if rc < 0:
        return rc
    real = realpath(path.p, NULL)
    if real == NULL:
        return INTERNAL
    out[0] = copy(&r.arena, text(real, strlen(real)))
    free(real)
    return 1 if out.n else NO_MEMORY


cdef int get_request_filename(Request r, uint64_t data, Str* out) noexcept:
    cdef ContentSettings s = settings_of(r)
    cdef Path path
    cdef int rc
    if s is None:
        return 0
    rc = map_path(s, r, 0, &path)
    if rc < 0:
        return rc
    out[0] = text(path.p, path.n)
    return 1


declare(b"document_root", get_document_root, 0, NO_CACHE)
declare(b"realpath_root", get_realpath_root, 0, NO_CACHE)
declare(b"request_filename", get_request_filename, 0, NO_CACHE)
