"""Translates gRPC-Web: types, base64 in groups of four, trailers as a frame with the bit 0x80."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove

from proxy.base._arena cimport take
from proxy.base._request cimport BLOCKED, Request
from proxy.base.head cimport *
from proxy.base.span cimport Str, text
from proxy.base.verdict cimport GO, NO_MEMORY

cdef enum:
    PLAIN_BYTES = 12 * 1024       # encoded at a time, so that base64 of it is a frame
    NOT_BASE64 = 255
    IS_PADDING = 254
    TRAILER_FRAME = 0x80

cdef const char* ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef uint8_t[256] values
cdef int _i
for _i in range(256):
    values[_i] = NOT_BASE64
for _i in range(64):
    values[<uint8_t>ALPHABET[_i]] = <uint8_t>_i
values[61] = IS_PADDING           # "="


cdef uint32_t encode(char* out, const char* p, size_t n) noexcept:
    """With padding at its end: each piece can be decoded without waiting for the next."""
    cdef char* at = out
    cdef uint32_t bits
    while n:
        bits = <uint32_t><uint8_t>p[0] << 16
        if n > 1:
            bits |= <uint32_t><uint8_t>p[1] << 8
        if n > 2:
            bits |= <uint8_t>p[2]
        at[0] = ALPHABET[bits >> 18]
        at[1] = ALPHABET[bits >> 12 & 63]
        at[2] = ALPHABET[bits >> 6 & 63] if n > 1 else c"="
        at[3] = ALPHABET[bits & 63] if n > 2 else c"="
        at += 4
        p += 3
        n = n - 3 if n > 3 else 0
    return <uint32_t>(at - out)


cdef int decode(const uint8_t* group, char* out) noexcept:
    """1 to 3 bytes; -1: no base64."""
    cdef uint32_t bits = 0
    cdef int i
    cdef int n = 3
    cdef uint8_t value
    for i in range(4):
        value = values[group[i]]
        if value == IS_PADDING and i >= 2 and (i == 3 or group[3] == 61):
            n = i - 1 if n == 3 else n
            value = 0
        elif value > 63:
            return -1
        bits = bits << 6 | value
    out[0] = <char>(bits >> 16)
    out[1] = <char>(bits >> 8)
    out[2] = <char>bits
    return n


cdef class GrpcWeb(BodyFilter):
    def __dealloc__(self):
        free(self.room)

    cdef char* take_room(self, size_t n) noexcept:
        cdef char* larger
        if n > self.room_n:
            larger = <char*>realloc(self.room, n)
            if larger == NULL:
                return NULL
            self.room = larger
            self.room_n = <uint32_t>n
        return self.room

    cdef int body(self, Request r, const char* p, size_t n) noexcept:
        cdef size_t part
        cdef char* room
        cdef int rc = 0
        cdef int blocked = 0
        if not self.is_text:
            return r.stream.send_body(r, p, n)
        while n:
            part = n if n < PLAIN_BYTES else PLAIN_BYTES
            room = self.take_room(part // 3 * 4 + 4)
            if room == NULL:
                return NO_MEMORY
            rc = r.stream.send_body(r, room, encode(room, p, part))
            if rc < 0:
                return rc
            blocked |= rc
            p += part
            n -= part
        return BLOCKED if blocked else 0

    cdef int end(self, Request r) noexcept:
        """The trailers are the last frame of the body."""
        cdef size_t size = 0
        cdef uint16_t i
        cdef char* frame
        cdef char* at
        cdef int rc
        if self.is_ended or r.n_trailers == 0:
            self.is_ended = True
            return GO
        self.is_ended = True
        for i in range(r.n_trailers):
            size += r.trailers[i].name.n + r.trailers[i].value.n + 4
        frame = <char*>malloc(size + 5)
        if frame == NULL:
            return NO_MEMORY
        frame[0] = <char>TRAILER_FRAME
        frame[1] = <char>(size >> 24)
        frame[2] = <char>(size >> 16)
        frame[3] = <char>(size >> 8)
        frame[4] = <char>size
        at = frame + 5
        for i in range(r.n_trailers):
            at = put(put(put(put(at, r.trailers[i].name), text(b": ", 2)), r.trailers[i].value),
                     text(b"\r\n", 2))
        r.n_trailers = 0
        rc = self.body(r, frame, size + 5)
        free(frame)
        return rc if rc < 0 else GO              # the stream keeps what it could not send

    cdef int pump(self, Request r) noexcept:
        return GO


cdef inline char* put(char* at, Str s) noexcept:
    if s.n:
        memcpy(at, s.p, s.n)
    return at + s.n


cdef Field* type_field(Head* h) noexcept:
    cdef uint16_t i
    for i in range(h.n_fields):
        if h.fields[i].id == F_CONTENT_TYPE and not h.fields[i].flags:
            return &h.fields[i]
    return NULL


cdef void begin_web(Request r) noexcept:
    cdef Field* f = type_field(&r.head)
    cdef char* p
    cdef uint32_t skipped = 4                    # "-web"
    cdef GrpcWeb web
    if f == NULL or f.value_n < 20:
        return
    p = r.head.base + f.value
    if memcmp(p, b"application/grpc-web", 20) != 0:
        return
    if f.value_n >= 25 and memcmp(p + 20, b"-text", 5) == 0:
        skipped = 9
    if f.value_n > 16 + skipped and p[16 + skipped] != c"+" and p[16 + skipped] != c";":
        return
    web = GrpcWeb.__new__(GrpcWeb)
    web.is_text = skipped == 9
    memmove(p + 16, p + 16 + skipped, f.value_n - 16 - skipped)
    f.value_n -= skipped
    r.head.flags |= H_TE_TRAILERS
    if web.is_text and r.body_kind == BODY_LENGTH:
        r.body_kind = BODY_CHUNKED               # it becomes shorter
    r.filters = web


cdef uint32_t take_text(Request r, const char** p, uint32_t n) noexcept:
    cdef GrpcWeb web = <GrpcWeb>r.filters
    cdef const char* at = p[0]
    cdef const char* end = at + n
    cdef char* out
    cdef char* to
    cdef int got
    if not web.is_text or n == 0:
        return n
    out = to = web.take_room(<size_t>n + 4)
    if out == NULL:
        return <uint32_t>WEB_BROKEN
    while at < end:
        web.group[web.group_n] = <uint8_t>at[0]
        web.group_n += 1
        at += 1
        if web.group_n == 4:
            got = decode(web.group, to)
            if got < 0:
                return <uint32_t>WEB_BROKEN
            to += got
            web.group_n = 0
    p[0] = out
    return <uint32_t>(to - out)


cdef bint text_is_whole(Request r) noexcept:
    return (<GrpcWeb>r.filters).group_n == 0


cdef void dress_web(Request r) noexcept:
    """An answer of gRPC gets the type that the browser asked for; any other stays as it is."""
    cdef GrpcWeb web = <GrpcWeb>r.filters
    cdef bint is_ours = r.is_answer_ours or r.answer.fields == NULL
    cdef Field* f = NULL if is_ours else type_field(&r.answer)
    cdef Str value = r.content_type
    cdef char* room
    cdef uint32_t n = 25 if web.is_text else 20
    if f != NULL:
        value = value_of(&r.answer, f)
    room = <char*>take(&r.arena, value.n + 10)
    if room == NULL or value.n < 16 or memcmp(value.p, b"application/grpc", 16) != 0:
        r.filters = None
        return
    memcpy(room, b"application/grpc-web-text", 25)
    memcpy(room + n, value.p + 16, value.n - 16)
    r.content_type = text(room, n + value.n - 16)
    if f != NULL:
        f.flags |= F_IS_HIDDEN
        if r.length > 0:
            r.length = -1                        # it becomes longer
