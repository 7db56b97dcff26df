# Field names to numbers and back: which names compiled code knows, and what they are.

from libc.stdint cimport uint8_t, uint32_t

from proxy.base.span cimport Str, text
from proxy.wire._scan cimport is_folded


cdef enum NameTrait:
    IS_HOP = 1          # never forwarded as it came (RFC 9110 §7.6.1)
    IS_SINGLE = 2       # a request may have one only (what nginx calls unique)
    IS_PROTECTED = 4    # Connection may not name it: framing, routing, credentials
    IS_NO_TRAILER = 8   # never taken from a trailer section (RFC 9110 §6.5.1)


cdef struct Known:
    # one slot of the table; a free one has n == 0
    uint8_t n
    uint8_t id             # FieldId
    uint8_t traits         # NameTrait
    char[29] name          # as it is usually written


cdef Known* known_names    # 256 slots
cdef Known** names_by_id   # 64; an unknown number leads to a slot with n == 0


cdef inline uint8_t slot_of(const char* p, uint32_t n) noexcept nogil:
    # factors found by trial: no two names share a slot (check_names says so)
    return <uint8_t>(
        n * 66 + (<uint8_t>p[0] | 0x20) * 83 + (<uint8_t>p[n - 1] | 0x20) * 125)


cdef inline const Known* find_known(const char* p, uint32_t n) noexcept nogil:
    """The slot of a name made of n > 0 token characters (any case), or NULL."""
    cdef const Known* known = &known_names[slot_of(p, n)]
    if known.n == n and is_folded(p, known.name, n):
        return known
    return NULL


cdef inline uint8_t find_name(const char* p, uint32_t n) noexcept nogil:
    """The FieldId of a name made of token characters (any case), F_OTHER when unknown."""
    cdef const Known* known = find_known(p, n) if n else NULL
    return known.id if known != NULL else 0


cdef inline uint8_t traits_of(uint8_t id) noexcept nogil:
    return names_by_id[id & 63].traits


cdef inline Str name_text(uint8_t id) noexcept nogil:
    """The name of a FieldId as it is usually written; empty for F_OTHER."""
    return text(names_by_id[id & 63].name, names_by_id[id & 63].n)
