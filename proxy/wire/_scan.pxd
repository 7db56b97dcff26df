# Finds the end of a run of ordinary bytes, sixteen at a time where SSE2 exists.
#
# Every function gives the first byte of [p, end) that stops the run, or end. Nothing
# is read at or behind end.

from libc.stdint cimport uint8_t, uint32_t


cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif
    #include <stdint.h>
    #include <string.h>

    /* bits of headrace_byte_class: RFC 9110 5.6.2 tchar split the way nginx sees names,
       and the bytes of a host as RFC 3986 3.2.2 has them */
    enum { HR_PLAIN = 1, HR_UNDERSCORE = 2, HR_ODD = 4, HR_HOST = 8, HR_METHOD = 16 };

    #define P HR_PLAIN
    #define U HR_UNDERSCORE
    #define O HR_ODD
    #define H HR_HOST
    #define M HR_METHOD
    static const uint8_t headrace_byte_class[256] = {
        ['!'] = O | H, ['#'] = O, ['$'] = O | H, ['%'] = O | H, ['&'] = O | H,
        ['\\''] = O | H, ['*'] = O | H, ['+'] = O | H, ['.'] = O | H, ['^'] = O,
        ['`'] = O, ['|'] = O, ['~'] = O | H, ['_'] = U | H | M, ['-'] = P | H | M,
        ['('] = H, [')'] = H, [','] = H, [';'] = H, ['='] = H,
        ['0'] = P | H, ['1'] = P | H, ['2'] = P | H, ['3'] = P | H, ['4'] = P | H,
        ['5'] = P | H, ['6'] = P | H, ['7'] = P | H, ['8'] = P | H, ['9'] = P | H,
    #define L(u, l) [u] = P | H | M, [l] = P | H
        L('A', 'a'), L('B', 'b'), L('C', 'c'), L('D', 'd'), L('E', 'e'), L('F', 'f'),
        L('G', 'g'), L('H', 'h'), L('I', 'i'), L('J', 'j'), L('K', 'k'), L('L', 'l'),
        L('M', 'm'), L('N', 'n'), L('O', 'o'), L('P', 'p'), L('Q', 'q'), L('R', 'r'),
        L('S', 's'), L('T', 't'), L('U', 'u'), L('V', 'v'), L('W', 'w'), L('X', 'x'),
        L('Y', 'y'), L('Z', 'z'),
    #undef L
    };
    #undef P
    #undef U
    #undef O
    #undef H
    #undef M

    /* how many of the first 16 bytes are letters or "-" and then a colon: the length of an
       everyday field name, 0 for any other that the byte loop must look at */
    static inline uint32_t headrace_plain_name(const char *p, const char *end)
    {
    #if defined(__SSE2__)
        if (end - p >= 16) {
            __m128i x = _mm_loadu_si128((const __m128i *) p);
            __m128i low = _mm_or_si128(x, _mm_set1_epi8(0x20));
            __m128i from_a = _mm_sub_epi8(low, _mm_set1_epi8('a'));
            __m128i ok = _mm_or_si128(
                _mm_cmpeq_epi8(_mm_min_epu8(from_a, _mm_set1_epi8(25)), from_a),
                _mm_cmpeq_epi8(x, _mm_set1_epi8('-')));
            unsigned other = ~(unsigned) _mm_movemask_epi8(ok) | 0x10000u;
            unsigned n = (unsigned) __builtin_ctz(other);
            if (n < 16 && p[n] == ':')
                return n;
        }
    #endif
        return 0;
    }

    /* Do n bytes say word in any case? Only for words of letters, digits and "-", and for
       bytes among which no control byte is: setting bit 5 joins the cases and no more. */
    static inline int headrace_is_folded(const char *p, const char *word, uint32_t n)
    {
        const uint64_t fold = 0x2020202020202020u;
        uint64_t a = 0, b = 0;
        uint32_t x, y, i;
        if (n >= 8) {
            for (i = 0; ; i = i + 16 > n ? n - 8 : i + 8) {
                memcpy(&a, p + i, 8);
                memcpy(&b, word + i, 8);
                if ((a ^ b) & ~fold)
                    return 0;
                if (i + 8 == n)
                    return 1;
            }
        }
        if (n >= 4) {
            memcpy(&x, p, 4);
            memcpy(&y, word, 4);
            a = x ^ y;
            memcpy(&x, p + n - 4, 4);
            memcpy(&y, word + n - 4, 4);
            return !((a | (x ^ y)) & (uint32_t) ~fold);
        }
        for (i = 0; i < n; i++)
            if ((p[i] ^ word[i]) & ~0x20)
                return 0;
        return 1;
    }

    /* field value, reason, quoted text: stops at a control byte other than HTAB */
    static inline const char *headrace_scan_text(const char *p, const char *end)
    {
    #if defined(__SSE2__)
        const __m128i last = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8(9),
                      del = _mm_set1_epi8(0x7f);
        while (end - p >= 16) {
            __m128i x = _mm_loadu_si128((const __m128i *) p);
            __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, last), x);
            __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(x, tab), low),
                                       _mm_cmpeq_epi8(x, del));
            int mask = _mm_movemask_epi8(bad);
            if (mask)
                return p + __builtin_ctz(mask);
            p += 16;
        }
    #endif
        while (p < end) {
            uint8_t c = (uint8_t) *p;
            if ((c < 0x20 && c != 9) || c == 0x7f)
                break;
            p++;
        }
        return p;
    }

    /* request target: stops at a space, a control byte or DEL */
    static inline const char *headrace_scan_target(const char *p, const char *end)
    {
    #if defined(__SSE2__)
        const __m128i last = _mm_set1_epi8(0x20), del = _mm_set1_epi8(0x7f);
        while (end - p >= 16) {
            __m128i x = _mm_loadu_si128((const __m128i *) p);
            __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(x, last), x),
                                       _mm_cmpeq_epi8(x, del));
            int mask = _mm_movemask_epi8(bad);
            if (mask)
                return p + __builtin_ctz(mask);
            p += 16;
        }
    #endif
        while (p < end && (uint8_t) *p > 0x20 && *p != 0x7f)
            p++;
        return p;
    }
    """
    enum:
        HR_PLAIN
        HR_UNDERSCORE
        HR_ODD
        HR_HOST
        HR_METHOD

    const uint8_t[256] byte_class "headrace_byte_class"
    uint32_t plain_name "headrace_plain_name"(const char* p, const char* end) noexcept nogil
    bint is_folded "headrace_is_folded"(
        const char* p, const char* word, uint32_t n) noexcept nogil
    const char* scan_text "headrace_scan_text"(const char* p, const char* end) noexcept nogil
    const char* scan_target "headrace_scan_target"(const char* p, const char* end) noexcept nogil


cdef enum NameClass:
    IS_PLAIN = 1        # letter, digit, "-": what nginx calls a valid name
    IS_UNDERSCORE = 2
    IS_ODD = 4          # any other token character
    IS_NAME = 7
    IS_HOST = 8
    IS_METHOD = 16      # upper-case letter, "_", "-"


cdef inline uint8_t class_of(char c) noexcept nogil:
    return byte_class[<uint8_t>c]
