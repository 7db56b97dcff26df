# A large body moved by splice(2) from one plaintext Link to the other, through a pooled pipe.
#
# Begun when at least SPLICE_LEAST bytes of a known length remain, nothing reads the body
# and nothing waits in the sink. Meanwhile the two Links give their events to the Splice:
# the source's bytes, or the sink's room, never both, or one of them would spin.

cdef enum:
    SPLICE_LEAST = 64 * 1024
    TURN_BYTES = 8 << 20          # moved in one turn of the loop, then others have theirs
    KEEP_UP_MS = 250              # a client keeps up while it takes KEEP_UP_BYTES in this time;
    KEEP_UP_BYTES = 4 << 20       # one that does not gets a buffered answer from the spool


@final
cdef class SpliceTimer(Timed):
    """Asks whether the client keeps up."""
    cdef PyObject* splice         # borrowed: it holds us

    cdef void on_deadline(self) noexcept:
        cdef Splice held = <Splice>self.splice   # its upstream connection may let go of it
        held.on_deadline()


@final
cdef class Splice(Diversion):
    cdef Worker w
    cdef Request r
    cdef UpstreamH1 u
    cdef ClientH1 c
    cdef bint is_answer           # upstream to client; else the client's body to the upstream
    cdef Link source
    cdef Link sink
    cdef SpliceTimer timer        # None: nobody has to keep up
    cdef int[2] ends
    cdef size_t in_pipe
    cdef int64_t left             # still to come from the source
    cdef bint is_over
    cdef bint is_full             # the sink takes nothing at the moment
    cdef int64_t moved            # since keeping up was looked at

    cdef bint begin(self) noexcept:
        """False: it cannot be done now, copy instead."""
        if not take_pipe(self.ends):
            return False
        self.source = <Link>self.u if self.is_answer else <Link>self.c
        self.sink = <Link>self.c if self.is_answer else <Link>self.u
        self.source.diversion = self.sink.diversion = self
        self.source.pause()
        if self.is_answer and self.u.s.is_buffered and (
                self.u.s.file_bytes >= PIPE_BYTES + READ_BYTES):
            self.timer = SpliceTimer.__new__(SpliceTimer)
            self.timer.splice = <PyObject*>self
            set_deadline(self.w.wheel, self.timer, clock.now_ms + KEEP_UP_MS)
        return True

    cdef void on_deadline(self) noexcept:
        if self.is_over:
            return
        if self.is_full and self.moved < KEEP_UP_BYTES:
            self.unsplice()
            self.w.settle()
            return
        self.moved = 0
        set_deadline(self.w.wheel, self.timer, clock.now_ms + KEEP_UP_MS)

    cdef void close(self) noexcept:
        """Both Links have their events for themselves again; the pipe goes."""
        if self.is_over:
            return
        self.is_over = True
        self.source.diversion = self.sink.diversion = None
        if self.timer is not None:
            self.timer.forget_deadline()
        self.sink.watch(self.sink.mask & ~WRITABLE)
        give_pipe(self.ends, self.in_pipe == 0)

    cdef void watch(self, bint is_writing) noexcept:
        """Either the source's bytes are waited for, or room in the sink."""
        self.source.watch(self.source.mask & ~READABLE if is_writing
                          else self.source.mask | READABLE)
        self.sink.watch(self.sink.mask | WRITABLE if is_writing
                        else self.sink.mask & ~WRITABLE)

    cdef int on_event(self, Link link, int events) noexcept:
        cdef Splice held = self                  # the Links let go of it
        cdef int ours = READABLE | FAILED if link is self.source else WRITABLE
        if link is self.sink and self.in_pipe:
            ours |= FAILED
        if events & ours:
            tick()
            held.run()
            held.w.settle()
        return events & ~ours

    cdef void run(self) noexcept:
        """Move until somebody would block, all is moved, or the turn is over."""
        cdef ssize_t n
        cdef size_t want
        cdef int64_t moved = 0
        cdef bint is_dry = False
        cdef bint is_full = False
        while moved < TURN_BYTES:
            if self.left and not is_dry and self.in_pipe < PIPE_BYTES // 2:
                want = PIPE_BYTES - self.in_pipe
                if self.left < <int64_t>want:
                    want = <size_t>self.left
                n = move_bytes(self.source.fd, self.ends[1], want, False)
                if n > 0:
                    self.left -= n
                    self.in_pipe += <size_t>n
                    self.count_in(n)
                elif n == 0:
                    self.lose_source()
                    return
                elif n == -EAGAIN:
                    is_dry = True
                elif n != -EINTR:
                    self.lose_source()
                    return
            if self.in_pipe:
                n = move_bytes(self.ends[0], self.sink.fd, self.in_pipe,
                               self.left != 0 and not is_dry)
                if n > 0:
                    self.in_pipe -= <size_t>n
                    moved += n
                    self.count_out(n)
                elif n == -EAGAIN:
                    is_full = True
                    break
                elif n < 0 and n != -EINTR:
                    self.lose_sink()
                    return
            elif is_dry:
                break
            if self.left == 0 and self.in_pipe == 0:
                self.finish()
                return
        self.time_sink(is_full, moved != 0 or not self.is_full)
        self.is_full = is_full
        self.moved += moved
        self.watch(is_full)

    cdef void time_sink(self, bint is_full, bint is_news) noexcept:
        """Only one side's time limit runs: that of the sink while it takes nothing."""
        cdef Location here = self.r.location
        if self.is_answer:
            if not is_full:
                self.c.node.deadline_ms = 0
            elif is_news:
                self.c.time_sending(self.r)
        elif is_full:
            self.c.node.deadline_ms = 0
            if is_news:
                set_deadline(self.w.wheel, self.u, clock.now_ms + self.u.s.send_ms)
        else:
            set_deadline(self.w.wheel, self.c, clock.now_ms + here.body_timeout_ms)

    cdef void count_in(self, ssize_t n) noexcept:
        cdef Attempt* a
        if self.is_answer:
            a = &self.r.attempts[self.r.n_attempts - 1]
            a.length += n
            a.bytes_received += n
            self.u.left -= n
            self.u.node.deadline_ms = due(self.u, self.u.read_ms)
        else:
            self.c.body_left -= n
            self.r.body_n += n
            self.c.node.deadline_ms = clock.now_ms + self.r.location.body_timeout_ms

    cdef void count_out(self, ssize_t n) noexcept:
        if self.is_answer:
            self.r.sent_body += n
        else:
            self.u.written += n
            self.u.node.deadline_ms = due(self.u, self.u.read_ms)

    cdef void unsplice(self) noexcept:
        """The client does not keep up: the answer goes on through memory and file."""
        cdef Request r = self.r
        cdef UpstreamH1 u = self.u
        cdef Spool q = answer_spool(u, (<ClientStream>self.r.stream).unsent())
        cdef ssize_t n
        cdef int rc = 0
        while self.in_pipe and rc == 0:
            n = c_read(self.ends[0], read_buffer, READ_BYTES)
            if n <= 0:
                rc = INTERNAL
                break
            self.in_pipe -= <size_t>n
            rc = q.put(read_buffer, <size_t>n)
        self.close()
        u.splice = None
        r.waiting = q
        if rc < 0:
            self.w.fail(r, rc)
            return
        if u.left == 0:
            u.end_answer(r, 0)
        else:
            u.unpause()
        if r.waiting is not None and self.c.r is r:
            rc = self.w.send_waiting(r)
            if rc == 0:
                self.w.on_client_drained(r)
            elif rc < 0:
                self.w.fail(r, rc)

    cdef void finish(self) noexcept:
        cdef Request r = self.r
        cdef UpstreamH1 u = self.u
        cdef ClientH1 c = self.c
        self.close()
        u.splice = None
        if self.is_answer:
            c.node.deadline_ms = 0
            u.end_answer(r, 0)
        else:
            c.unpause()
            c.end_body()

    cdef void lose_source(self) noexcept:
        self.close()
        self.u.splice = None
        if self.is_answer:
            self.u.lose(UPSTREAM_CUT)
        else:
            self.r.told_status = 400
            self.w.on_client_gone(self.r)
            self.c.close()

    cdef void lose_sink(self) noexcept:
        self.close()
        self.u.splice = None
        if self.is_answer:
            self.w.lose_client(self.r)
        else:
            self.c.unpause()
            self.u.lose(UPSTREAM_CLOSED)


cdef bint splice_answer(Worker w, Request r, UpstreamH1 u) noexcept:
    """Move the rest of the answer's body without touching it. False: it is to be copied."""
    cdef ClientH1 c
    cdef Splice s
    if r.parent is not None or (<ClientStream>r.stream).is_multiplexed:
        return False
    c = (<ClientStream>r.stream).conn
    if (u.left < SPLICE_LEAST or not c.is_plain or not u.is_plain or c.is_blocked
            or r.is_header_only or r.waiting is not None or r.out_kind != BODY_LENGTH
            or r.limit_rate or c.is_closing or r.filters is not None):
        return False
    r.stream.flush(r)
    if c.is_blocked or c.is_closing or u.r is not r:
        return False
    s = Splice.__new__(Splice)
    s.w = w
    s.r = r
    s.u = u
    s.c = c
    s.is_answer = True
    s.left = u.left
    if not s.begin():
        u.unpause()
        return False
    u.splice = s
    s.run()
    return True


cdef bint splice_body(Worker w, Request r, UpstreamH1 u) noexcept:
    """The same for the rest of the client's body, towards an upstream that streams it."""
    cdef ClientH1 c = (<ClientStream>r.stream).conn
    cdef Splice s
    cdef bint is_bounded = r.location.max_body == 0 or r.head.content_length <= r.location.max_body
    if (c.body_left < SPLICE_LEAST or c.chunked != NULL or not c.is_plain or not u.is_plain
            or u.is_blocked or r.body is not None or c.held_n or not is_bounded):
        return False
    if w.ask_of is u and w.ask_n and w.write_ask(u, NULL, 0):
        return False
    s = Splice.__new__(Splice)
    s.w = w
    s.r = r
    s.u = u
    s.c = c
    s.left = c.body_left
    if not s.begin():
        c.unpause()
        return False
    u.splice = s
    s.run()
    return True
