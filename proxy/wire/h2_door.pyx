"""HPACK and HTTP/2 frames as Python sees them: for tests, fuzz targets, and who asks rarely."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.base.head cimport *
from proxy.base.span cimport of_bytes
from proxy.base.verdict cimport *
from proxy.wire._fields cimport find_name
from proxy.wire._h2 cimport *
from proxy.wire._h2head cimport HeadRoom, room_for
from proxy.wire._h2out cimport *
from proxy.wire._hpack cimport *

from proxy.wire.h1_door import FLAGS

WRONG = {HPACK_WRONG: "wrong", HPACK_CUT: "wrong", HPACK_NO_ROOM: "no room"}


cdef class Decoder:
    """One connection's decoder. read(block) gives [(name, value, is_never_indexed)], or the
    word for what is wrong."""

    cdef HpackTable table
    cdef public object last       # what else is known of the last field

    def __cinit__(self):
        begin_table(&self.table)

    def __dealloc__(self):
        free_table(&self.table)

    def read(self, block: bytes, room: int | None = None) -> list[tuple] | str:
        # allocations without one spare byte, so that a sanitizer sees what is read behind them
        cdef uint32_t n = <uint32_t>len(block)
        cdef size_t room_n = grown(n) if room is None else room
        cdef uint8_t* exact = <uint8_t*>malloc(n or 1)
        cdef char* out = <char*>malloc(room_n or 1)
        cdef const uint8_t* p = exact
        cdef HpackField f
        cdef int rc
        found: list[tuple] = []
        if exact == NULL or out == NULL:
            raise MemoryError
        memcpy(exact, <const char*>block, n)
        begin_block(&self.table)
        try:
            while True:
                rc = read_field(&self.table, &p, exact + n, out, out + room_n, &f)
                if rc < 0:
                    return WRONG[rc]
                if rc == HPACK_END:
                    return found
                found.append((f.name[:f.name_n], f.value[:f.value_n],
                              bool(f.notes & IS_NEVER_INDEXED)))
                self.last = {"id": f.id, "notes": f.notes}
        finally:
            free(exact)
            free(out)

    def entries(self) -> list[tuple[bytes, bytes]]:
        """The dynamic table, newest first."""
        cdef uint32_t i
        cdef Entry* e
        held = []
        for i in range(self.table.n):
            e = &self.table.slots[
                (self.table.first + self.table.n - 1 - i) & (self.table.cap_slots - 1)]
            held.append((self.table.bytes[e.at:e.at + e.name_n],
                         self.table.bytes[e.at + e.name_n:e.at + e.name_n + e.value_n]))
        return held

    @property
    def size(self) -> int:
        return self.table.size

    @property
    def memory(self) -> int:
        return self.table.cap_bytes + self.table.cap_slots * sizeof(Entry)


def write_field(name: bytes, value: bytes, is_never_indexed: bool = False) -> bytes:
    """A field as our encoder writes it."""
    cdef size_t room = len(name) + len(value) + MAX_WRITTEN
    cdef char* out = <char*>malloc(room)
    cdef char* end
    cdef uint8_t id = find_name(name, <uint32_t>len(name))
    if out == NULL:
        raise MemoryError
    end = put_literal(out, static_of_id[id] if id else 0, of_bytes(name), of_bytes(value),
                      is_never_indexed)
    if <size_t>(end - out) > room:
        raise OverflowError
    written = out[:end - out]
    free(out)
    return written


def write_status(status: int) -> bytes:
    cdef char out[16]
    cdef char* end = put_status(out, <uint32_t>status)
    return out[:end - out]


EVENTS = {
    H2_MORE: "more", H2_HEAD: "head", H2_BODY: "body", H2_RESET: "reset", H2_ROOM: "room",
    H2_PARTING: "parting", H2_BROKEN: "broken", H2_DONE: "done",
    H2_TRAILERS: "trailers", H2_WRONG: "wrong",
}
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)
FAULTS = {
    BAD_REQUEST: "BAD_REQUEST", URI_TOO_LARGE: "URI_TOO_LARGE", HEAD_TOO_LARGE: "HEAD_TOO_LARGE",
    TOO_MANY_FIELDS: "TOO_MANY_FIELDS", UPSTREAM_HEAD_TOO_LARGE: "UPSTREAM_HEAD_TOO_LARGE",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
}


cdef str code_name(uint32_t code):
    return CODES[code] if code < <uint32_t>len(CODES) else "?"


cdef class Connection:
    """One side of a connection, the server's unless is_client. feed(bytes) gives events as tuples;
    `sent` takes what would go to the peer. Streams are opened as requests come, or by `ask`; a
    malformed request is answered with 400 at once."""

    cdef Http2 c
    cdef HeadRoom room
    cdef Head head
    cdef bytes held
    cdef dict states              # id → a capsule of its memory

    def __cinit__(
        self, *, max_streams=128, window=65535, max_block=32768, max_parts=16, max_resets=1000,
        max_control=1000, max_line=8192, max_head=32768, max_fields=1000, ignore_invalid=True,
        underscores_allowed=False, is_client=False, max_frame=0,
    ):
        self.c.is_client = is_client
        self.c.max_streams = max_streams
        self.c.window = window
        self.c.max_block = max_block
        self.c.max_frame = max_frame
        self.c.max_parts = max_parts
        self.c.max_resets = max_resets
        self.c.max_control = max_control
        self.room.cap_fields = 1024
        self.room.fields = <Field*>malloc(1024 * sizeof(Field))
        self.room.n = room_for(max_head, max_block if max_block > FRAME_BYTES else FRAME_BYTES)
        self.room.bytes = <char*>malloc(self.room.n)
        self.room.head = &self.head
        self.room.lim.max_line = max_line
        self.room.lim.max_head = max_head
        self.room.lim.max_fields = max_fields
        self.room.lim.ignore_invalid = ignore_invalid
        self.room.lim.underscores_allowed = underscores_allowed
        if self.room.fields == NULL or self.room.bytes == NULL:
            raise MemoryError
        self.held = b""
        self.states = {}
        begin_h2(&self.c)

    def __dealloc__(self):
        free_h2(&self.c)
        free(self.room.fields)
        free(self.room.bytes)

    def feed(self, piece: bytes) -> list[tuple]:
        cdef uint32_t used
        cdef uint32_t n
        cdef char* exact
        cdef H2Event event
        events: list[tuple] = []
        self.held += piece
        while True:
            n = <uint32_t>len(self.held)
            exact = <char*>malloc(n or 1)
            if exact == NULL:
                raise MemoryError
            memcpy(exact, <const char*>self.held, n)
            try:
                event = read_frames(&self.c, exact, n, &used, &self.room)
                if used > n:
                    raise OverflowError
                self.held = self.held[used:]
                if event == H2_MORE or event == H2_DONE:
                    return events
                self.tell(event, events)
                if event == H2_BROKEN:
                    return events
            finally:
                free(exact)

    cdef tell(self, H2Event event, list events):
        cdef H2State* s = self.c.s
        cdef State state
        if self.c.is_client and (event == H2_HEAD or event == H2_TRAILERS):
            said = FAULTS.get(self.c.fault, self.c.fault) or self.message()
            events.append((EVENTS[event], self.number_of(s), said, bool(self.c.is_end)))
        elif event == H2_HEAD:
            state = State()
            self.states[self.c.id] = state
            open_stream(&self.c, &state.s, NULL,
                        -1 if self.c.fault else self.head.content_length)
            events.append(("head", self.c.id, FAULTS.get(self.c.fault, self.c.fault) or
                           self.message(), bool(self.c.is_end)))
            if self.c.is_wrong:
                self.answer(self.c.id, [(b":status", b"400")], True)
        elif event == H2_WRONG:
            number = self.number_of(s)
            events.append(("wrong", number))
            self.answer(number, [(b":status", b"400")], True)
        elif event == H2_BODY:
            events.append(("body", self.number_of(s), self.c.piece.p[:self.c.piece.n],
                           bool(self.c.is_end)))
        elif event == H2_RESET:
            number = self.number_of(s)
            events.append(("reset", number, code_name(self.c.code),
                           *(["ours"] if self.c.is_client and self.c.is_ours else [])))
            del self.states[number]
        elif event == H2_ROOM:
            events.append(("room", s.id if s != NULL else 0))
        elif event == H2_BROKEN:
            events.append(("broken", code_name(self.c.code)))
        elif event == H2_PARTING and self.c.is_client:
            events.append(("parting", self.c.id, code_name(self.c.code)))
        else:
            events.append((EVENTS[event],))

    cdef int number_of(self, H2State* s) except -1:
        """Its id; a stream that is over has none any more."""
        return next(k for k, v in self.states.items() if &(<State>v).s == s)

    cdef message(self):
        cdef Head* h = &self.head
        cdef uint16_t i
        cdef bytes base = h.base[:h.size]
        said = {
            "method": base[h.method_off:h.method_off + h.method_n], "method_id": h.method,
            "target": base[h.target:h.target + h.target_n],
            "line": base[h.line_off:h.line_off + h.line_n],
            "host": base[h.host:h.host + h.host_n], "length": h.content_length,
            "version": h.version, "urgency": self.room.urgency,
            "incremental": bool(self.room.is_incremental),
            "status": h.status,
            "flags": {name for bit, name in FLAGS.items() if h.flags & <uint32_t>bit},
        }
        said["fields"] = [
            (base[h.fields[i].name:h.fields[i].name + h.fields[i].name_n],
             base[h.fields[i].value:h.fields[i].value + h.fields[i].value_n])
            for i in range(h.n_fields)
        ]
        said["hop"] = [
            base[h.fields[i].name:h.fields[i].name + h.fields[i].name_n]
            for i in range(h.n_fields) if h.fields[i].flags & F_IS_HOP
        ]
        return said

    @property
    def sent(self) -> bytes:
        said = self.c.out[:self.c.out_n] if self.c.out_n else b""
        forget_out(&self.c)
        return said

    @property
    def n_open(self) -> int:
        return self.c.n_open

    def ask(self, block: bytes, is_bare: bool = False, is_end: bool = False) -> int:
        """HEADERS of a new stream of ours; `block` is its header block, is_bare: HEAD is asked."""
        cdef State state = State()
        cdef char* at = begin_headers(&self.c, len(block))
        if at == NULL:
            raise MemoryError
        ask_stream(&self.c, &state.s, NULL)
        state.s.is_bare = is_bare
        self.states[state.s.id] = state
        memcpy(at, <const char*>block, len(block))
        number = state.s.id
        end_headers(&self.c, &state.s, len(block), is_end)
        return number

    def answer(self, number: int, fields: list, is_end: bool = False) -> None:
        """HEADERS; `fields` are names and values, :status first."""
        cdef bytes block = b"".join(
            write_status(int(value)) if name == b":status" else write_field(name, value)
            for name, value in fields)
        cdef char* at = begin_headers(&self.c, len(block))
        cdef State state = self.states[number]
        if at == NULL:
            raise MemoryError
        memcpy(at, <const char*>block, len(block))
        end_headers(&self.c, &state.s, len(block), is_end)

    def send(self, number: int, data: bytes, frame: int = FRAME_BYTES) -> int:
        """How many bytes windows let pass."""
        cdef State state = self.states[number]
        return put_data(&self.c, &state.s, data, len(data), <uint32_t>frame)

    def end(self, number: int) -> None:
        cdef State state = self.states[number]
        end_stream(&self.c, &state.s)

    def take(self, number: int, n: int) -> None:
        """n bytes of its body were used."""
        cdef State state = self.states[number]
        give_window(&self.c, &state.s, <uint32_t>n)

    def reset(self, number: int, code: int) -> None:
        cdef State state = self.states[number]
        reset_stream(&self.c, &state.s, <H2Code>code)

    def part(self, last: int | None = None, code: int = 0) -> None:
        go_away(&self.c, self.c.last_id if last is None else last, <H2Code>code)


cdef class State:
    cdef H2State s
