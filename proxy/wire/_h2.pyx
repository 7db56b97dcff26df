"""Frames in and out, and for each what RFC 9113 asks of the stream that it names."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from proxy.base.span cimport Str, text
from proxy.base.verdict cimport BAD_REQUEST, HEAD_TOO_LARGE, NOT_ALLOWED
from proxy.wire._h2frame cimport *
from proxy.wire._h2head cimport *
from proxy.wire._h2out cimport *
from proxy.wire._h2past cimport *
from proxy.wire._hpack cimport begin_table, free_table, is_hopeless

cdef enum State:
    IN_PREFACE = 0
    AT_SETTINGS = 1           # the client's SETTINGS come first (§3.4)
    IN_FRAMES = 2

cdef enum:
    PUBLIC_STREAMS = 100      # a server may be asked at once before its SETTINGS came (§6.5.2)
    SPARE_STREAMS = 32        # cancelled ones, which upstreams may still be busy with
    SMALL_WINDOW = 256        # it is given back with each piece: half of it would hold nothing
    # Encoders are about that pad a string which ends where a byte does with a byte of ones; nginx
    # takes it, and so do we: no code is made of eight ones, so the text is the same either way.
    REQUESTS_PADDING = 8
    ANSWERS_PADDING = 15      # of upstreams, as nginx takes it

cdef const char* preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef bint is_preface(const char* p, uint32_t n) noexcept nogil:
    return memcmp(p, preface, n if n < PREFACE_BYTES else PREFACE_BYTES) == 0


cdef void break_off(Http2* c, H2Code code) noexcept nogil:
    """A connection error (§5.4.1)."""
    if c.state != IS_BROKEN:
        go_away(c, 0 if c.is_client else c.last_id, code)
        c.state = IS_BROKEN
        c.code = code


cdef H2Event broken(Http2* c, H2Code code) noexcept nogil:
    break_off(c, code)
    return H2_BROKEN


# ---------------------------------------------------------------- streams

cdef inline bint is_idle(const Http2* c, uint32_t id) noexcept nogil:
    return id > c.last_id or id & 1 == 0


cdef bint is_open(const Http2* c, const H2State* s) noexcept nogil:
    return s.id != 0 and find(<Http2*>c, s.id) == s


cdef void open_stream(Http2* c, H2State* s, void* owner, int64_t length) noexcept nogil:
    cdef uint32_t i = c.id >> 1 & (BUCKETS - 1)
    s.owner = owner
    s.id = c.id
    s.is_wrong = c.is_wrong
    s.is_ended = c.is_end or c.is_wrong
    s.is_answered = s.is_headed = s.is_bare = False
    s.due = 0
    s.send_window = c.peer_window
    s.recv_window = s.window = c.window
    s.left = length
    s.next = c.buckets[i]
    c.buckets[i] = s
    c.n_open += 1


cdef void ask_stream(Http2* c, H2State* s, void* owner) noexcept nogil:
    c.id = c.last_id = c.last_id + 2 if c.last_id else 1
    c.is_end = False
    open_stream(c, s, owner, -1)
    s.urgency = URGENCY
    expect_updates(c)


cdef inline void ended(Http2* c, H2State* s) noexcept nogil:
    """The peer's END_STREAM came."""
    s.is_ended = True
    if c.is_client and s.is_answered:
        close_stream(c, s, WAS_ENDED)


cdef void reset_id(Http2* c, uint32_t id, H2Code code) noexcept nogil:
    """Of a stream that is not open: refused, or over long ago."""
    put_number(c, RST_STREAM, id, code)
    if how_over(c, id) == 0:
        remember(c, id, WAS_REFUSED)


cdef void reset_stream(Http2* c, H2State* s, H2Code code) noexcept nogil:
    cdef uint32_t id = s.id
    cdef H2Unwanted* u
    if is_open(c, s):
        put_number(c, RST_STREAM, id, code)
        close_stream(c, s, WAS_REFUSED)
        if code == H2_NO_ERROR:
            u = &c.unwanted[c.n_unwanted & (HEARD_OUT - 1)]
            u.id = id
            u.send_window = s.send_window
            u.left = s.left
            c.n_unwanted += 1


cdef bint refuse_late(Http2* c, const char* p, uint32_t n) noexcept nogil:
    cdef uint32_t id = c.block_id
    if id == 0 and c.state >= AT_SETTINGS and n >= FRAME_HEAD and p[3] == HEADERS:
        id = u32(p + 5) & MAX_WINDOW
    if id <= c.last_id or id & 1 == 0 or c.is_client:
        return False
    c.last_id = id
    c.n_resets += 1
    reset_id(c, id, H2_PROTOCOL_ERROR)
    return True


cdef H2Event hear_out(
    Http2* c, H2Unwanted* u, uint32_t n, bint is_end, bint is_wrong
) noexcept nogil:
    """n bytes of a body that nobody wants, or its trailers: they may be wrong all the same."""
    cdef uint32_t id = u.id
    if is_wrong or u.left >= 0 and (n > u.left or is_end and n < u.left):
        u.id = 0
        return wrong_stream(c, id, NULL, H2_PROTOCOL_ERROR)
    if u.left >= 0:
        u.left -= n
    if is_end:
        learn(c, id, WAS_ENDED)
    return control(c)                            # a window of it is no flood


cdef H2Event wrong_stream(Http2* c, uint32_t id, H2State* s, H2Code code) noexcept nogil:
    """A stream error (§5.4.2), the client's doing: H2_RESET, or H2_DONE where nobody has it.
    Each counts as a reset: whoever makes us cancel requests cancels them."""
    put_number(c, RST_STREAM, id, code)
    c.n_resets += 1
    if c.n_resets > c.max_resets:
        return broken(c, H2_ENHANCE_YOUR_CALM)
    if s == NULL:
        if how_over(c, id) == 0:
            remember(c, id, WAS_REFUSED)
        return H2_DONE
    close_stream(c, s, WAS_REFUSED)
    c.s = s
    c.code = code
    c.is_ours = True
    return H2_RESET


cdef H2Event wrong_message(Http2* c, uint32_t id, H2State* s) noexcept nogil:
    """A malformed request (§8.1.1), which is noticed behind its head: it may be answered."""
    if c.is_client or s.is_answered or c.n_resets >= c.max_resets:
        return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
    c.n_resets += 1
    s.is_wrong = s.is_ended = True
    c.s = s
    return H2_WRONG


cdef inline H2Event control(Http2* c) noexcept nogil:
    """A frame that costs work and brings none."""
    c.n_control += 1
    return broken(c, H2_ENHANCE_YOUR_CALM) if c.n_control > c.max_control else H2_DONE


cdef void give_window(Http2* c, H2State* s, uint32_t n) noexcept nogil:
    s.due += n
    if s.due and (s.due * 2 >= s.window or s.window < SMALL_WINDOW) and not s.is_ended and (
            is_open(c, s)):
        put_number(c, WINDOW_UPDATE, s.id, s.due)
        s.recv_window += s.due
        s.due = 0


cdef void widen_window(Http2* c, H2State* s, uint32_t n) noexcept nogil:
    if n > s.window and not s.is_ended and is_open(c, s):
        put_number(c, WINDOW_UPDATE, s.id, n - s.window)
        s.recv_window += n - s.window
        s.window = n


# ---------------------------------------------------------------- the beginning, the end

cdef void begin_h2(Http2* c) noexcept nogil:
    cdef char* at
    c.send_window = c.recv_window = FIRST_WINDOW
    c.peer_window = FIRST_WINDOW
    c.peer_frame = FRAME_BYTES
    c.peer_streams = PUBLIC_STREAMS
    c.last_taken = MAX_WINDOW
    c.n_updates = UPDATES_FOR_FRAME * REMEMBERED
    begin_table(&c.table)
    c.table.most_padding = ANSWERS_PADDING if c.is_client else REQUESTS_PADDING
    if c.is_client:
        if not make_room(c, PREFACE_BYTES):
            c.state = IS_BROKEN
            return
        memcpy(c.out, preface, PREFACE_BYTES)
        c.out_n = PREFACE_BYTES
        c.state = AT_SETTINGS
    if c.max_frame < FRAME_BYTES or c.is_client:
        c.max_frame = FRAME_BYTES
    at = put_frame(
        c, 18 if c.is_client else 24 if c.max_frame == FRAME_BYTES else 30, SETTINGS, 0, 0)
    if at == NULL:
        return
    put_setting(&at, INITIAL_WINDOW_SIZE, c.window)
    put_setting(&at, NO_RFC7540_PRIORITIES, 1)
    if c.is_client:
        put_setting(&at, ENABLE_PUSH, 0)
    else:
        put_setting(&at, MAX_CONCURRENT_STREAMS, c.max_streams)
        put_setting(&at, ENABLE_CONNECT_PROTOCOL, 1)
        if c.max_frame > FRAME_BYTES:
            put_setting(&at, MAX_FRAME_SIZE, c.max_frame)
    # the streams' windows bound what waits here, not the connection's
    put_number(c, WINDOW_UPDATE, 0, MAX_WINDOW - FIRST_WINDOW)
    c.recv_window = MAX_WINDOW


cdef void free_h2(Http2* c) noexcept nogil:
    free_table(&c.table)
    free(c.block)
    free(c.out)
    memset(c, 0, sizeof(Http2))
    c.state = IS_BROKEN


# ---------------------------------------------------------------- in

cdef H2Event read_frames(
    Http2* c, char* p, uint32_t n, uint32_t* used, HeadRoom* room
) noexcept nogil:
    cdef char* at = p
    cdef char* end = p + n
    cdef uint32_t size
    cdef H2Event event = H2_DONE
    used[0] = 0
    if c.state == IN_PREFACE:
        if not is_preface(p, n):
            return broken(c, H2_PROTOCOL_ERROR)
        if n < PREFACE_BYTES:
            return H2_MORE
        c.state = AT_SETTINGS
        at += PREFACE_BYTES
    while c.state != IS_BROKEN:
        if c.data_left or c.pad_left:
            if at == end:
                break
            event = read_piece(c, &at, end)
        else:
            if end - at < FRAME_HEAD:
                used[0] = <uint32_t>(at - p)
                return H2_MORE if at < end else H2_DONE
            size = (<uint32_t><uint8_t>at[0] << 16 | <uint32_t><uint8_t>at[1] << 8
                    | <uint8_t>at[2])
            if size > FRAME_BYTES and (size > c.max_frame or not may_be_wide(at[3]) or (
                    at[3] != DATA or c.block_id) and size > c.max_block):
                return broken(c, H2_FRAME_SIZE_ERROR)
            if at[3] == DATA and c.state == IN_FRAMES and c.block_id == 0:
                if end - at < FRAME_HEAD + (1 if at[4] & IS_PADDED and size else 0):
                    used[0] = <uint32_t>(at - p)
                    return H2_MORE
                event = begin_data(c, &at, size)
            else:
                # before all else, and of whole frames too: what is said does not depend on cuts
                if at[3] == HEADERS and not at[4] & (IS_PADDED | HAS_PRIORITY) and is_hopeless(
                        <const uint8_t*>at + FRAME_HEAD,
                        <const uint8_t*>at + min(<uint32_t>(end - at), FRAME_HEAD + size)):
                    return broken(c, H2_COMPRESSION_ERROR)
                if <size_t>(end - at) < FRAME_HEAD + size:
                    if at[3] == PUSH_PROMISE:    # wrong, whatever is in it
                        return broken(c, H2_PROTOCOL_ERROR)
                    used[0] = <uint32_t>(at - p)
                    return H2_MORE
                event = read_frame(c, at, size, room)
                at += FRAME_HEAD + size
        if event != H2_DONE:
            used[0] = <uint32_t>(at - p)
            return event
    used[0] = n
    return H2_BROKEN if c.state == IS_BROKEN else H2_DONE


cdef H2Event begin_data(Http2* c, char** p, uint32_t n) noexcept nogil:
    """The head of a DATA frame (§6.1); what its stream may not have is dropped."""
    cdef char* at = p[0]
    cdef uint32_t id = u32(at + 5) & MAX_WINDOW
    cdef uint8_t flags = <uint8_t>at[4]
    cdef uint32_t pad = 0
    cdef uint32_t body = n
    cdef H2State* s = NULL
    cdef H2Unwanted* unwanted
    cdef uint8_t how
    cdef H2Event event = H2_DONE
    p[0] += FRAME_HEAD
    if id == 0 or is_idle(c, id):
        return broken(c, H2_PROTOCOL_ERROR)
    if flags & IS_PADDED:
        if n == 0:
            return broken(c, H2_FRAME_SIZE_ERROR)
        pad = <uint8_t>at[FRAME_HEAD]
        p[0] += 1
        if pad >= n:
            return broken(c, H2_PROTOCOL_ERROR)
        body -= pad + 1
    if n > c.recv_window:
        return broken(c, H2_FLOW_CONTROL_ERROR)
    c.recv_window -= n
    if c.recv_window < MAX_WINDOW // 2:
        put_number(c, WINDOW_UPDATE, 0, <uint32_t>(MAX_WINDOW - c.recv_window))
        c.recv_window = MAX_WINDOW
    c.data_left = body
    c.pad_left = <uint8_t>pad
    c.data_is_end = flags & END_STREAM
    c.data_of = NULL
    s = find(c, id)
    if s == NULL:
        unwanted = find_unwanted(c, id)
        if unwanted != NULL:
            return hear_out(c, unwanted, body, c.data_is_end, False)
        how = how_over(c, id)
        if how == WAS_REFUSED:                   # it was on its way: a window of it is no flood
            return control(c)
        return wrong_stream(c, id, NULL, H2_STREAM_CLOSED)
    if s.is_ended:
        return control(c) if s.is_wrong else wrong_stream(c, id, s, H2_STREAM_CLOSED)
    if n > s.recv_window:
        return wrong_stream(c, id, s, H2_FLOW_CONTROL_ERROR)
    s.recv_window -= n
    if c.is_client and not s.is_headed:          # §8.1: a head comes first
        return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
    if flags & IS_PADDED:
        give_window(c, s, pad + 1)
    if s.left >= 0:                              # §8.1.1
        if body > s.left or c.data_is_end and body < s.left:
            return wrong_message(c, id, s)
        s.left -= body
    if body == 0 and not c.data_is_end:
        event = control(c)
        if event != H2_DONE:
            return event
    c.data_of = s
    if body == 0 and c.data_is_end:
        ended(c, s)
        return tell_body(c, s, text(at, 0), True)
    return H2_DONE


cdef inline H2Event tell_body(Http2* c, H2State* s, Str piece, bint is_end) noexcept nogil:
    c.s = s
    c.piece = piece
    c.is_end = is_end
    return H2_BODY


cdef H2Event read_piece(Http2* c, char** p, char* end) noexcept nogil:
    cdef char* at = p[0]
    cdef uint32_t n = <uint32_t>(end - at)
    cdef H2State* s = c.data_of
    if c.data_left:
        n = n if n < FRAME_BYTES else FRAME_BYTES    # no piece is larger, whatever the frame is
        n = n if n < c.data_left else c.data_left
        c.data_left -= n
        p[0] += n
        if s == NULL:
            return H2_DONE
        if c.data_left == 0 and c.data_is_end:
            ended(c, s)
            return tell_body(c, s, text(at, n), True)
        return tell_body(c, s, text(at, n), False)
    n = n if n < c.pad_left else c.pad_left
    c.pad_left -= <uint8_t>n
    p[0] += n
    return H2_DONE


cdef H2Event read_frame(Http2* c, char* at, uint32_t n, HeadRoom* room) noexcept nogil:
    """Any frame but DATA, whole."""
    cdef uint8_t kind = <uint8_t>at[3]
    cdef uint8_t flags = <uint8_t>at[4]
    cdef uint32_t id = u32(at + 5) & MAX_WINDOW
    cdef char* p = at + FRAME_HEAD
    if c.state == AT_SETTINGS:
        # nginx takes a request, too: a client without SETTINGS has those of the RFC
        if kind != SETTINGS and (kind != HEADERS and kind != WINDOW_UPDATE or c.is_client):
            return broken(c, H2_PROTOCOL_ERROR)
        c.state = IN_FRAMES
    if c.block_id and (kind != CONTINUATION or id != c.block_id):  # §6.10
        return broken(c, H2_PROTOCOL_ERROR)
    if kind == HEADERS:
        return read_headers(c, p, n, flags, id, room)
    if kind == WINDOW_UPDATE:
        return read_window_update(c, p, n, id)
    if kind == CONTINUATION:
        return read_continuation(c, p, n, flags, room)
    if kind == RST_STREAM:
        return read_rst_stream(c, p, n, id)
    if kind == SETTINGS:
        return read_settings(c, p, n, flags, id)
    if kind == PRIORITY:
        return read_priority(c, p, n, id)
    if kind == PING:
        return read_ping(c, p, n, flags, id)
    if kind == GOAWAY:
        return read_goaway(c, p, n, id)
    if kind == PRIORITY_UPDATE:
        return read_priority_update(c, p, n, id)
    if kind == PUSH_PROMISE or kind == DATA:     # DATA: inside a header block
        return broken(c, H2_PROTOCOL_ERROR)
    return control(c)                            # §4.1: unknown ones are ignored


cdef H2Event read_headers(
    Http2* c, char* p, uint32_t n, uint8_t flags, uint32_t id, HeadRoom* room
) noexcept nogil:
    cdef uint32_t pad = 0
    if id & 1 == 0:
        return broken(c, H2_PROTOCOL_ERROR)
    if flags & IS_PADDED:
        if n == 0:
            return broken(c, H2_FRAME_SIZE_ERROR)
        pad = <uint8_t>p[0]
        p += 1
        n -= 1
    c.block_is_wrong = False
    if flags & HAS_PRIORITY:
        if n < 5:
            return broken(c, H2_FRAME_SIZE_ERROR)
        c.block_is_wrong = u32(p) & MAX_WINDOW == id
        p += 5
        n -= 5
    if pad > n:
        return broken(c, H2_PROTOCOL_ERROR)
    n -= pad
    c.block_id = id
    c.block_is_end = flags & END_STREAM
    if flags & END_HEADERS:
        return end_block(c, p, n, room)
    c.block_n = c.n_parts = 0
    return keep_part(c, p, n)


cdef H2Event keep_part(Http2* c, const char* p, uint32_t n) noexcept nogil:
    """A part of a header block that others follow; they are bounded in number and size."""
    cdef char* larger
    if c.block_n + n > c.max_block:
        return broken(c, H2_ENHANCE_YOUR_CALM)
    if c.block_n + n > c.block_cap:
        larger = <char*>realloc(c.block, c.block_n + n)
        if larger == NULL:
            return broken(c, H2_INTERNAL_ERROR)
        c.block = larger
        c.block_cap = c.block_n + n
    if n:
        memcpy(c.block + c.block_n, p, n)
    c.block_n += n
    return H2_DONE


cdef H2Event read_continuation(
    Http2* c, char* p, uint32_t n, uint8_t flags, HeadRoom* room
) noexcept nogil:
    cdef H2Event event
    if c.block_id == 0:
        return broken(c, H2_PROTOCOL_ERROR)
    c.n_parts += 1
    if c.n_parts > c.max_parts:
        return broken(c, H2_ENHANCE_YOUR_CALM)
    event = keep_part(c, p, n)
    if event == H2_DONE and flags & END_HEADERS:
        event = end_block(c, c.block, c.block_n, room)
        free(c.block)
        c.block = NULL
        c.block_n = c.block_cap = 0
    return event


cdef H2Event end_block(Http2* c, const char* p, uint32_t n, HeadRoom* room) noexcept nogil:
    """A header block is whole: a request, a trailer section, or of a stream that has neither."""
    cdef uint32_t id = c.block_id
    cdef H2State* s = find(c, id)
    cdef H2Unwanted* unwanted = find_unwanted(c, id)
    cdef const uint8_t* block = <const uint8_t*>p
    cdef uint8_t how
    cdef int rc
    c.block_id = 0
    if c.is_client:
        return end_answer_block(c, block, n, id, s, room)
    if s == NULL and id > c.last_id:
        return begin_request(c, block, n, id, room)
    rc = skip_block(&c.table, block, n, room, True)
    if rc == BLOCK_WRONG:
        return broken(c, H2_COMPRESSION_ERROR)
    if unwanted != NULL:
        return hear_out(c, unwanted, 0, True, rc == BLOCK_MALFORMED or not c.block_is_end
                        or c.block_is_wrong)
    if s == NULL:                                # §5.1, "closed"
        how = how_over(c, id)
        if how == WAS_ENDED:                     # a whole request: not a new number (§5.1.1)
            return broken(c, H2_STREAM_CLOSED if rc == 0 else H2_PROTOCOL_ERROR)
        if how == 0 and c.n_past <= REMEMBERED:  # never opened: passed over (§5.1.1)
            return broken(c, H2_PROTOCOL_ERROR)
        return control(c) if how == WAS_REFUSED else wrong_stream(c, id, NULL, H2_STREAM_CLOSED)
    if s.is_ended:
        return control(c) if s.is_wrong else wrong_stream(c, id, s, H2_STREAM_CLOSED)
    if rc == BLOCK_MALFORMED or not c.block_is_end or c.block_is_wrong or s.left > 0:
        return wrong_message(c, id, s)
    s.is_ended = True
    return tell_body(c, s, text(p, 0), True)


cdef H2Event end_answer_block(
    Http2* c, const uint8_t* p, uint32_t n, uint32_t id, H2State* s, HeadRoom* room
) noexcept nogil:
    """As a client: a head of an answer, interim ones too, or the trailer section behind it."""
    cdef int rc
    cdef uint8_t how
    if is_idle(c, id):
        return broken(c, H2_PROTOCOL_ERROR)
    if s == NULL or s.is_ended:
        if skip_block(&c.table, p, n, room, False) == BLOCK_WRONG:
            return broken(c, H2_COMPRESSION_ERROR)
        if s != NULL:
            return wrong_stream(c, id, s, H2_STREAM_CLOSED)
        how = how_over(c, id)
        return broken(c, H2_STREAM_CLOSED) if how == WAS_ENDED else control(c)
    rc = read_answer_block(&c.table, p, n, room, s.is_headed)
    if rc == BLOCK_WRONG:
        return broken(c, H2_COMPRESSION_ERROR)
    if rc == BLOCK_MALFORMED or c.block_is_wrong or s.is_headed and not c.block_is_end:
        return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
    c.s = s
    c.fault = rc
    c.block_bytes = n
    c.is_end = c.block_is_end
    if s.is_headed:
        if s.left > 0:
            return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
        ended(c, s)
        return H2_TRAILERS
    if room.head.status < 200 and rc == 0:       # §8.1: an interim one ends nothing
        return wrong_stream(c, id, s, H2_PROTOCOL_ERROR) if c.is_end else H2_HEAD
    s.is_headed = True
    if s.is_bare or room.head.status == 304 or room.head.status == 204:
        s.left = 0
    else:
        s.left = room.head.content_length
    if c.is_end:
        if s.left > 0 and rc == 0:               # §8.1.1
            return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
        ended(c, s)
    return H2_HEAD


cdef H2Event read_goaway(Http2* c, const char* p, uint32_t n, uint32_t id) noexcept nogil:
    if id:
        return broken(c, H2_PROTOCOL_ERROR)
    if n < 8:
        return broken(c, H2_FRAME_SIZE_ERROR)
    if control(c) != H2_DONE:
        return H2_BROKEN
    c.id = u32(p) & MAX_WINDOW
    c.code = u32(p + 4)
    return H2_PARTING


cdef H2Event begin_request(
    Http2* c, const uint8_t* p, uint32_t n, uint32_t id, HeadRoom* room
) noexcept nogil:
    cdef int rc
    c.last_id = id
    c.block_bytes = n
    rc = read_request_block(&c.table, p, n, room)
    if rc == BLOCK_WRONG or rc == BLOCK_CUT:
        return broken(c, H2_COMPRESSION_ERROR if rc == BLOCK_WRONG else H2_FRAME_SIZE_ERROR)
    if c.block_is_wrong:
        return wrong_stream(c, id, NULL, H2_PROTOCOL_ERROR)
    if rc == HEAD_TOO_LARGE:                     # §10.5.1; nginx ends the connection, too
        return broken(c, H2_ENHANCE_YOUR_CALM)
    c.is_wrong = rc == BLOCK_MALFORMED or rc == BLOCK_NO_CONNECT or (
        rc == 0 and c.block_is_end and room.head.content_length > 0)
    if id > c.last_taken:
        reset_id(c, id, H2_REFUSED_STREAM)
        return control(c)
    if c.n_open >= c.max_streams:                # §5.1.2
        return wrong_stream(c, id, NULL, H2_REFUSED_STREAM)
    if c.n_open + c.n_resets >= c.max_streams + SPARE_STREAMS:
        reset_id(c, id, H2_REFUSED_STREAM)
        return control(c)
    if not c.is_acknowledged and not c.block_is_end and c.window < FIRST_WINDOW:
        # a body may be on its way that has no room (§6.9.2): it can be sent again (nginx)
        reset_id(c, id, H2_REFUSED_STREAM)
        return control(c)
    if c.is_wrong:
        if c.n_resets >= c.max_resets:
            return wrong_stream(c, id, NULL, H2_PROTOCOL_ERROR)
        c.n_resets += 1
        rc = NOT_ALLOWED if rc == BLOCK_NO_CONNECT else BAD_REQUEST
    expect_updates(c)
    c.id = id
    c.fault = rc
    c.is_end = c.block_is_end
    return H2_HEAD


cdef H2Event read_priority(Http2* c, const char* p, uint32_t n, uint32_t id) noexcept nogil:
    """Deprecated (§5.3.2), but what is wrong with one is still wrong."""
    cdef H2State* s
    if id == 0:
        return broken(c, H2_PROTOCOL_ERROR)
    if n != 5 or u32(p) & MAX_WINDOW == id:
        s = find(c, id)
        if s == NULL:
            return broken(c, H2_FRAME_SIZE_ERROR if n != 5 else H2_PROTOCOL_ERROR)
        return wrong_stream(c, id, s, H2_FRAME_SIZE_ERROR if n != 5 else H2_PROTOCOL_ERROR)
    return control(c)


cdef H2Event read_priority_update(Http2* c, const char* p, uint32_t n, uint32_t id) noexcept nogil:
    cdef H2State* s
    if n < 4:
        return broken(c, H2_FRAME_SIZE_ERROR)
    if id or u32(p) & MAX_WINDOW == 0:
        return broken(c, H2_PROTOCOL_ERROR)
    s = find(c, u32(p) & MAX_WINDOW)
    if s != NULL:
        s.urgency = read_urgency(p + 4, n - 4, URGENCY)
        s.is_incremental = read_incremental(p + 4, n - 4)
    return control(c)


cdef H2Event read_rst_stream(Http2* c, const char* p, uint32_t n, uint32_t id) noexcept nogil:
    cdef H2State* s
    if id == 0 or is_idle(c, id):
        return broken(c, H2_PROTOCOL_ERROR)
    if n != 4:
        return broken(c, H2_FRAME_SIZE_ERROR)
    s = find(c, id)
    if s == NULL:
        learn(c, id, WAS_CANCELLED)
        return control(c)
    c.n_resets += not c.is_client                # our own number bounds those of a server
    if c.n_resets > c.max_resets:
        return broken(c, H2_ENHANCE_YOUR_CALM)
    close_stream(c, s, WAS_CANCELLED)
    c.s = s
    c.code = u32(p)
    c.is_ours = False
    return H2_RESET


cdef H2Event read_settings(
    Http2* c, const char* p, uint32_t n, uint8_t flags, uint32_t id
) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t value
    cdef uint32_t window = c.peer_window
    cdef int64_t more
    cdef H2State* s
    cdef H2Event event = control(c)
    if id:
        return broken(c, H2_PROTOCOL_ERROR)
    if n % 6 or flags & IS_ACK and n:
        return broken(c, H2_FRAME_SIZE_ERROR)
    if flags & IS_ACK:
        c.is_acknowledged = True
    if flags & IS_ACK or event != H2_DONE:
        return event
    for _ in range(n // 6):
        value = u32(p + 2)
        if p[0] == 0 and p[1] == ENABLE_PUSH and value > (0 if c.is_client else 1):
            return broken(c, H2_PROTOCOL_ERROR)
        if p[0] == 0 and p[1] == INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                return broken(c, H2_FLOW_CONTROL_ERROR)
            window = value
        if p[0] == 0 and p[1] == MAX_CONCURRENT_STREAMS:
            c.peer_streams = value
        if p[0] == 0 and p[1] == MAX_FRAME_SIZE:
            if value < FRAME_BYTES or value > 0xffffff:
                return broken(c, H2_PROTOCOL_ERROR)
            c.peer_frame = value
        p += 6
    put_frame(c, 0, SETTINGS, IS_ACK, 0)
    if window == c.peer_window:
        return H2_DONE
    more = <int64_t>window - c.peer_window       # §6.9.2: it may become negative
    c.peer_window = window
    for i in range(BUCKETS):
        s = c.buckets[i]
        while s != NULL:
            s.send_window += more
            if s.send_window > MAX_WINDOW:
                return broken(c, H2_FLOW_CONTROL_ERROR)
            s = s.next
    c.s = NULL
    return H2_ROOM if more > 0 else H2_DONE


cdef H2Event read_ping(
    Http2* c, const char* p, uint32_t n, uint8_t flags, uint32_t id
) noexcept nogil:
    cdef char* at
    if id:
        return broken(c, H2_PROTOCOL_ERROR)
    if n != 8:
        return broken(c, H2_FRAME_SIZE_ERROR)
    if not flags & IS_ACK:
        at = put_frame(c, 8, PING, IS_ACK, 0)
        if at != NULL:
            memcpy(at, p, 8)
    return control(c)


cdef H2Event read_window_update(Http2* c, const char* p, uint32_t n, uint32_t id) noexcept nogil:
    cdef uint32_t more
    cdef H2State* s = NULL
    cdef H2Unwanted* unwanted
    if n != 4:
        return broken(c, H2_FRAME_SIZE_ERROR)
    if id and is_idle(c, id):
        return broken(c, H2_PROTOCOL_ERROR)
    if c.n_updates:
        c.n_updates -= 1
    elif control(c) != H2_DONE:
        return H2_BROKEN
    more = u32(p) & MAX_WINDOW
    if id == 0:
        if more == 0:
            return broken(c, H2_PROTOCOL_ERROR)
        c.send_window += more
        if c.send_window > MAX_WINDOW:
            return broken(c, H2_FLOW_CONTROL_ERROR)
    else:
        s = find(c, id)
        if more == 0:
            return wrong_stream(c, id, s, H2_PROTOCOL_ERROR)
        if s == NULL:
            unwanted = find_unwanted(c, id)
            if unwanted != NULL:
                unwanted.send_window += more
                if unwanted.send_window > MAX_WINDOW:
                    unwanted.id = 0
                    return wrong_stream(c, id, NULL, H2_FLOW_CONTROL_ERROR)
            return H2_DONE
        s.send_window += more
        if s.send_window > MAX_WINDOW:
            return wrong_stream(c, id, s, H2_FLOW_CONTROL_ERROR)
    c.s = s
    return H2_ROOM
