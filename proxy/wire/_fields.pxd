# Field names to numbers and back: which names compiled code knows, and what they are.

from libc.stdint cimport uint8_t, uint32_t

from proxy.base.span cimport Str


cdef enum NameTrait:
    IS_HOP = 1          # never forwarded as it came (RFC 9110 §7.6.1)
    IS_SINGLE = 2       # a request may have one only (what nginx calls unique)
    IS_PROTECTED = 4    # Connection may not name it: framing, routing, credentials
    IS_NO_TRAILER = 8   # never taken from a trailer section (RFC 9110 §6.5.1)


# by FieldId; 64 entries
cdef uint8_t* name_traits

# The FieldId of a name made of token characters (any case), F_OTHER when unknown.
cdef uint8_t find_name(const char* p, uint32_t n) noexcept nogil

# The name of a FieldId as it is usually written; empty for F_OTHER.
cdef Str name_text(uint8_t id) noexcept nogil
