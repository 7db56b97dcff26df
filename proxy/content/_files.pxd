# Static files: what a location answers when nobody else does.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from proxy.base._request cimport Request, Source
from proxy.base.span cimport Str
from proxy.content._conditions cimport Range
from proxy.content._open cimport OpenFile


cdef class FileSource(Source):
    cdef OpenFile file
    cdef Range* ranges            # in the request's arena
    cdef uint32_t n
    cdef uint32_t at
    cdef bint is_told             # the head of the part `at` was sent
    cdef Str type                 # of each part, when there are many
    cdef uint64_t boundary        # 0: one part, without a head

    cdef int put_part_head(self, char* out, uint32_t i) noexcept


# GET and HEAD of a file. DONE (r.status, fields and r.source are set), STATUS (a redirect, 412),
# REROUTE (an index file), or a fault.
cdef int answer_file(Request r) noexcept
# What Range asks of a file's answer, after everything else about its head is settled: 0, STATUS
# (416), or a fault.
cdef int cut_ranges(Request r) noexcept
# The first of try_files that exists becomes r.uri. GO, REROUTE, REENTER, STATUS, or a fault.
cdef int try_files(Request r) noexcept
