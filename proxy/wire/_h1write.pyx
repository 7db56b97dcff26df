"""The two tables behind the writers: status lines and the date of this second."""

from libc.stdint cimport int64_t, uint16_t
from libc.string cimport memcpy

from proxy.base.span cimport Str, text

REASONS = {
    100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information",
    204: "No Content", 205: "Reset Content", 206: "Partial Content", 207: "Multi-Status",
    208: "Already Reported", 226: "IM Used",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily",
    303: "See Other", 304: "Not Modified", 305: "Use Proxy", 307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Not Allowed", 406: "Not Acceptable",
    407: "Proxy Authentication Required", 408: "Request Time-out", 409: "Conflict",
    410: "Gone", 411: "Length Required", 412: "Precondition Failed",
    413: "Request Entity Too Large", 414: "Request-URI Too Large",
    415: "Unsupported Media Type", 416: "Requested Range Not Satisfiable",
    417: "Expectation Failed", 418: "I'm a Teapot", 421: "Misdirected Request",
    422: "Unprocessable Entity", 423: "Locked", 424: "Failed Dependency", 425: "Too Early",
    426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Temporarily Unavailable", 504: "Gateway Time-out",
    505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
    507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
}
LINES = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in REASONS.items()
}

cdef Str lines[600]
cdef const char* days = b"SunMonTueWedThuFriSat"
cdef const char* months = b"JanFebMarAprMayJunJulAugSepOctNovDec"
cdef int64_t dated = -1
cdef char date[32]


cdef fill():
    cdef int status
    cdef bytes line
    for status in range(600):
        lines[status] = text(b"", 0)
    for status, line in LINES.items():  # LINES keeps the bytes alive
        lines[status] = text(<const char*>line, len(line))


fill()


cdef Str status_line(uint16_t status) noexcept nogil:
    return lines[status] if status < 600 else text(b"", 0)


cdef char* put_status_line(char* out, uint16_t status) noexcept nogil:
    cdef Str line = status_line(status)
    if line.n:
        return put_bytes(out, line.p, line.n)
    return put_response_line(out, status, line)


cdef inline void put_two(char* out, int value) noexcept nogil:
    out[0] = <char>(48 + value // 10)
    out[1] = <char>(48 + value % 10)


cdef void write_date(int64_t second) noexcept nogil:
    # Gregorian date from a day count, with years that begin in March, so that the leap
    # day comes last; good for every second from 1970 to 9999.
    cdef int64_t day, era_day, era, year
    cdef int year_day, month, rest
    cdef int64_t last = 253402300799  # of the year 9999
    if second < 0 or second > last:
        second = 0
    day = second // 86400
    rest = <int>(second % 86400)
    era_day = day + 719468
    era = era_day // 146097
    era_day -= era * 146097
    year = (era_day - era_day // 1460 + era_day // 36524 - era_day // 146096) // 365
    year_day = <int>(era_day - (365 * year + year // 4 - year // 100))
    month = (5 * year_day + 2) // 153
    put_two(date + 5, year_day - (153 * month + 2) // 5 + 1)
    month = month + 2 if month < 10 else month - 10  # January is 0
    year += era * 400 + (1 if month < 2 else 0)
    memcpy(date, days + (day + 4) % 7 * 3, 3)
    memcpy(date + 3, b", ", 2)
    date[7] = b" "
    memcpy(date + 8, months + month * 3, 3)
    date[11] = b" "
    put_two(date + 12, <int>(year // 100))
    put_two(date + 14, <int>(year % 100))
    date[16] = b" "
    put_two(date + 17, rest // 3600)
    date[19] = b":"
    put_two(date + 20, rest // 60 % 60)
    date[22] = b":"
    put_two(date + 23, rest % 60)
    memcpy(date + 25, b" GMT", 4)


cdef char* put_date(char* out, int64_t second) noexcept nogil:
    global dated
    if second != dated:
        write_date(second)
        dated = second
    memcpy(out, date, 29)
    return out + 29
