# A log_format, compiled: writes one line of a request into memory that the caller has.

from libc.stdint cimport uint8_t

from proxy.base._request cimport Request
from proxy.variables._variables cimport Template


cdef enum LogEscape:      # nginx: log_format … escape=
    LOG_DEFAULT = 0       # " \ and what is not printable ASCII as \xXX; "-" for what is missing
    LOG_JSON = 1          # as inside a JSON string; nothing for what is missing
    LOG_NONE = 2


cdef class Format:
    cdef readonly Template template
    cdef readonly uint8_t escape

    # Bytes written, the end of line included; -1: it does not fit into `room` bytes.
    cdef Py_ssize_t write_line(self, Request r, char* p, size_t room) noexcept
