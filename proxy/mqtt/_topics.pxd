# Which topics a client may publish to and subscribe: patterns that may hold its own names.

from libc.stdint cimport uint8_t, uint32_t

from proxy.base.span cimport Str

cdef enum Verb:
    MAY_PUBLISH = 1
    MAY_SUBSCRIBE = 2


cdef struct Pattern:
    Str text
    uint8_t verbs


cdef class TopicRules:
    cdef object kept              # the bytes that the patterns point into
    cdef Pattern* rows
    cdef uint32_t n


# May this client publish to a topic, or subscribe a filter (without its share)? rules None: yes.
cdef bint may(TopicRules rules, int verb, Str topic, Str client_id, Str user) noexcept
# Does the pattern hold all that the topic or filter names?
cdef bint holds(Str pattern, Str topic, Str client_id, Str user) noexcept nogil
