"""The codec as Python sees it: for tests, the fuzz target and the slow rooms."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.base.head cimport *
from proxy.base.span cimport Str, to_bytes
from proxy.base.verdict cimport *
from proxy.wire._chunked cimport *
from proxy.wire._h1 cimport *
from proxy.wire._h1write cimport *

FAULTS = {
    BAD_REQUEST: "BAD_REQUEST", URI_TOO_LARGE: "URI_TOO_LARGE",
    HEAD_TOO_LARGE: "HEAD_TOO_LARGE", BAD_VERSION: "BAD_VERSION",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED", TOO_MANY_FIELDS: "TOO_MANY_FIELDS",
    BAD_CHUNK: "BAD_CHUNK", UPSTREAM_BAD_HEAD: "UPSTREAM_BAD_HEAD",
    UPSTREAM_HEAD_TOO_LARGE: "UPSTREAM_HEAD_TOO_LARGE",
}
FLAGS = {
    H_CHUNKED: "chunked", H_KEEP_ALIVE: "keep_alive", H_UPGRADE: "upgrade",
    H_EXPECT_CONTINUE: "expect_continue", H_HAS_HOST: "has_host", H_ABSOLUTE: "absolute",
    H_CONNECTION_CLOSE: "close", H_HAS_TRAILER: "has_trailer", H_TE_TRAILERS: "te_trailers",
}
BODY_KINDS = {
    BODY_NONE: "none", BODY_LENGTH: "length", BODY_CHUNKED: "chunked",
    BODY_UNTIL_CLOSE: "until_close",
}


cdef class Reader:
    """One message head, fed piece by piece.

    feed() gives the size of the head, 0 for "need more", or a negative fault number.
    The bytes move to a fresh address with every piece, as they may in the proxy.
    """

    cdef Head head
    cdef Limits limits
    cdef bytes held
    cdef bint is_response
    cdef bint is_head_request

    def __cinit__(
        self, *, is_response=False, is_head_request=False, max_line=8192, max_head=32768,
        max_fields=1000, ignore_invalid=True, underscores_allowed=False,
    ):
        cdef Field* fields = <Field*>malloc(max_fields * sizeof(Field))
        if fields == NULL:
            raise MemoryError
        begin_head(&self.head, fields, max_fields)
        self.limits.max_line = max_line
        self.limits.max_head = max_head
        self.limits.max_fields = max_fields
        self.limits.ignore_invalid = ignore_invalid
        self.limits.underscores_allowed = underscores_allowed
        self.is_response = is_response
        self.is_head_request = is_head_request
        self.held = b""

    def __dealloc__(self):
        free(self.head.fields)

    def feed(self, piece: bytes) -> int:
        cdef char* exact
        cdef int rc
        self.held = self.held + piece
        cdef uint32_t n = <uint32_t>len(self.held)
        # an allocation without one spare byte behind it, so that a sanitizer sees more
        exact = <char*>malloc(n or 1)
        if exact == NULL:
            raise MemoryError
        memcpy(exact, <const char*>self.held, n)
        if self.is_response:
            rc = read_response_head(&self.head, exact, n, &self.limits, self.is_head_request)
        else:
            rc = read_request_head(&self.head, exact, n, &self.limits)
        free(exact)
        self.head.base = <char*>self.held
        return rc

    cdef bytes cut(self, uint32_t off, uint32_t n):
        return self.held[off:off + n]

    def message(self) -> dict:
        """What the complete head says."""
        cdef Head* h = &self.head
        cdef uint16_t i
        cdef Field* f
        fields = []
        hop = []
        for i in range(h.n_fields):
            f = &h.fields[i]
            fields.append((self.cut(f.name, f.name_n), self.cut(f.value, f.value_n)))
            if f.flags & F_IS_HOP:
                hop.append(self.cut(f.name, f.name_n))
        said = {
            "size": h.size, "version": h.version, "fields": fields, "hop": hop,
            "ids": [h.fields[i].id for i in range(h.n_fields)],
            "line": self.cut(h.line_off, h.line_n), "length": h.content_length,
            "flags": {name for bit, name in FLAGS.items() if h.flags & <uint32_t>bit},
            "stray_flags": h.flags >> 9,
            "body": BODY_KINDS[body_kind(h, self.is_head_request)],
        }
        if self.is_response:
            said |= {"status": h.status, "reason": self.cut(h.reason, h.reason_n)}
        else:
            said |= {
                "method": self.cut(h.method_off, h.method_n), "method_id": h.method,
                "target": self.cut(h.target, h.target_n), "path": self.cut(h.path, h.path_n),
                "host": self.cut(h.host, h.host_n),
            }
        return said


def parse_request(data: bytes, **limits) -> dict | str | None:
    """What a request head says, the name of its fault, or None when it is not complete."""
    return parse(Reader(**limits), [data])


def parse_response(data: bytes, **limits) -> dict | str | None:
    """The same for the head of a response."""
    return parse(Reader(is_response=True, **limits), [data])


def parse(reader: Reader, pieces) -> dict | str | None:
    """Feed pieces until the head is complete or wrong."""
    for piece in pieces:
        rc = reader.feed(piece)
        if rc > 0:
            return reader.message()
        if rc < 0:
            return FAULTS[rc]
    return None


def decode_chunked(pieces, trailer_cap: int = 4096, keep_trailers: bool = True):
    """(payload, trailer fields, bytes behind the end), a fault's name, or None: need more."""
    cdef Chunked c
    cdef char* room = <char*>malloc(trailer_cap or 1)
    cdef uint32_t used, n
    cdef Str piece
    cdef const char* p
    cdef bytes data
    cdef int rc
    if room == NULL:
        raise MemoryError
    payload = []
    pieces = list(pieces)
    try:
        begin_chunked(&c, room if keep_trailers else NULL, trailer_cap)
        for at, data in enumerate(pieces):
            p = data
            n = <uint32_t>len(data)
            while n:
                rc = read_chunked(&c, p, n, &used, &piece)
                if rc < 0:
                    return FAULTS[rc]
                p += used
                n -= used
                if rc == CHUNK_PIECE:
                    payload.append(to_bytes(piece))
                elif rc == CHUNK_END:
                    rest = data[len(data) - n:] + b"".join(pieces[at + 1:])
                    trailers = trailer_fields(&c) if keep_trailers else []
                    if trailers is None:
                        return FAULTS[BAD_CHUNK]
                    return b"".join(payload), trailers, rest
        return None
    finally:
        free(room)


cdef trailer_fields(Chunked* c):
    cdef Head h
    cdef Field fields[64]
    cdef uint16_t i
    if c.trailer_n == 0:
        return []
    begin_head(&h, fields, 64)
    if read_trailers(&h, c.trailer, c.trailer_n) < 0:
        return None
    return [
        (to_bytes(name_of(&h, &fields[i])), to_bytes(value_of(&h, &fields[i])))
        for i in range(h.n_fields)
    ]


def encode_chunk(data: bytes) -> bytes:
    """One chunk; the last one for empty data."""
    cdef char out[24]
    cdef uint32_t n = chunk_prefix(out, <uint64_t>len(data))
    return out[:n] + data + b"\r\n"


def write_date(second: int) -> bytes:
    cdef char out[32]
    cdef char* end = put_date(out, <int64_t>second)
    return out[:end - out]


def write_status_line(status: int) -> bytes:
    cdef char out[MAX_STATUS_LINE]
    cdef char* end = put_status_line(out, <uint16_t>status)
    return out[:end - out]


def write_decimal(value: int) -> bytes:
    cdef char out[MAX_DECIMAL]
    cdef char* end = put_decimal(out, <uint64_t>value)
    return out[:end - out]
