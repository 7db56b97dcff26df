"""HPACK and HTTP/2 frames as Python sees them: for tests and fuzz targets."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.base.span cimport of_bytes
from proxy.wire._fields cimport find_name
from proxy.wire._hpack cimport *

WRONG = {HPACK_WRONG: "wrong", HPACK_NO_ROOM: "no room"}


cdef class Decoder:
    """One connection's decoder. read(block) gives [(name, value, is_never_indexed)], or the
    word for what is wrong."""

    cdef HpackTable table

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

    cdef public object last       # what else is known of the last field

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
