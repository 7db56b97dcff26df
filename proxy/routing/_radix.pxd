# A radix tree over bytes: exact and prefix search; keys come and go while it is in use.
#
# Values are Python objects that the tree holds a reference to. A search gives a borrowed
# one: who keeps it beyond the next change takes a reference.

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef struct Node:
    PyObject* value       # owned, NULL: no key ends here
    uint8_t* kids         # first bytes of the children, then their numbers (_radix.pyx)
    uint16_t n_kids
    uint16_t cap_kids
    uint8_t label_n
    uint8_t label[43]     # the bytes between the parent and here; a longer one is a chain


cdef class Radix:
    cdef Node* nodes      # the arena; node 0 is the root
    cdef uint32_t used
    cdef uint32_t cap
    cdef uint32_t free_head    # chain of freed nodes, 0: none
    cdef readonly uint32_t size   # keys

    cdef int put(self, const char* key, uint32_t n, object value) except -1
    cdef int drop(self, const char* key, uint32_t n) except -1
    cdef PyObject* find(self, const char* s, uint32_t n) noexcept
    cdef PyObject* find_prefix(self, const char* s, uint32_t n, uint32_t* length) noexcept
    cdef int find_prefixes(
        self, const char* s, uint32_t n, PyObject** values, uint32_t* lengths, int most
    ) noexcept
    cdef uint32_t new_node(self) except 0
    cdef int add_kid(self, uint32_t at, uint8_t byte, uint32_t kid) except -1
    cdef void free_node(self, uint32_t number) noexcept
    cdef uint32_t walk(
        self, const char* key, uint32_t n, uint32_t* parent, uint8_t* byte
    ) noexcept
    cdef void join(self, uint32_t at) noexcept
