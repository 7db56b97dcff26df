# Default error pages: nginx's words (tests and people look for them), our name below.

from proxy.base.span cimport of_bytes

from proxy import VERSION

REASONS = {
    301: "Moved Permanently", 302: "Found", 303: "See Other", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request", 401: "Authorization Required",
    402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Not Allowed",
    406: "Not Acceptable", 408: "Request Time-out", 409: "Conflict", 410: "Gone",
    411: "Length Required", 412: "Precondition Failed", 413: "Request Entity Too Large",
    414: "Request-URI Too Large", 415: "Unsupported Media Type",
    416: "Requested Range Not Satisfiable", 421: "Misdirected Request", 429: "Too Many Requests",
    494: "Request Header Or Cookie Too Large", 495: "The SSL certificate error",
    496: "No required SSL certificate was sent",
    497: "The plain HTTP request was sent to HTTPS port",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Temporarily Unavailable", 504: "Gateway Time-out",
    505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}
BAD = {
    494: "Request Header Or Cookie Too Large", 495: "The SSL certificate error",
    496: "No required SSL certificate was sent",
    497: "The plain HTTP request was sent to HTTPS port",
}
cdef dict pages = {}


def make_page(int status, bint has_version):
    name = f"headrace/{VERSION}" if has_version else "headrace"
    title = f"400 {BAD[status]}" if status in BAD else f"{status} {REASONS[status]}"
    heading = "400 Bad Request" if status in BAD else title
    detail = f"<center>{BAD[status]}</center>\r\n" if status in BAD else ""
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{heading}</h1></center>\r\n{detail}<hr><center>{name}</center>\r\n"
        "</body>\r\n</html>\r\n"
    ).encode()


cdef Str error_page(int status, bint has_version) noexcept:
    cdef Str none
    cdef bytes page
    none.p = NULL
    none.n = 0
    key = (status, has_version)
    page = pages.get(key)
    if page is None:
        if status not in REASONS:
            return none
        page = pages[key] = make_page(status, has_version)
    return of_bytes(page)
