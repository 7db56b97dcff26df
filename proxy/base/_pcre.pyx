# Regular expressions over libpcre2-8: compiled once with JIT, matched under limits.
#
# Called by whoever holds a Pattern, from one thread. A match never runs Python code and
# never takes longer than its limits allow: too many steps are a fault, not a hang.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t


cdef extern from *:
    """
    #define PCRE2_CODE_UNIT_WIDTH 8
    #include <pcre2.h>
    """
    ctypedef struct pcre2_code:
        pass
    ctypedef struct pcre2_match_data:
        pass
    ctypedef struct pcre2_match_context:
        pass
    ctypedef struct pcre2_jit_stack:
        pass
    const uint32_t PCRE2_CASELESS, PCRE2_JIT_COMPLETE
    const uint32_t PCRE2_INFO_CAPTURECOUNT, PCRE2_INFO_NAMECOUNT
    const uint32_t PCRE2_INFO_NAMEENTRYSIZE, PCRE2_INFO_NAMETABLE
    const int PCRE2_ERROR_NOMATCH, PCRE2_ERROR_UTF8_ERR1, PCRE2_ERROR_UTF8_ERR21
    pcre2_code *pcre2_compile(
        const uint8_t *, size_t, uint32_t, int *, size_t *, void *
    ) noexcept nogil
    void pcre2_code_free(pcre2_code *) noexcept nogil
    int pcre2_jit_compile(pcre2_code *, uint32_t) noexcept nogil
    int pcre2_pattern_info(const pcre2_code *, uint32_t, void *) noexcept nogil
    int pcre2_get_error_message(int, uint8_t *, size_t) noexcept nogil
    pcre2_match_data *pcre2_match_data_create(uint32_t, void *) noexcept nogil
    size_t *pcre2_get_ovector_pointer(pcre2_match_data *) noexcept nogil
    pcre2_match_context *pcre2_match_context_create(void *) noexcept nogil
    int pcre2_set_match_limit(pcre2_match_context *, uint32_t) noexcept nogil
    int pcre2_set_depth_limit(pcre2_match_context *, uint32_t) noexcept nogil
    int pcre2_set_heap_limit(pcre2_match_context *, uint32_t) noexcept nogil
    pcre2_jit_stack *pcre2_jit_stack_create(size_t, size_t, void *) noexcept nogil
    void pcre2_jit_stack_assign(pcre2_match_context *, void *, void *) noexcept nogil
    int pcre2_match(
        const pcre2_code *, const uint8_t *, size_t, size_t, uint32_t,
        pcre2_match_data *, pcre2_match_context *
    ) noexcept nogil


cdef enum:
    JIT_STACK_FIRST = 32 * 1024
    JIT_STACK_MOST = 512 * 1024
    HEAP_MOST_KIB = 8 * 1024        # for patterns that JIT could not compile

# One of each per process: a match is never interrupted by another.
cdef pcre2_match_data* found = pcre2_match_data_create(MOST_GROUPS, NULL)
cdef pcre2_match_context* limits = pcre2_match_context_create(NULL)
cdef pcre2_jit_stack* stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, NULL)
if found == NULL or limits == NULL:
    raise MemoryError
if stack != NULL:
    pcre2_jit_stack_assign(limits, NULL, <void*>stack)
pcre2_set_heap_limit(limits, HEAP_MOST_KIB)


def set_limits(uint32_t steps, uint32_t depth):
    """Bound every later match: backtracking steps, and nesting of those without JIT."""
    pcre2_set_match_limit(limits, steps)
    pcre2_set_depth_limit(limits, depth)


# 1,000,000 steps are some milliseconds; an honest pattern over a whole 32 KiB target
# needs less than a tenth of it.
set_limits(1_000_000, 10_000)


class PatternError(ValueError):
    """A pattern that does not compile; the message is nginx's, without file and line."""


@cython.final
cdef class Pattern:
    """A compiled regular expression over bytes (no UTF mode, as in nginx)."""

    def __cinit__(self, pattern, bint caseless=False):
        """Compile `pattern` (str or bytes). Raises PatternError."""
        cdef int code = 0
        cdef size_t at = 0
        cdef uint8_t[128] message
        self.source = to_source(pattern) if isinstance(pattern, str) else bytes(pattern)
        self.is_caseless = caseless
        self.code = <void*>pcre2_compile(
            <const uint8_t*><const char*>self.source, len(self.source),
            PCRE2_CASELESS if caseless else 0, &code, &at, NULL,
        )
        if self.code == NULL:
            pcre2_get_error_message(code, message, sizeof(message))
            text = (<const char*>message).decode()
            raise PatternError(compile_error(text, self.source, at))
        # a pattern that JIT does not know is interpreted, under the same limits
        pcre2_jit_compile(<pcre2_code*>self.code, PCRE2_JIT_COMPLETE)
        pcre2_pattern_info(<pcre2_code*>self.code, PCRE2_INFO_CAPTURECOUNT, &self.n_groups)
        self.names = read_names(<pcre2_code*>self.code)
        for name, number in self.names:
            if number >= MOST_GROUPS:
                raise PatternError(
                    f'the named group "{name}" is number {number} in "{shown(self.source)}", '
                    f"at most {MOST_GROUPS - 1} groups can be named"
                )

    def __dealloc__(self):
        if self.code != NULL:
            pcre2_code_free(<pcre2_code*>self.code)

    def __repr__(self):
        return f"Pattern({self.source!r}, caseless={bool(self.is_caseless)})"

    def match(self, subject):
        """Groups of the first match in bytes or str, group 0 first; None without a match.

        Raises OverflowError when the match ran into a limit.
        """
        cdef Captures c
        cdef bytes s = to_source(subject) if isinstance(subject, str) else bytes(subject)
        c.n = 0
        cdef int rc = match_into(self, <const char*>s, <uint32_t>len(s), &c)
        if rc < 0:
            raise OverflowError(f"match limit reached in {self!r}")
        if rc == 0:
            return None
        return [s[c.off[2 * i]:c.off[2 * i + 1]] for i in range(c.n)]


cdef bytes to_source(str pattern):
    # conf words carry bytes that are no UTF-8 as surrogates
    return pattern.encode("utf-8", "surrogateescape")


cdef str shown(bytes pattern):
    return pattern.decode("utf-8", "backslashreplace")


cdef str compile_error(str message, bytes pattern, size_t at):
    # nginx's wording: its own tests and every operator's grep know it
    rest = f' at "{shown(pattern[at:])}"' if at < <size_t>len(pattern) else ""
    return f'pcre2_compile() failed: {message} in "{shown(pattern)}"{rest}'


cdef tuple read_names(pcre2_code* code):
    cdef uint32_t count = 0
    cdef uint32_t size = 0
    cdef const uint8_t* entry = NULL
    pcre2_pattern_info(code, PCRE2_INFO_NAMECOUNT, &count)
    if count == 0:
        return ()
    pcre2_pattern_info(code, PCRE2_INFO_NAMEENTRYSIZE, &size)
    pcre2_pattern_info(code, PCRE2_INFO_NAMETABLE, &entry)
    names = []
    for _ in range(count):
        # an entry: the number in two bytes, most significant first, then the name
        names.append(((<const char*>entry + 2).decode(), (entry[0] << 8) | entry[1]))
        entry += size
    return tuple(sorted(names, key=lambda item: item[1]))


cdef int match(Pattern p, const char* s, uint32_t n, uint32_t* captures, int most) noexcept:
    cdef size_t* at
    cdef int i
    cdef int rc = pcre2_match(
        <pcre2_code*>p.code, <const uint8_t*>s, n, 0, 0, found, limits
    )
    if rc < 0:
        # a subject that is no UTF-8 matches no "(*UTF)" pattern: that is no fault of ours
        if rc == PCRE2_ERROR_NOMATCH or PCRE2_ERROR_UTF8_ERR21 <= rc <= PCRE2_ERROR_UTF8_ERR1:
            return 0
        return rc
    if rc == 0:
        rc = MOST_GROUPS      # more groups than we keep; the rest is not told
    if most <= 0 or captures == NULL:
        return 1
    if rc > most:
        rc = most
    at = pcre2_get_ovector_pointer(found)
    for i in range(rc):
        # unset is ~0 twice; \K inside a lookahead can put the end before the start
        if at[2 * i] > n or at[2 * i + 1] < at[2 * i]:
            captures[2 * i] = 0
            captures[2 * i + 1] = 0
        else:
            captures[2 * i] = <uint32_t>at[2 * i]
            captures[2 * i + 1] = <uint32_t>at[2 * i + 1]
    return rc


cdef int match_into(Pattern p, const char* s, uint32_t n, Captures* c) noexcept:
    cdef int rc = match(p, s, n, c.off, MOST_GROUPS)
    if rc > 0:
        c.p = s
        c.pattern = <PyObject*>p
        c.n = <uint32_t>rc
    return rc
