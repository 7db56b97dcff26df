# Words for an error, and the memory of what was told a moment ago.

from libc.stdint cimport uint64_t

from proxy.base._clock cimport clock
from proxy.base._report cimport R_ALERT, R_ERROR, report, report_text
from proxy.base.span cimport of_bytes

cdef enum:
    TELL_EVERY_MS = 60000
    MOST_TOLD = 64
    MOST_CHARACTERS = 300

cdef set told = set()
cdef uint64_t told_until_ms = 0


cdef void tell_error(int level, Request r, const char* doing, object error) noexcept:
    global told_until_ms
    cdef bytes words
    try:
        shown = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_CHARACTERS]
        words = <bytes>doing + b" failed: " + shown.encode("utf-8", "backslashreplace")
        if clock.now_ms >= told_until_ms:
            told.clear()
            told_until_ms = clock.now_ms + TELL_EVERY_MS
        if words in told or len(told) >= MOST_TOLD:
            return
        told.add(words)
        report(level, r, of_bytes(words))
    except Exception:                            # an error that cannot be shown, or no memory
        report_text(level, r, doing)


def tell(str doing not None, error, bint is_ours=True):
    """The same from Python, of no request."""
    tell_error(R_ALERT if is_ours else R_ERROR, None, doing.encode("utf-8", "replace"), error)
