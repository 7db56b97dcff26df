"""WebSocket frames as Python sees them: for tests and fuzz targets."""

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from proxy.wire._websocket cimport *


cdef class Checker:
    """One direction of a connection. `most`: bytes of a message, 0 for no bound."""

    cdef Frames frames

    def __cinit__(self, is_client: bool = True, is_deflate: bool = False, most: int = 0):
        begin_frames(&self.frames, is_client, is_deflate, most)

    def read(self, data: bytes) -> list:
        """What is known after these bytes: ("head", opcode, is_final, length) and ("end",) of
        frames, ("close", code) at the end of a Close; last, perhaps, the code of a fault."""
        # an allocation without one spare byte, so that a sanitizer sees what is read behind it
        cdef uint32_t n = <uint32_t>len(data)
        cdef char* exact = <char*>malloc(n or 1)
        cdef const char* p = exact
        cdef uint32_t used = 0
        cdef int rc
        cdef Frames* f = &self.frames
        found: list = []
        if exact == NULL:
            raise MemoryError
        memcpy(exact, <const char*>data, n)
        try:
            while True:
                rc = read_websocket(f, p, n, &used)
                if rc < 0:
                    found.append(-rc)
                    return found
                p += used
                n -= used
                if rc == FRAME_MORE:
                    if n:
                        raise AssertionError(f"{n} bytes are left")
                    return found
                if rc == FRAME_HEAD:
                    found.append(("head", f.opcode, bool(f.is_final), f.length))
                elif f.state == FRAMES_OVER:
                    found.append(("close", f.close_code))
                else:
                    found.append(("end",))
        finally:
            free(exact)

    @property
    def close_code(self) -> int:
        """Of a Close, as soon as it is known; 0 before."""
        return self.frames.close_code

    @property
    def memory(self) -> int:
        return sizeof(Frames)


def write_close(code: int, key: int | None = None) -> bytes:
    """A Close: masked with `key`, or as it goes to a client."""
    cdef char out[CLOSE_MOST]
    cdef uint32_t n = put_close(out, <uint16_t>code, key is not None, <uint32_t>(key or 0))
    return out[:n]


def write_ping() -> bytes:
    cdef char out[PING_MOST]
    cdef uint32_t n = put_ping(out)
    return out[:n]
