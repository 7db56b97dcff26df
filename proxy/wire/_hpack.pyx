"""HPACK: integers, Huffman codes, the two tables, and the representations made of them."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy, memmove, memset

from proxy.base.head cimport F_OTHER
from proxy.base.span cimport Str, lower
from proxy.wire._fields cimport find_name
from proxy.wire._scan cimport IS_NAME, IS_ODD, IS_UNDERSCORE, class_of, scan_text

cdef enum:
    STATIC_N = 61
    EOS = 256
    SHORT_BITS = 8            # codes of so many bits are found by one look
    LONGEST = 30
    MOST_SHIFT = 14           # of an integer's last byte: nothing here may be as long as 2 MiB
    MOST_PADDING = 7

# RFC 7541 appendix A
STATIC = [
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"),
    (b":path", b"/index.html"), (b":scheme", b"http"), (b":scheme", b"https"),
    (b":status", b"200"), (b":status", b"204"), (b":status", b"206"), (b":status", b"304"),
    (b":status", b"400"), (b":status", b"404"), (b":status", b"500"),
    (b"accept-charset", b""), (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""),
    (b"accept-ranges", b""), (b"accept", b""), (b"access-control-allow-origin", b""),
    (b"age", b""), (b"allow", b""), (b"authorization", b""), (b"cache-control", b""),
    (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""),
    (b"content-type", b""), (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""),
    (b"expires", b""), (b"from", b""), (b"host", b""), (b"if-match", b""),
    (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""),
    (b"range", b""), (b"referer", b""), (b"refresh", b""), (b"retry-after", b""),
    (b"server", b""), (b"set-cookie", b""), (b"strict-transport-security", b""),
    (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""), (b"via", b""),
    (b"www-authenticate", b""),
]
# RFC 7541 appendix B: how many bits each symbol's code has. The codes themselves are canonical:
# in the order of (bits, symbol) each is one more than the one before.
LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806"
    "06060505050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d"
    "130d0e060f05060506050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617"
    "17171717181718181617181717171715161716171718161514161617171517161618151617171515161517161717"
    "14161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b141814151615"
    "15171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)

cdef struct Code:
    uint32_t bits             # the code, in its lowest bits
    uint8_t n

cdef struct Short:            # what the next eight bits say
    uint8_t symbol
    uint8_t n                 # 0: a longer code

cdef struct Rank:             # codes of one length, left-aligned in 32 bits
    uint64_t end              # the first code that is longer
    uint32_t begin
    uint16_t at               # of its first symbol in `ranked`

cdef Code[257] codes
cdef Short[256] shorts
cdef Rank[LONGEST + 1] ranks
cdef uint16_t[257] ranked     # symbols in the order of their codes
cdef HpackField[STATIC_N + 1] fixed
cdef uint8_t[64] fixed_of_id
static_of_id = fixed_of_id


# ---------------------------------------------------------------- strings

cdef Py_ssize_t read_huffman(
    const uint8_t* p, uint32_t n, char* out, const char* out_end, uint32_t padding
) noexcept nogil:
    """Bytes written; HPACK_WRONG for EOS and for more bits of padding than that, HPACK_NO_ROOM."""
    cdef const uint8_t* end = p + n
    cdef char* at = out
    cdef uint64_t held = 0    # bits not used yet, the next one is the highest
    cdef uint32_t have = 0
    cdef uint32_t code
    cdef uint8_t size
    cdef Short short
    while True:
        while have <= 56 and p < end:
            held |= <uint64_t>p[0] << (56 - have)
            have += 8
            p += 1
        if have < SHORT_BITS:
            break
        if at == out_end:
            return HPACK_NO_ROOM
        short = shorts[held >> 56]
        if short.n:
            at[0] = <char>short.symbol
            at += 1
            held <<= short.n
            have -= short.n
            continue
        code = <uint32_t>(held >> 32)
        size = SHORT_BITS + 1
        while code >= ranks[size].end:
            size += 1
        if size > have:
            break
        code = ranks[size].at + ((code - ranks[size].begin) >> (32 - size))
        if ranked[code] == EOS:
            return HPACK_WRONG
        at[0] = <char>ranked[code]
        at += 1
        held <<= size
        have -= size
    while have:
        # a last short code, or the padding: so many bits at most, all of them 1
        short = shorts[held >> 56]
        if short.n == 0 or short.n > have:
            break
        if at == out_end:
            return HPACK_NO_ROOM
        at[0] = <char>short.symbol
        at += 1
        held <<= short.n
        have -= short.n
    if have > padding or have and held >> (64 - have) != (1 << have) - 1:
        return HPACK_WRONG
    return at - out


cdef inline int read_integer(
    const uint8_t** p, const uint8_t* end, uint32_t most, uint32_t* value
) noexcept nogil:
    """RFC 7541 §5.1; `most` is the prefix with all its bits set. 0, HPACK_WRONG or HPACK_CUT."""
    cdef const uint8_t* at = p[0]
    cdef uint32_t found
    cdef uint32_t shift = 0
    if at == end:
        return HPACK_WRONG
    found = at[0] & most
    at += 1
    if found == most:
        while True:
            if shift > MOST_SHIFT:
                return HPACK_WRONG
            if at == end:
                return HPACK_CUT
            found += <uint32_t>(at[0] & 0x7f) << shift
            shift += 7
            at += 1
            if not at[-1] & 0x80:
                break
    value[0] = found
    p[0] = at
    return 0


cdef bint is_hopeless(const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef uint32_t value = 0
    cdef int rc
    if p == end:
        return False
    if p[0] & 0x80 or p[0] & 0xe0 == 0x20:
        return read_integer(&p, end, 0x7f if p[0] & 0x80 else 0x1f, &value) == HPACK_WRONG
    rc = read_integer(&p, end, 0x3f if p[0] & 0x40 else 0x0f, &value)
    if rc == 0 and p < end:                      # the length of its name, or value
        rc = read_integer(&p, end, 0x7f, &value)
    return rc == HPACK_WRONG


cdef Py_ssize_t read_string(
    const uint8_t** p, const uint8_t* end, char* out, char* out_end, uint32_t padding
) noexcept nogil:
    """Bytes written to `out`, or what is wrong."""
    cdef bint is_coded
    cdef uint32_t n = 0
    cdef Py_ssize_t got
    if p[0] == end:
        return HPACK_WRONG
    is_coded = p[0][0] & 0x80
    got = read_integer(p, end, 0x7f, &n)
    if got < 0:
        return got
    if n > <size_t>(end - p[0]):
        return HPACK_WRONG
    if is_coded:
        got = read_huffman(p[0], n, out, out_end, padding)
    elif n > <size_t>(out_end - out):
        return HPACK_NO_ROOM
    else:
        memcpy(out, p[0], n)
        got = n
    p[0] += n
    return got


# ---------------------------------------------------------------- what is known of a field

cdef uint8_t pseudo_id(const char* p, uint32_t n) noexcept nogil:
    cdef uint32_t i
    cdef Str name
    for i in range(1, 9):
        if fixed[i].name_n == n and same(fixed[i].name, p, n):
            return fixed[i].id
    name.p = b":protocol"
    return P_PROTOCOL if n == 9 and same(name.p, p, 9) else P_OTHER


cdef inline bint same(const char* a, const char* b, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if a[i] != b[i]:
            return False
    return True


cdef void look_at_name(HpackField* f) noexcept nogil:
    """A name that came as letters: its number, and is it one at all (RFC 9113 §8.2.1)?"""
    cdef uint32_t i
    cdef uint8_t seen = 0
    cdef uint8_t kind
    cdef char c
    f.id = F_OTHER
    f.notes = 0
    if f.name_n == 0:
        return
    if f.name[0] == c":":
        f.id = pseudo_id(f.name, f.name_n)
        f.notes = IS_NAME_GOOD
        return
    for i in range(f.name_n):
        c = f.name[i]
        kind = class_of(c) & IS_NAME
        if kind == 0 or c"A" <= c <= c"Z":
            return
        seen |= kind
    f.notes = IS_NAME_GOOD
    if seen & IS_ODD:
        f.notes |= IS_NAME_ODD
    if seen & IS_UNDERSCORE:
        f.notes |= IS_NAME_UNDERSCORED
    f.id = find_name(f.name, f.name_n)


cdef inline void look_at_value(HpackField* f) noexcept nogil:
    cdef const char* p = f.value
    cdef uint32_t n = f.value_n
    if n == 0:
        f.notes |= IS_VALUE_GOOD
    elif p[0] == c" " or p[0] == 9 or p[n - 1] == c" " or p[n - 1] == 9:
        return
    elif scan_text(p, p + n) == p + n:
        f.notes |= IS_VALUE_GOOD
    elif memchr(p, 0, n) == NULL and memchr(p, c"\r", n) == NULL and memchr(p, c"\n", n) == NULL:
        f.notes |= IS_VALUE_GOOD | HAS_CONTROLS


# ---------------------------------------------------------------- the table

cdef void begin_table(HpackTable* t) noexcept nogil:
    memset(t, 0, sizeof(HpackTable))
    t.max_size = TABLE_BYTES
    t.most_padding = MOST_PADDING


cdef void free_table(HpackTable* t) noexcept nogil:
    free(t.bytes)
    free(t.slots)
    begin_table(t)


cdef inline void evict(HpackTable* t, uint32_t size) noexcept nogil:
    """Drop the oldest until no more than `size` is left."""
    cdef Entry* e
    while t.size > size:
        e = &t.slots[t.first]
        t.size -= e.name_n + e.value_n + ENTRY_BYTES
        t.first = (t.first + 1) & (t.cap_slots - 1)
        t.n -= 1
    if t.n == 0:
        t.end_bytes = 0


cdef inline Entry* newest(HpackTable* t, uint32_t back) noexcept nogil:
    return &t.slots[(t.first + t.n - 1 - back) & (t.cap_slots - 1)]


cdef bint make_room(HpackTable* t, uint32_t n) noexcept nogil:
    """A slot, and n bytes behind those in use. They are kept in a row: of twice their bound,
    so that moving them to the front costs each byte one copy."""
    cdef Entry* slots
    cdef char* grown_bytes
    cdef uint32_t i
    cdef uint32_t cap
    cdef uint32_t begin = t.slots[t.first].at if t.n else t.end_bytes
    if t.n == t.cap_slots:
        cap = t.cap_slots * 2 if t.cap_slots else 16
        slots = <Entry*>malloc(cap * sizeof(Entry))
        if slots == NULL:
            return False
        for i in range(t.n):
            slots[i] = t.slots[(t.first + i) & (t.cap_slots - 1)]
        free(t.slots)
        t.slots = slots
        t.first = 0
        t.cap_slots = cap
    if t.end_bytes + n <= t.cap_bytes:
        return True
    if t.cap_bytes < 2 * TABLE_BYTES:
        cap = t.cap_bytes if t.cap_bytes else 512
        while cap < t.end_bytes + n and cap < 2 * TABLE_BYTES:
            cap *= 2
        grown_bytes = <char*>realloc(t.bytes, cap)
        if grown_bytes == NULL:
            return False
        t.bytes = grown_bytes
        t.cap_bytes = cap
    if t.end_bytes + n > t.cap_bytes:
        memmove(t.bytes, t.bytes + begin, t.end_bytes - begin)
        for i in range(t.n):
            t.slots[(t.first + i) & (t.cap_slots - 1)].at -= begin
        t.end_bytes -= begin
    return True


cdef int insert(HpackTable* t, const HpackField* f) noexcept nogil:
    """RFC 7541 §4.4: one that is larger than the table empties it. `f` points outside it."""
    cdef uint32_t n = f.name_n + f.value_n
    cdef Entry* e
    if n + ENTRY_BYTES > t.max_size:
        evict(t, 0)
        return 0
    evict(t, t.max_size - n - ENTRY_BYTES)
    if not make_room(t, n):
        return HPACK_NO_ROOM
    e = &t.slots[(t.first + t.n) & (t.cap_slots - 1)]
    e.at = t.end_bytes
    e.name_n = f.name_n
    e.value_n = f.value_n
    e.id = f.id
    e.notes = f.notes
    if n:
        memcpy(t.bytes + e.at, f.name, n)
    t.end_bytes += n
    t.n += 1
    t.size += n + ENTRY_BYTES
    return 0


cdef inline int find_entry(HpackTable* t, uint32_t index, HpackField* f) noexcept nogil:
    """What stands at an index; in place. HPACK_WRONG when nothing does."""
    cdef Entry* e
    if index == 0:
        return HPACK_WRONG
    if index <= STATIC_N:
        f[0] = fixed[index]
        return 0
    index -= STATIC_N + 1
    if index >= t.n:
        return HPACK_WRONG
    e = newest(t, index)
    f.name = t.bytes + e.at
    f.name_n = e.name_n
    f.value = f.name + e.name_n
    f.value_n = e.value_n
    f.id = e.id
    f.notes = e.notes
    return 0


cdef int read_field(
    HpackTable* t, const uint8_t** p, const uint8_t* end, char* out, char* out_end,
    HpackField* f
) noexcept nogil:
    cdef uint8_t first
    cdef uint32_t index = 0
    cdef uint32_t n
    cdef Py_ssize_t got
    cdef int rc
    cdef uint32_t padding = t.most_padding
    while p[0] < end and p[0][0] & 0xe0 == 0x20:
        if t.is_block_begun or read_integer(p, end, 0x1f, &index) < 0 or index > TABLE_BYTES:
            return HPACK_WRONG
        t.max_size = index
        evict(t, index)
    if p[0] == end:
        return HPACK_END
    t.is_block_begun = True
    first = p[0][0]
    if first & 0x80:
        rc = read_integer(p, end, 0x7f, &index)
        if rc < 0:
            return rc
        if find_entry(t, index, f) < 0:
            return HPACK_WRONG
        n = f.name_n + f.value_n
        if n > <size_t>(out_end - out):
            return HPACK_NO_ROOM
        memcpy(out, f.name, f.name_n)
        memcpy(out + f.name_n, f.value, f.value_n)
        f.name = out
        f.value = out + f.name_n
        return HPACK_FIELD
    rc = read_integer(p, end, 0x3f if first & 0x40 else 0x0f, &index)
    if rc < 0:
        return rc
    if index:
        if find_entry(t, index, f) < 0:
            return HPACK_WRONG
        if f.name_n > <size_t>(out_end - out):
            return HPACK_NO_ROOM
        memcpy(out, f.name, f.name_n)
        f.name = out
        f.notes &= ARE_NAME_NOTES
    else:
        got = read_string(p, end, out, out_end, padding)
        if got < 0:
            return <int>got
        f.name = out
        f.name_n = <uint32_t>got
        look_at_name(f)
    f.value = out + f.name_n
    got = read_string(p, end, f.value, out_end, padding)
    if got < 0:
        return <int>got
    f.value_n = <uint32_t>got
    look_at_value(f)
    if first & 0x40:
        return HPACK_FIELD if insert(t, f) == 0 else HPACK_NO_ROOM
    if first & 0x10:
        f.notes |= IS_NEVER_INDEXED
    return HPACK_FIELD


# ---------------------------------------------------------------- writing

cdef inline char* put_integer(
    char* out, uint8_t first, uint32_t most, uint32_t value
) noexcept nogil:
    if value < most:
        out[0] = <char>(first | value)
        return out + 1
    out[0] = <char>(first | most)
    out += 1
    value -= most
    while value >= 0x80:
        out[0] = <char>(value & 0x7f | 0x80)
        out += 1
        value >>= 7
    out[0] = <char>value
    return out + 1


cdef char* put_string(char* out, const char* p, uint32_t n, bint is_name) noexcept nogil:
    """With Huffman codes where they make it shorter; a name in lower case."""
    cdef uint64_t bits = 0
    cdef uint64_t held = 0
    cdef uint32_t have = 0
    cdef uint32_t i
    cdef const Code* code
    for i in range(n):
        bits += codes[lower(<uint8_t>p[i]) if is_name else <uint8_t>p[i]].n
    if (bits + 7) // 8 >= n:
        out = put_integer(out, 0, 0x7f, n)
        if not is_name:
            memcpy(out, p, n)
            return out + n
        for i in range(n):
            out[i] = <char>lower(<uint8_t>p[i])
        return out + n
    out = put_integer(out, 0x80, 0x7f, <uint32_t>((bits + 7) // 8))
    for i in range(n):
        code = &codes[lower(<uint8_t>p[i]) if is_name else <uint8_t>p[i]]
        held = held << code.n | code.bits
        have += code.n
        while have >= 8:
            have -= 8
            out[0] = <char>(held >> have)
            out += 1
    if have:
        out[0] = <char>(held << (8 - have) | 0xff >> have)
        out += 1
    return out


cdef char* put_index(char* out, uint32_t index) noexcept nogil:
    return put_integer(out, 0x80, 0x7f, index)


cdef char* put_literal(
    char* out, uint32_t index, Str name, Str value, bint is_never_indexed
) noexcept nogil:
    out = put_integer(out, 0x10 if is_never_indexed else 0, 0x0f, index)
    if index == 0:
        out = put_string(out, name.p, name.n, True)
    return put_string(out, value.p, value.n, False)


cdef char* put_status(char* out, uint32_t status) noexcept nogil:
    cdef char[3] digits
    cdef Str value
    cdef uint32_t i
    for i in range(8, 15):
        if fixed[i].value[0] - 48 == <int>(status // 100) and (
                (fixed[i].value[1] - 48) * 10 + fixed[i].value[2] - 48 == <int>(status % 100)):
            return put_index(out, i)
    digits[0] = <char>(48 + status // 100 % 10)
    digits[1] = <char>(48 + status // 10 % 10)
    digits[2] = <char>(48 + status % 10)
    value.p = digits
    value.n = 3
    return put_literal(out, 8, value, value, False)


cdef fill():
    cdef int i
    cdef int j
    cdef int size = 0
    cdef uint32_t code = 0
    cdef HpackField* f
    cdef bytes name
    cdef bytes value
    ids = {b":authority": P_AUTHORITY, b":method": P_METHOD, b":path": P_PATH,
           b":scheme": P_SCHEME, b":status": P_STATUS}
    memset(fixed_of_id, 0, sizeof(fixed_of_id))
    memset(ranks, 0, sizeof(ranks))
    memset(shorts, 0, sizeof(shorts))
    for i, symbol in enumerate(sorted(range(257), key=lambda it: (LENGTHS[it], it))):
        code <<= LENGTHS[symbol] - size
        if LENGTHS[symbol] != size:
            size = LENGTHS[symbol]
            ranks[size].at = <uint16_t>i
            ranks[size].begin = code << (32 - size)
        codes[symbol].bits = code
        codes[symbol].n = <uint8_t>size
        ranked[i] = <uint16_t>symbol
        code += 1
        ranks[size].end = <uint64_t>code << (32 - size)
        if size <= SHORT_BITS:
            for j in range(1 << (SHORT_BITS - size)):
                shorts[codes[symbol].bits << (SHORT_BITS - size) | <uint32_t>j] = Short(
                    <uint8_t>symbol, <uint8_t>size)
    for i, (name, value) in enumerate(STATIC, 1):  # STATIC keeps the bytes alive
        f = &fixed[i]
        f.name = <char*>name
        f.name_n = <uint32_t>len(name)
        f.value = <char*>value
        f.value_n = <uint32_t>len(value)
        if name in ids:
            f.id = <uint8_t>ids[name]
        else:
            f.id = find_name(f.name, f.name_n)
            if f.id and fixed_of_id[f.id] == 0:
                fixed_of_id[f.id] = <uint8_t>i
        f.notes = IS_NAME_GOOD | IS_VALUE_GOOD


fill()
