# Reports go to the sink that was put, or nowhere.

from libc.string cimport memcpy, strlen

from proxy.base.span cimport text


cdef enum:
    REPORT_BYTES = 1024

cdef Sink sink_of_all = NULL


cdef void put_sink(Sink sink) noexcept:
    global sink_of_all
    sink_of_all = sink


cdef void report(int level, Request r, Str message) noexcept:
    if sink_of_all != NULL:
        sink_of_all(level, r, message)


cdef void report_text(int level, Request r, const char* message) noexcept:
    if sink_of_all != NULL:
        sink_of_all(level, r, text(message, strlen(message)))


cdef void report_about(int level, Request r, const char* before, Str about,
                       const char* behind) noexcept:
    cdef char[REPORT_BYTES] room
    cdef size_t n = 0
    if sink_of_all == NULL:
        return
    n = add(room, n, text(before, strlen(before)))
    n = add(room, n, about)
    n = add(room, n, text(behind, strlen(behind)))
    sink_of_all(level, r, text(room, n))


cdef size_t add(char* room, size_t n, Str s) noexcept:
    cdef size_t size = s.n
    if size > REPORT_BYTES - n:
        size = REPORT_BYTES - n
    if size:
        memcpy(room + n, s.p, size)
    return n + size
