# Chooses what answers instead of a default error page.
# nginx: ngx_http_special_response_handler, ngx_http_send_error_page.

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject

from proxy.base._report cimport R_ERROR, report_about
from proxy.base._request cimport MAX_REDIRECTS, Location
from proxy.base.head cimport M_GET, M_HEAD
from proxy.base.span cimport Str, of_bytes, to_bytes
from proxy.base.verdict cimport INTERNAL, REENTER, STATUS
from proxy.content._redirect cimport put_location, redirect_inside, split_args
from proxy.content._settings cimport ErrorPage, ErrorPages
from proxy.variables._variables cimport evaluate


cdef PyObject* find_page(Request r, int status) noexcept:
    if r.location is None or r.location.errors is None:
        return NULL
    return PyDict_GetItem((<ErrorPages>r.location.errors).pages, status)


cdef bint has_error_page(Request r, int status) noexcept:
    return find_page(r, status) != NULL


cdef int on_error(Request r, int status) noexcept:
    cdef PyObject* found
    cdef ErrorPage page
    cdef ErrorPages all_pages
    cdef Str where
    cdef Str uri
    cdef Str args
    cdef int rc
    if r.is_error_page or r.redirects > MAX_REDIRECTS or r.location is None:
        return 0
    all_pages = <ErrorPages>r.location.errors
    if all_pages is None:
        return 0
    if not all_pages.is_recursive:
        r.is_error_page = 1
    found = find_page(r, status)
    if found == NULL:
        return 0
    page = <ErrorPage>found
    r.error_status = <unsigned short>(page.status if page.status >= 0 else status)
    rc = evaluate(page.where, r, &where)
    if rc < 0:
        return rc
    if where.n and where.p[0] == c"/":
        if page.is_constant:
            uri = where
            args = of_bytes(page.args)
        else:
            split_args(where, &uri, &args)
        if r.method != M_HEAD:
            r.method = M_GET
        return redirect_inside(r, uri, args)
    if where.n and where.p[0] == c"@":
        return enter_named(r, all_pages.named, to_bytes(where))
    r.status = <unsigned short>page.status if page.status in (301, 302, 303, 307, 308) else 302
    r.error_status = 0
    rc = put_location(r, where)
    return rc if rc < 0 else STATUS


cdef int enter_named(Request r, dict named, object name) noexcept:
    cdef PyObject* found = PyDict_GetItem(named, name)
    if found == NULL or r.uri.n == 0:
        report_about(R_ERROR, r, b'could not find named location "', of_bytes(name), b'"')
        return INTERNAL
    r.location = <Location>found
    return REENTER
