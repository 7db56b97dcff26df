# `queue` in an upstream: requests that found every server at its max_conns stand in a line.

cdef enum:
    LINE_LOOK_MS = 50         # how often other workers' servers are looked at, which tell nobody


@final
cdef class Place(Timed):
    """One request in a line. The request holds it (waiter) for as long as it waits."""
    cdef Line line
    cdef Request r                # another one's by now if it holds us no more
    cdef uint32_t n_bytes
    cdef uint64_t until_ms

    cdef inline bint is_live(self) noexcept:
        return self.r.waiter is self

    cdef void on_deadline(self) noexcept:
        cdef Request r = self.r
        cdef Worker w = self.line.w
        if not self.is_live():
            return
        if clock.now_ms < self.until_ms:         # perhaps another worker let a server go
            set_deadline(w.wheel, self, min(self.until_ms, clock.now_ms + LINE_LOOK_MS))
            self.line.go_on()
        else:
            self.line.leave(self)
            r.waiter = None
            report_about(R_ERROR, r, "queue wait= is over in upstream \"", of_bytes(
                self.line.u.name), "\"")
            w.drive(r, QUEUE_TIMEOUT)
        w.settle()


@final
cdef class Line:
    """Who waits for a server of one upstream, in this worker; bounds are words.Queue's."""
    cdef Worker w
    cdef Upstream u
    cdef object places             # deque
    cdef uint64_t most
    cdef uint64_t most_bytes
    cdef uint64_t wait_ms
    cdef uint64_t bytes
    cdef PyObject* first          # whose turn it is while go_on asks
    cdef bint is_called           # go_on comes at the end of this entry from the loop

    cdef int join(self, Request r) except -1:
        """PARK, or QUEUE_FULL."""
        cdef Place t
        cdef uint64_t given_up_ms
        if self.first == <PyObject*>r:           # it was its turn, and somebody was quicker
            t = <Place>self.places[0]
        else:
            t = Place.__new__(Place)
            t.line = self
            t.r = r
            t.n_bytes = r.head.size
            t.until_ms = clock.now_ms + self.wait_ms
            given_up_ms = grpc_deadline(r) if (<ProxySettings>r.location.proxy).is_grpc else 0
            if given_up_ms and given_up_ms < t.until_ms:
                t.until_ms = given_up_ms
            if len(self.places) >= self.most or self.bytes + t.n_bytes > self.most_bytes:
                self.forget_gone()
            if len(self.places) >= self.most or self.bytes + t.n_bytes > self.most_bytes:
                report_about(R_ERROR, r, "queue is full in upstream \"", of_bytes(self.u.name),
                             "\"")
                return QUEUE_FULL
            if r.keep_head() < 0:
                return NO_MEMORY
            self.places.append(t)
            self.bytes += t.n_bytes
        r.waiter = t
        set_deadline(self.w.wheel, t, min(t.until_ms, clock.now_ms + LINE_LOOK_MS))
        return PARK

    cdef forget_gone(self):
        """Clients that left are let go of when their turn comes, or here."""
        live = [t for t in self.places if (<Place>t).is_live()]
        self.places.clear()
        self.places.extend(live)
        self.bytes = 0
        for t in live:
            self.bytes += (<Place>t).n_bytes

    cdef leave(self, Place t):
        self.places.remove(t)
        self.bytes -= t.n_bytes

    cdef void go_on(self) noexcept:
        """A server has room, perhaps: in order, until one finds none."""
        cdef Place t
        cdef Request r
        self.is_called = False
        if self.first != NULL:
            return
        try:
            while self.places:
                t = <Place>self.places[0]
                r = t.r
                if t.is_live():
                    self.first = <PyObject*>r
                    r.waiter = None
                    r.stage = S_PICK - 1
                    self.w.drive(r, GO)
                    self.first = NULL
                    if t.is_live():
                        break
                    t.forget_deadline()
                self.leave(t)
        except Exception as error:
            tell_error(R_ALERT, None, "calling who waits for an upstream", error)
        self.first = NULL


cdef int stand_in_line(Worker w, Request r, Upstream u) noexcept:
    """No server is free: wait for one. PARK, or a fault."""
    cdef Line line
    try:
        if u.line is None:
            line = Line.__new__(Line)
            line.w = w
            line.u = u
            line.places = deque()
            line.most, line.most_bytes, line.wait_ms = u.queue
            u.line = line
        return (<Line>u.line).join(r)
    except Exception as error:
        tell_error(R_ALERT, r, "waiting for an upstream", error)
        return INTERNAL


cdef inline bint comes_before(Upstream u, Request r) noexcept:
    """Somebody waits already, and r is not the one whose turn it is."""
    return u.line is not None and len((<Line>u.line).places) and (<Line>u.line).first != (
        <PyObject*>r)


cdef inline void call_line(Worker w, Upstream u) noexcept:
    """A connection ended: whoever is first asks again when this entry from the loop is over."""
    if u.line is not None and not (<Line>u.line).is_called and len((<Line>u.line).places):
        (<Line>u.line).is_called = True
        w.lines.append(u.line)
