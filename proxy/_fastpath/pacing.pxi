# limit_rate and proxy_limit_rate: how much may go now, and who waits until more may.

cdef inline int64_t rate_room(Request r) noexcept:
    """Bytes that may go by now; negative: so many were too early."""
    cdef uint64_t begun_s = (clock.now_ms - r.start_ms) // 1000 + 1
    return <int64_t>(r.limit_rate * begun_s) - (
        r.sent_head + r.sent_body - <int64_t>r.limit_rate_after)


cdef void take_rate(Request r) noexcept:
    """limit_rate of the location, where nothing said another before."""
    cdef Location here = r.location
    if r.limit_rate == 0:
        r.limit_rate = here.limit_rate
        if here.limit_rate_text is not None:
            r.limit_rate = size_of(<Template>here.limit_rate_text, r)
    if r.limit_rate:
        r.limit_rate_after = here.limit_rate_after
        if here.limit_rate_after_text is not None:
            r.limit_rate_after = size_of(<Template>here.limit_rate_after_text, r)


cdef uint64_t size_of(Template t, Request r) noexcept:
    """A size such as 12k from a text with variables; 0 when it is none."""
    cdef Str s
    cdef uint32_t i
    cdef uint32_t n
    cdef uint64_t size = 0
    cdef uint64_t unit = 1
    if evaluate(t, r, &s) < 0 or s.n == 0 or s.n > 18:
        return 0
    n = s.n
    if s.p[n - 1] == c"k" or s.p[n - 1] == c"K":
        unit = 1 << 10
        n -= 1
    elif s.p[n - 1] == c"m" or s.p[n - 1] == c"M":
        unit = 1 << 20
        n -= 1
    for i in range(n):
        if not 48 <= s.p[i] <= 57:
            return 0
        size = size * 10 + <uint64_t>(s.p[i] - 48)
    return size * unit


@final
cdef class Pacer(Timed):
    """Lets an answer go on that was ahead of its limit_rate. The request holds it."""
    cdef Worker w
    cdef PyObject* r

    cdef void on_deadline(self) noexcept:
        cdef Request r = <Request>self.r
        if r.pacer is self:
            r.pacer = None
            if not r.stream.is_blocked():
                self.w.on_client_drained(r)
                self.w.settle()


@final
cdef class UpstreamPacer(Timed):
    cdef PyObject* u              # borrowed: the connection holds it

    cdef void on_deadline(self) noexcept:
        cdef UpstreamCall u = <UpstreamCall>self.u
        if u.pacer is self:
            u.pacer = None
            if u.r is None or u.r.waiting is None:
                u.unpause()
