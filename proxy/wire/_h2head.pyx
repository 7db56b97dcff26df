"""Reads header blocks of requests and answers by RFC 9113 §8, and writes answers' blocks."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from proxy.base._arena cimport take
from proxy.base._clock cimport clock
from proxy.base._request cimport Request
from proxy.base.head cimport *
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport *
from proxy.wire._fields cimport *
from proxy.wire._h1 cimport begin_head, is_valid_host, method_of
from proxy.wire._h1answer cimport server_text
from proxy.wire._h1write cimport put_date, put_decimal, put_text
from proxy.wire._hpack cimport *
from proxy.wire._scan cimport IS_METHOD, class_of, is_folded, scan_target

cdef enum:
    HEAD_VERSION = 20
    OWN_BYTES = 384           # of fields that every answer may have

cdef uint64_t NOT_FOR_H2 = (  # RFC 9113 §8.2.2
    1 << F_CONNECTION | 1 << F_KEEP_ALIVE | 1 << F_PROXY_CONNECTION | 1 << F_TRANSFER_ENCODING
    | 1 << F_UPGRADE
)
cdef uint64_t NOT_PASSED = NOT_FOR_H2 | 1 << F_CONTENT_LENGTH


cdef struct Pseudo:
    Str[6] values             # by PseudoId - P_AUTHORITY
    uint32_t seen             # bits of the same


cdef inline Str pseudo(const Pseudo* s, PseudoId id) noexcept nogil:
    return s.values[<int>id - <int>P_AUTHORITY]


cdef inline bint has(const Pseudo* s, PseudoId id) noexcept nogil:
    return s.seen >> (<int>id - <int>P_AUTHORITY) & 1


cdef uint8_t read_urgency(const char* p, uint32_t n, uint8_t otherwise) noexcept nogil:
    cdef uint32_t i
    for i in range(n - 2 if n > 2 else 0):
        if p[i] == c"u" and p[i + 1] == c"=" and (
                i == 0 or p[i - 1] == c" " or p[i - 1] == c",") and c"0" <= p[i + 2] <= c"7":
            return <uint8_t>(p[i + 2] - c"0")
    return otherwise


cdef bint read_incremental(const char* p, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if p[i] == c"i" and (i == 0 or p[i - 1] == c" " or p[i - 1] == c",") and (
                i + 1 == n or p[i + 1] == c" " or p[i + 1] == c"," or p[i + 1] == c";"
                or i + 4 <= n and p[i + 1] == c"=" and p[i + 2] == c"?" and p[i + 3] == c"1"):
            return True
    return False


cdef int read_length(Head* h, const HpackField* f) noexcept nogil:
    cdef uint32_t i
    cdef int64_t length = 0
    if h.content_length >= 0 or f.value_n == 0 or f.value_n > 18:
        return BLOCK_MALFORMED
    for i in range(f.value_n):
        if not c"0" <= f.value[i] <= c"9":
            return BLOCK_MALFORMED
        length = length * 10 + (f.value[i] - 48)
    h.content_length = length
    return 0


cdef int note_field(HeadRoom* room, Head* h, const HpackField* f) noexcept nogil:
    """What a known field means for the message."""
    cdef const char* p = f.value
    if NOT_FOR_H2 >> f.id & 1:
        return BLOCK_MALFORMED
    if f.id == F_TE:
        if f.value_n != 8 or not is_folded(p, b"trailers", 8):
            return BLOCK_MALFORMED
        h.flags |= H_TE_TRAILERS
    elif f.id == F_CONTENT_LENGTH:
        return read_length(h, f)
    elif f.id == F_HOST:
        if h.flags & H_HAS_HOST or not is_valid_host(p, f.value_n):
            return BAD_REQUEST
        h.flags |= H_HAS_HOST
        h.host = <uint32_t>(p - room.bytes)
        h.host_n = f.value_n
    elif f.id == F_EXPECT:
        if f.value_n == 12 and is_folded(p, b"100-continue", 12):
            h.flags |= H_EXPECT_CONTINUE
    elif f.id == F_TRAILER:
        h.flags |= H_HAS_TRAILER
    return 0


cdef int add_field(HeadRoom* room, Head* h, const HpackField* f, bint* is_kept) noexcept nogil:
    """A regular field. 0, BLOCK_MALFORMED, or a fault."""
    cdef const Known* known
    cdef int rc
    cdef uint16_t most = room.cap_fields - 4     # for Host, or those of an upgrade
    if not f.notes & IS_NAME_GOOD or not f.notes & IS_VALUE_GOOD:
        return BLOCK_MALFORMED
    if f.notes & (IS_NAME_ODD | IS_NAME_UNDERSCORED) and room.lim.ignore_invalid and (
            f.notes & IS_NAME_ODD or not room.lim.underscores_allowed):
        return 0
    if room.lim.max_fields and room.lim.max_fields < most:
        most = room.lim.max_fields
    if h.n_fields >= most:
        return TOO_MANY_FIELDS
    # each by itself: there is no line that has both (nginx)
    if f.name_n > 0xffff or f.name_n > room.lim.max_line or f.value_n > room.lim.max_line:
        return HEAD_TOO_LARGE
    if f.id:
        known = names_by_id[f.id]
        if f.id <= F_PROXY_CONNECTION:
            rc = note_field(room, h, f)
            if rc != 0:
                return rc
        if known.traits & IS_SINGLE and find_field(h, f.id) != NULL:
            return BAD_REQUEST
    elif f.name_n == 8 and memcmp(f.name, b"priority", 8) == 0:
        room.urgency = read_urgency(f.value, f.value_n, URGENCY)
        room.is_incremental = read_incremental(f.value, f.value_n)
    if f.notes & HAS_CONTROLS:
        if f.id and f.id <= F_PROXY_CONNECTION:  # what decides where a message ends or goes
            return BLOCK_MALFORMED
        h.flags |= H_HAS_CONTROLS
    put_in(room, h, f)
    is_kept[0] = True
    return 0


cdef inline void put_in(HeadRoom* room, Head* h, const HpackField* f) noexcept nogil:
    cdef Field* to = &h.fields[h.n_fields]
    to.id = f.id
    to.flags = F_IS_HOP if f.id and names_by_id[f.id].traits & IS_HOP else 0
    to.name = <uint32_t>(f.name - room.bytes)
    to.name_n = <uint16_t>f.name_n
    to.value = <uint32_t>(f.value - room.bytes)
    to.value_n = f.value_n
    h.n_fields += 1


cdef int add_answer_field(
    HeadRoom* room, Head* h, const HpackField* f, bint is_trailer, bint* is_kept
) noexcept nogil:
    """A regular field of an answer. 0, BLOCK_MALFORMED, or a fault."""
    cdef int rc
    if not f.notes & IS_NAME_GOOD or NOT_FOR_H2 >> f.id & 1 or (
            f.notes & (IS_VALUE_GOOD | HAS_CONTROLS) != IS_VALUE_GOOD):
        return BLOCK_MALFORMED
    if f.notes & (IS_NAME_ODD | IS_NAME_UNDERSCORED) and room.lim.ignore_invalid and (
            f.notes & IS_NAME_ODD or not room.lim.underscores_allowed):
        return 0
    if is_trailer and names_by_id[f.id].traits & IS_NO_TRAILER:
        return 0
    if h.n_fields >= room.cap_fields or f.name_n > 0xffff:
        return UPSTREAM_HEAD_TOO_LARGE
    if f.id == F_CONTENT_LENGTH:
        rc = read_length(h, f)
        if rc != 0:
            return rc
    put_in(room, h, f)
    is_kept[0] = True
    return 0


cdef int read_status(Head* h, Str value) noexcept nogil:
    cdef uint32_t i
    if h.status or value.n != 3 or value.p[0] == c"0":
        return BLOCK_MALFORMED
    for i in range(3):
        if not c"0" <= value.p[i] <= c"9":
            return BLOCK_MALFORMED
        h.status = <uint16_t>(h.status * 10 + (value.p[i] - 48))
    return 0


cdef int read_answer_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room, bint is_trailer
) noexcept nogil:
    cdef Head* h = room.head
    cdef const uint8_t* end = p + n
    cdef char* at = room.bytes
    cdef HpackField f
    cdef int rc
    cdef int found = 0        # the first thing that was wrong; what is malformed counts more
    cdef bint is_kept
    begin_head(h, room.fields, room.cap_fields)
    h.base = room.bytes
    h.version = HEAD_VERSION
    h.flags = H_KEEP_ALIVE
    begin_block(t)
    while True:
        rc = read_field(t, &p, end, at, room.bytes + room.n, &f)
        if rc == HPACK_END:
            break
        if rc < 0:
            return BLOCK_WRONG
        if f.id >= P_AUTHORITY:                  # RFC 9113 §8.3, §8.3.2
            rc = BLOCK_MALFORMED
            if f.id == P_STATUS and not is_trailer and not h.has_start_line:
                rc = read_status(h, text(f.value, f.value_n))
        else:
            h.has_start_line = True
            is_kept = False
            rc = add_answer_field(room, h, &f, is_trailer, &is_kept)
            if is_kept:
                at += f.name_n + f.value_n
                if at - room.bytes > <int64_t>room.lim.max_head:
                    at = room.bytes              # read on, for the table's sake
                    h.n_fields = 0
                    rc = UPSTREAM_HEAD_TOO_LARGE
        if rc == BLOCK_MALFORMED or rc < 0 and found == 0:
            found = rc
    h.size = <uint32_t>(at - room.bytes)
    # 101 does not exist here (RFC 9113 §8.6)
    if not is_trailer and (h.status == 0 or h.status == 101):
        return BLOCK_MALFORMED
    return found


cdef int read_request_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room
) noexcept nogil:
    cdef Head* h = room.head
    cdef const uint8_t* end = p + n
    cdef char* at = room.bytes
    cdef char* room_end = room.bytes + room.n
    cdef HpackField f
    cdef Pseudo s
    cdef int rc
    cdef int found = 0        # the first thing that was wrong; what is malformed counts more
    cdef bint is_kept
    cdef uint32_t bit
    s.seen = 0
    begin_head(h, room.fields, room.cap_fields)
    h.base = room.bytes
    h.version = HEAD_VERSION
    h.flags = H_KEEP_ALIVE
    room.urgency = URGENCY
    room.is_incremental = False
    room.is_connect = False
    begin_block(t)
    while True:
        rc = read_field(t, &p, end, at, room_end, &f)
        if rc == HPACK_END:
            break
        if rc < 0:
            return BLOCK_CUT if rc == HPACK_CUT else BLOCK_WRONG
        is_kept = False
        if f.id >= P_AUTHORITY:
            bit = 1 << (f.id - P_AUTHORITY)
            # behind a regular field, twice, of an answer, unknown (RFC 9113 §8.3)
            if h.has_start_line or f.id > P_SCHEME and f.id != P_PROTOCOL or s.seen & bit or (
                    f.notes & (IS_VALUE_GOOD | HAS_CONTROLS) != IS_VALUE_GOOD):
                rc = BLOCK_MALFORMED
            else:
                s.seen |= bit
                s.values[f.id - P_AUTHORITY] = text(f.value, f.value_n)
                is_kept = True
        else:
            h.has_start_line = True
            rc = add_field(room, h, &f, &is_kept)
        if rc == BLOCK_MALFORMED or rc < 0 and found == 0:
            found = rc
        if is_kept:
            at += f.name_n + f.value_n
            if at - room.bytes > <int64_t>room.lim.max_head:
                at = room.bytes                  # read on, for the table's sake
                h.n_fields = 0
                if found == 0:
                    found = HEAD_TOO_LARGE
    h.has_start_line = True
    rc = found
    if found != HEAD_TOO_LARGE and found != BLOCK_MALFORMED:
        rc = put_start_line(room, h, &s, &at, False)
        if rc <= 0:
            return rc if found == 0 else found
    # it can be answered, but none of it counts
    h.n_fields = 0
    h.host_n = 0
    h.content_length = -1
    h.flags = H_KEEP_ALIVE
    room.is_connect = False
    put_start_line(room, h, &s, &at, True)
    return rc


cdef int put_start_line(
    HeadRoom* room, Head* h, const Pseudo* s, char** to, bint is_blank
) noexcept nogil:
    """Method, target and host from the pseudo-fields, and a request line behind the fields."""
    cdef char* at = to[0]
    cdef Str method
    cdef Str target
    cdef int rc = 0
    if is_blank:
        method = text(b"GET", 3)
        target = text(b"/", 1)
    else:
        method = pseudo(s, P_METHOD)
        target = pseudo(s, P_PATH)
        if not has(s, P_METHOD) or method.n == 0:
            return BLOCK_MALFORMED
        if has(s, P_PROTOCOL):
            rc = check_connect(s, h)
            if rc == BLOCK_MALFORMED:
                return rc
            room.is_connect = True
            method = text(b"GET", 3)
        elif method.n == 7 and memcmp(method.p, b"CONNECT", 7) == 0:
            if has(s, P_SCHEME) or has(s, P_PATH) or not has(s, P_AUTHORITY):
                return BLOCK_NO_CONNECT
            target = text(b"/", 1)               # nothing is there to route by
        elif not has(s, P_SCHEME) or pseudo(s, P_SCHEME).n == 0 or not has(s, P_PATH) or (
                target.n == 0):
            return BLOCK_MALFORMED
        if rc == 0:
            rc = join_cookies(room, h, &at) or check_line(room, method, target)
        if rc == 0:
            rc = put_host(room, h, s, &at)
        if rc == 0 and room.is_connect:
            put_upgrade(room, h, &at)
        if rc < 0 and (method.n > 255 or target.n > room.lim.max_line):
            method = text(b"GET", 3)
            target = text(b"/", 1)
    h.line_off = h.method_off = <uint32_t>(at - room.bytes)
    h.method_n = <uint8_t>method.n
    memcpy(at, method.p, method.n)
    h.method = method_of(at, h.method_n)
    at += method.n
    at[0] = c" "
    at += 1
    h.target = h.path = <uint32_t>(at - room.bytes)
    h.target_n = h.path_n = target.n
    memcpy(at, target.p, target.n)
    at += target.n
    memcpy(at, b" HTTP/2.0", 9)
    at += 9
    h.line_n = <uint32_t>(at - room.bytes) - h.line_off
    h.size = h.at = <uint32_t>(at - room.bytes)
    return rc


cdef int check_line(HeadRoom* room, Str method, Str target) noexcept nogil:
    """What HTTP/1.1 asks of a request line, and nginx of a path."""
    cdef uint32_t i
    if method.n > 255:
        return BAD_REQUEST
    for i in range(method.n):
        if not class_of(method.p[i]) & IS_METHOD:
            return BAD_REQUEST
    if method.n + target.n + 12 > room.lim.max_line:
        return URI_TOO_LARGE
    if target.p[0] != c"/" or scan_target(target.p, target.p + target.n) != target.p + target.n:
        return BAD_REQUEST
    return 0


cdef int put_host(HeadRoom* room, Head* h, const Pseudo* s, char** to) noexcept nogil:
    """:authority is Host; one beside it must say the same (RFC 9113 §8.3.1)."""
    cdef Str authority = pseudo(s, P_AUTHORITY)
    cdef Field* f
    if not has(s, P_AUTHORITY):
        return 0 if h.flags & H_HAS_HOST else BAD_REQUEST
    if not is_valid_host(authority.p, authority.n):
        return BAD_REQUEST
    if h.flags & H_HAS_HOST:
        if h.host_n != authority.n or memcmp(room.bytes + h.host, authority.p, authority.n) != 0:
            return BAD_REQUEST
        return 0
    memcpy(to[0], b"host", 4)
    f = &h.fields[h.n_fields]
    f.name = <uint32_t>(to[0] - room.bytes)
    f.name_n = 4
    f.value = h.host = <uint32_t>(authority.p - room.bytes)
    f.value_n = h.host_n = authority.n
    f.id = F_HOST
    f.flags = 0
    h.n_fields += 1
    h.flags |= H_HAS_HOST
    to[0] += 4
    return 0


cdef int check_connect(const Pseudo* s, const Head* h) noexcept nogil:
    """An extended CONNECT (RFC 8441 §4): 0, BLOCK_MALFORMED, or a fault."""
    cdef Str method = pseudo(s, P_METHOD)
    cdef Str protocol = pseudo(s, P_PROTOCOL)
    if method.n != 7 or memcmp(method.p, b"CONNECT", 7) != 0 or h.content_length >= 0 or (
            not has(s, P_AUTHORITY) or not has(s, P_SCHEME) or pseudo(s, P_SCHEME).n == 0
            or not has(s, P_PATH) or pseudo(s, P_PATH).n == 0):
        return BLOCK_MALFORMED
    if protocol.n != 9 or not is_folded(protocol.p, b"websocket", 9):
        return NOT_IMPLEMENTED                   # RFC 9220 §3 names that status
    return 0


cdef void put_upgrade(HeadRoom* room, Head* h, char** to) noexcept nogil:
    """What HTTP/1.1 asks for a WebSocket with (RFC 6455 §4.1); a key of the client's own means
    nothing here (RFC 8441 §5)."""
    cdef uint16_t i
    cdef uint16_t kept = 0
    for i in range(h.n_fields):
        if h.fields[i].name_n == 17 and is_folded(
                room.bytes + h.fields[i].name, b"sec-websocket-key", 17):
            continue
        h.fields[kept] = h.fields[i]
        kept += 1
    h.n_fields = kept
    put_made(room, h, to, F_UPGRADE, text(b"upgrade", 7), text(b"websocket", 9))
    put_made(room, h, to, F_CONNECTION, text(b"connection", 10), text(b"Upgrade", 7))
    put_made(room, h, to, 0, text(b"sec-websocket-key", 17),
             text(b"AAAAAAAAAAAAAAAAAAAAAA==", KEY_BYTES))
    room.key = h.fields[h.n_fields - 1].value
    h.flags |= H_UPGRADE


cdef void put_made(
    HeadRoom* room, Head* h, char** to, uint8_t id, Str name, Str value
) noexcept nogil:
    cdef Field* f = &h.fields[h.n_fields]
    memcpy(to[0], name.p, name.n)
    memcpy(to[0] + name.n, value.p, value.n)
    f.name = <uint32_t>(to[0] - room.bytes)
    f.name_n = <uint16_t>name.n
    f.value = f.name + <uint32_t>name.n
    f.value_n = <uint32_t>value.n
    f.id = id
    f.flags = F_IS_HOP if id else 0
    h.n_fields += 1
    to[0] += name.n + value.n


cdef int join_cookies(HeadRoom* room, Head* h, char** to) noexcept nogil:
    """Crumbs become one field again (RFC 9113 §8.2.3). 0."""
    cdef char* at = to[0]
    cdef Field* first = NULL
    cdef Field* f
    cdef uint16_t i
    cdef uint16_t kept = 0
    cdef bint is_joined = False
    for i in range(h.n_fields):
        f = &h.fields[i]
        if f.id == F_COOKIE:
            if first != NULL:
                if not is_joined:
                    is_joined = True
                    memcpy(at, room.bytes + first.value, first.value_n)
                    at += first.value_n
                at[0] = c";"
                at[1] = c" "
                memcpy(at + 2, room.bytes + f.value, f.value_n)
                at += f.value_n + 2
                continue
            first = &h.fields[kept]
        h.fields[kept] = f[0]
        kept += 1
    if is_joined:
        first.value = <uint32_t>(to[0] - room.bytes)
        first.value_n = <uint32_t>(at - to[0])
        h.n_fields = kept
        to[0] = at
    return 0


cdef int skip_block(
    HpackTable* t, const uint8_t* p, uint32_t n, HeadRoom* room, bint is_trailer
) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef HpackField f
    cdef int found = 0
    cdef int rc
    begin_block(t)
    while True:
        rc = read_field(t, &p, end, room.bytes, room.bytes + room.n, &f)
        if rc == HPACK_END:
            return found
        if rc < 0:
            return BLOCK_WRONG
        if is_trailer and (f.id >= P_AUTHORITY or not f.notes & IS_NAME_GOOD
                           or not f.notes & IS_VALUE_GOOD or NOT_FOR_H2 >> f.id & 1):
            found = BLOCK_MALFORMED


# ---------------------------------------------------------------- answers

cdef char[64] dated           # Date as it goes out, of the second that it was made for
cdef uint32_t dated_n = 0
cdef uint64_t dated_at = 0
cdef char[64] named           # Server, with and without version
cdef char[64] unnamed
cdef uint32_t named_n = 0
cdef uint32_t unnamed_n = 0


cdef inline char* put_one(char* at, uint8_t id, Str name, Str value) noexcept nogil:
    # none of our literals is kept by a table: nothing can be guessed from sizes (RFC 7541 §7.1)
    return put_literal(at, static_of_id[id & 63] if id else 0, name, value, False)


cdef inline char* put_date_field(char* out) noexcept:
    global dated_n, dated_at
    cdef Str date
    if dated_n == 0 or dated_at != clock.date_at:
        date = text(clock.date, 29)
        dated_n = <uint32_t>(put_one(dated, F_DATE, date, date) - dated)
        dated_at = clock.date_at
    memcpy(out, dated, dated_n)
    return out + dated_n


cdef inline char* put_server(char* out, bint has_version) noexcept:
    if has_version:
        memcpy(out, named, 64)
        return out + named_n
    memcpy(out, unnamed, 64)
    return out + unnamed_n


cdef Str cleaned(Request r, Str value) noexcept:
    # what would end a line in HTTP/1.1 is a space here too
    cdef char* room = <char*>take(&r.arena, value.n)
    if room == NULL:
        value.n = 0
        return value
    put_text(room, value)
    value.p = room
    while value.n and (value.p[0] == c" " or value.p[0] == 9):
        value.p += 1
        value.n -= 1
    while value.n and (value.p[value.n - 1] == c" " or value.p[value.n - 1] == 9):
        value.n -= 1
    return value


cdef size_t room_for_answer(Request r) noexcept:
    cdef size_t size = OWN_BYTES + r.content_type.n
    cdef uint16_t i
    if r.answer.fields != NULL and not r.is_answer_ours:
        size += r.answer.size + r.answer.n_fields * MAX_WRITTEN
    for i in range(r.n_out):
        size += r.out[i].name.n + r.out[i].value.n + MAX_WRITTEN
    return size


cdef int write_answer_block(Request r, char* out) noexcept:
    cdef char* at = out
    cdef char[32] digits
    cdef Head* h = &r.answer
    cdef Field* f
    cdef Str value
    cdef uint16_t i
    cdef uint64_t seen = 0
    cdef bint is_passing = h.fields != NULL and not r.is_answer_ours
    if is_passing:
        for i in range(h.n_fields):
            f = &h.fields[i]
            if f.id and not f.flags:
                seen |= <uint64_t>1 << f.id
    for i in range(r.n_out):
        if r.out[i].id:
            seen |= <uint64_t>1 << r.out[i].id
    at = put_status(at, r.status)
    if not seen >> F_SERVER & 1:
        at = put_server(at, r.location is None or r.location.server_tokens)
    if not seen >> F_DATE & 1:
        at = put_date_field(at)
    if r.content_type.n and not seen >> F_CONTENT_TYPE & 1:
        at = put_one(at, F_CONTENT_TYPE, r.content_type, r.content_type)
    if r.out_kind == BODY_LENGTH and r.status != 204 and r.status != 304 and r.status >= 200:
        value = text(digits, put_decimal(digits, <uint64_t>r.length) - digits)
        at = put_one(at, F_CONTENT_LENGTH, value, value)
    if r.last_modified >= 0 and not seen >> F_LAST_MODIFIED & 1:
        value = text(digits, put_date(digits, r.last_modified) - digits)
        at = put_one(at, F_LAST_MODIFIED, value, value)
    if is_passing:
        for i in range(h.n_fields):
            f = &h.fields[i]
            if f.flags or NOT_PASSED >> f.id & 1:
                continue
            at = put_one(at, f.id, name_of(h, f), value_of(h, f))
    for i in range(r.n_out):
        if r.out[i].name.n and not (NOT_PASSED >> r.out[i].id & 1):
            at = put_one(at, r.out[i].id, r.out[i].name, cleaned(r, r.out[i].value))
    return <int>(at - out)


cdef size_t room_for_hints(Request r) noexcept:
    return OWN_BYTES + r.answer.size + r.answer.n_fields * MAX_WRITTEN


cdef int write_hint_block(Request r, char* out) noexcept:
    cdef Head* h = &r.answer
    cdef char* at = put_status(out, 103)
    cdef char* begin = at
    cdef Field* f
    cdef uint16_t i
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not f.flags and not (NOT_PASSED >> f.id & 1):
            at = put_one(at, f.id, name_of(h, f), value_of(h, f))
    return 0 if at == begin else <int>(at - out)


cdef size_t room_for_trailers(Request r) noexcept:
    cdef size_t size = 0
    cdef uint16_t i
    for i in range(r.n_trailers):
        size += r.trailers[i].name.n + r.trailers[i].value.n + MAX_WRITTEN
    return size


cdef int write_trailer_block(Request r, char* out) noexcept:
    cdef char* at = out
    cdef uint16_t i
    for i in range(r.n_trailers):
        at = put_one(at, 0, r.trailers[i].name, cleaned(r, r.trailers[i].value))
    return <int>(at - out)


cdef fill():
    global named_n, unnamed_n
    cdef Str name = server_text(True)
    named_n = <uint32_t>(put_one(named, F_SERVER, name, name) - named)
    name = server_text(False)
    unnamed_n = <uint32_t>(put_one(unnamed, F_SERVER, name, name) - unnamed)


fill()
