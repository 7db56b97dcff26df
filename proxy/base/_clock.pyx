# Reads the clock; writes the three texts of a second once a second.

from libc.stdio cimport snprintf
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        int tm_wday
        long tm_gmtoff
    tm* gmtime_r(const long*, tm*)
    tm* localtime_r(const long*, tm*)

cdef const char** DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
cdef const char** MONTHS = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


cdef void write_texts(Clock* c) noexcept nogil:
    cdef tm t
    cdef long s = c.wall_s
    cdef int east
    cdef char sign = c"+"
    gmtime_r(&s, &t)
    snprintf(c.date, 32, "%s, %02d %s %04d %02d:%02d:%02d GMT", DAYS[t.tm_wday], t.tm_mday,
             MONTHS[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec)
    localtime_r(&s, &t)
    east = <int>(t.tm_gmtoff / 60)
    if east < 0:
        sign = c"-"
        east = -east
    snprintf(c.log_time, 32, "%02d/%s/%04d:%02d:%02d:%02d %c%02d%02d", t.tm_mday,
             MONTHS[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec, sign,
             east // 60, east % 60)
    snprintf(c.log_iso, 32, "%04d-%02d-%02dT%02d:%02d:%02d%c%02d:%02d", t.tm_year + 1900,
             t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, sign, east // 60, east % 60)
    c.date_at = <uint64_t>c.wall_s


cdef void tick() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    clock.now_ms = <uint64_t>t.tv_sec * 1000 + <uint64_t>(t.tv_nsec // 1000000)
    clock_gettime(CLOCK_REALTIME, &t)
    clock.wall_s = t.tv_sec
    clock.wall_ms = <uint32_t>(t.tv_nsec // 1000000)
    if clock.date_at != <uint64_t>t.tv_sec:
        write_texts(&clock)


cdef Clock* clock_now() noexcept nogil:
    return &clock


tick()
