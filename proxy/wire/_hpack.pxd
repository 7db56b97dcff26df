# HPACK (RFC 7541): blocks of compressed fields, read one field at a time; fields written.
#
#     while True:
#         rc = read_field(&d, &p, end, out, out_end, &f)
#         rc == HPACK_FIELD: f.name and f.value lie behind each other from `out` on;
#         HPACK_END: the block is over; < 0: the block is wrong, and so is all that follows
#         it on this connection (COMPRESSION_ERROR).
#
# The decoder's table is a bounded ring in memory of its own. The encoder uses the static
# table only: nothing that it wrote has to be remembered.

from libc.stdint cimport uint8_t, uint32_t

from proxy.base.span cimport Str


cdef enum:
    TABLE_BYTES = 4096        # SETTINGS_HEADER_TABLE_SIZE that we leave at its default
    ENTRY_BYTES = 32          # what an entry costs beside its bytes (RFC 7541 §4.1)
    MAX_SLOTS = 128           # TABLE_BYTES / ENTRY_BYTES
    MAX_WRITTEN = 16          # bytes that a written field may need beside name and value


cdef enum HpackStep:
    HPACK_END = 0
    HPACK_FIELD = 1
    HPACK_WRONG = -1          # what is no HPACK at all
    HPACK_NO_ROOM = -2        # `out` is too small, or no memory: the connection cannot go on
    HPACK_CUT = -3            # the block ends within an integer


cdef enum PseudoId:           # of names that begin with a colon; beside FieldId, which ends at 64
    P_AUTHORITY = 64
    P_METHOD = 65
    P_PATH = 66
    P_SCHEME = 67
    P_STATUS = 68
    P_PROTOCOL = 69
    P_OTHER = 70


cdef enum FieldNote:          # bits of what is known of name and value already
    IS_NAME_GOOD = 1          # lower-case token, or a pseudo name
    IS_NAME_ODD = 2           # and a character that nginx calls invalid is in it
    IS_NAME_UNDERSCORED = 4
    IS_VALUE_GOOD = 8         # no CR, LF, NUL, no white space at its ends (RFC 9113 §8.2.1)
    IS_NEVER_INDEXED = 16
    HAS_CONTROLS = 32         # … but another control byte
    ARE_NAME_NOTES = 7


cdef struct HpackField:
    char* name
    char* value
    uint32_t name_n
    uint32_t value_n
    uint8_t id                # FieldId or PseudoId
    uint8_t notes             # FieldNote


cdef struct Entry:
    uint32_t at               # offset of the name; the value follows it
    uint32_t name_n
    uint32_t value_n
    uint8_t id
    uint8_t notes


cdef struct HpackTable:
    char* bytes               # NULL until the first entry comes
    Entry* slots              # a ring of `cap_slots`, a power of two
    uint32_t cap_bytes
    uint32_t end_bytes        # where the next entry's bytes go
    uint32_t cap_slots
    uint32_t first            # the oldest
    uint32_t n
    uint32_t size             # as RFC 7541 §4.1 counts
    uint32_t max_size         # what the peer's encoder set, at most TABLE_BYTES
    uint8_t most_padding      # bits behind a Huffman code: 7 (RFC 7541 §5.2), or its owner's
    bint is_block_begun       # a field was read: a size update is wrong from here on


cdef void begin_table(HpackTable* t) noexcept nogil
cdef void free_table(HpackTable* t) noexcept nogil

cdef inline void begin_block(HpackTable* t) noexcept nogil:
    """Another block begins (RFC 7541 §4.2: size updates stand at its beginning)."""
    t.is_block_begun = False

# The next field of a block of which all bytes are here. `out` needs room for what the rest of
# the block can grow to (`grown`), or for an entry of the table if that is more.
cdef int read_field(
    HpackTable* t, const uint8_t** p, const uint8_t* end, char* out, char* out_end,
    HpackField* f
) noexcept nogil


# Bytes of a block of which more is to come: can they still become one? Looks at the integers that
# it begins with, so that a frame whose rest never comes is not waited for.
cdef bint is_hopeless(const uint8_t* p, const uint8_t* end) noexcept nogil


cdef inline uint32_t grown(uint32_t n) noexcept nogil:
    """The most bytes that one field out of n bytes of a block has: codes have five bits or more,
    and an index means an entry."""
    return n * 8 // 5 + TABLE_BYTES


# ---------------------------------------------------------------- writing

cdef uint8_t* static_of_id    # 64: where the static table has a name first, 0: nowhere

cdef char* put_index(char* out, uint32_t index) noexcept nogil
# A literal that no table keeps; `index` is of a name in the static table, or 0 and `name` is
# written in lower case. Room: name.n + value.n + MAX_WRITTEN.
cdef char* put_literal(
    char* out, uint32_t index, Str name, Str value, bint is_never_indexed
) noexcept nogil
cdef char* put_status(char* out, uint32_t status) noexcept nogil
