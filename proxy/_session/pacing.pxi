# proxy_upload_rate, proxy_download_rate: a side that is ahead of its rate is not read for a while
# (nginx: ngx_stream_proxy_process).

# no product of it and a session's time may wrap
cdef uint64_t MOST_RATE = <uint64_t>1 << 40


@final
cdef class Pacer(Timed):
    """Lets one side of a session be read again. The session holds it, and takes itself out."""
    cdef Session session
    cdef uint64_t rate            # bytes a second
    cdef bint is_client

    cdef void on_deadline(self) noexcept:
        cdef Session s = self.session
        cdef Side side
        tick()
        if s is None or s.state != S_PIPING:
            return
        side = s.client if self.is_client else s.upstream
        if not (s.upstream if self.is_client else s.client).is_blocked:
            side.unpause()                       # else on_drained does


cdef Pacer pacer_of(Session s, uint64_t rate, Template text, bint is_client):
    """For a direction that has a rate, else None."""
    cdef Str value
    cdef Pacer pacer
    if text is not None:
        rate = 0
        if evaluate(text, s.r, &value) >= 0:
            rate = read_size(to_bytes(value).decode("latin-1")) or 0
    if rate == 0:
        return None
    pacer = Pacer.__new__(Pacer)
    pacer.session = s
    pacer.rate = rate if rate < MOST_RATE else MOST_RATE
    pacer.is_client = is_client
    return pacer


cdef Pacer drop_pacers(Session s):
    for pacer in (s.up, s.down):
        if pacer is not None:
            (<Pacer>pacer).session = None
            (<Pacer>pacer).forget_deadline()
    return None


cdef size_t allowance(Session s, Side side, size_t want) noexcept:
    """How much may be read now; 0: nothing, the side rests. A second's bytes may come at once."""
    cdef Pacer pacer = s.up if side.is_client else s.down
    cdef uint64_t had = <uint64_t>(s.r.body_n if side.is_client else
                                   s.r.attempts[s.r.n_attempts - 1].bytes_received)
    cdef uint64_t most = pacer.rate * ((clock.now_ms - s.piped_ms) // 1000 + 1)
    if had < most:
        return want if want < most - had else <size_t>(most - had)
    side.pause()
    side.watch(side.mask & ~READABLE)
    set_deadline(s.house.wheel, pacer, s.piped_ms + had // pacer.rate * 1000)
    return 0
