# Reads an HTTP-date in any of its three forms (RFC 9110 §5.6.7).

from proxy.base.span cimport is_same_word, text

cdef const char* MONTHS = b"janfebmaraprmayjunjulaugsepoctnovdec"
cdef int[12] DAYS_BEFORE = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
cdef int[12] DAYS_OF = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef int read_digits(const char** p, const char* end, int least, int most) noexcept nogil:
    """A number of so many digits, or -1."""
    cdef int value = 0
    cdef int n = 0
    while p[0] < end and c"0" <= p[0][0] <= c"9" and n < most:
        value = value * 10 + (p[0][0] - c"0")
        p[0] += 1
        n += 1
    return value if n >= least else -1


cdef int read_month(const char** p, const char* end) noexcept nogil:
    """0 … 11, or -1."""
    cdef int i
    if end - p[0] < 3:
        return -1
    for i in range(12):
        if is_same_word(p[0], MONTHS + 3 * i, 3):
            p[0] += 3
            return i
    return -1


cdef int64_t read_clock(const char** p, const char* end) noexcept nogil:
    """Seconds of the day of hh:mm:ss, or -1."""
    cdef int hour, minute, second
    hour = read_digits(p, end, 2, 2)
    if hour < 0 or not skip(p, end, c":"):
        return -1
    minute = read_digits(p, end, 2, 2)
    if minute < 0 or not skip(p, end, c":"):
        return -1
    second = read_digits(p, end, 2, 2)
    if second < 0 or hour > 23 or minute > 59 or second > 59:
        return -1
    return hour * 3600 + minute * 60 + second


cdef int64_t read_date(Str s) noexcept nogil:
    cdef const char* p = s.p
    cdef const char* end = s.p + s.n
    cdef int day, month, year
    cdef int64_t at, days
    cdef char joint
    cdef bint is_leap
    while p < end and p[0] != c"," and p[0] != c" ":
        p += 1
    if p == end:
        return -1
    if p[0] == c",":                             # IMF-fixdate, or RFC 850 with its "-"
        p += 1
        while skip(&p, end, c" "):
            pass
        day = read_digits(&p, end, 2, 2)
        if day < 0 or p == end:
            return -1
        joint = p[0]
        if joint != c" " and joint != c"-":
            return -1
        p += 1
        month = read_month(&p, end)
        if month < 0 or not skip(&p, end, joint):
            return -1
        if joint == c" ":
            year = read_digits(&p, end, 4, 4)
        else:
            year = read_digits(&p, end, 2, 2)
            if year >= 0:
                year += 2000 if year < 70 else 1900
        if year < 0 or not skip(&p, end, c" "):
            return -1
        at = read_clock(&p, end)
    else:                                        # asctime
        while skip(&p, end, c" "):
            pass
        month = read_month(&p, end)
        if month < 0 or not skip(&p, end, c" "):
            return -1
        skip(&p, end, c" ")
        day = read_digits(&p, end, 1, 2)
        if day < 0 or not skip(&p, end, c" "):
            return -1
        at = read_clock(&p, end)
        if at < 0 or not skip(&p, end, c" "):
            return -1
        year = read_digits(&p, end, 4, 4)
    if at < 0 or year < 1970 or day < 1 or day > DAYS_OF[month]:
        return -1
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if month == 1 and day == 29 and not is_leap:
        return -1
    days = <int64_t>(year - 1970) * 365 + (year - 1969) // 4 - (year - 1901) // 100 + (
        year - 1601) // 400 + DAYS_BEFORE[month] + day - 1
    if is_leap and month > 1:
        days += 1
    return days * 86400 + at


def date_of(bytes value not None):
    """read_date."""
    return read_date(text(<const char*>value, len(value)))
