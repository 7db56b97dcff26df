# What the worker asks of the side that a request came from, whatever carried it; and HTTP/1.1's.

cdef class ClientStream(Stream):
    """The Stream of a client's request, or of a sub-request, which has no connection."""
    cdef ClientH1 conn            # None: the request is over, or nobody's
    cdef bint is_multiplexed      # others share its connection

    cdef Listener came_to(self) noexcept:
        """The address that its client came to."""
        return self.conn.listener

    cdef Worker worker(self) noexcept:
        """None: the request is over, or nobody's."""
        return self.conn.w if self.conn is not None else None

    cdef void give_back(self, Worker w, Request r) noexcept:
        """The request was freed: it may be used again."""

    cdef void go_on(self) noexcept:
        """What it put off until all others are done."""

    cdef uint32_t held_bytes(self) noexcept:
        """What came of a body and was not taken."""
        return 0

    cdef void ask_body(self, Request r) noexcept:
        """Somebody wants the body now."""

    cdef void go_on_reading(self, Request r) noexcept:
        """Who takes the body has room again: on with it, and with its time limit."""

    cdef void time_body(self, Request r) noexcept:
        """A piece of the body came: its time limit begins anew."""

    cdef void stop_time(self) noexcept:
        """Nobody waits for the client any more."""

    cdef bint has_bad_chunk(self) noexcept:
        return False

    cdef void on_answered(self, Request r) noexcept:
        """The request was told: let go of it, on with the connection."""

    cdef void forget(self, Request r) noexcept:
        """The client is gone: the connection knows of the request no more."""

    cdef size_t unsent(self) noexcept:
        """Bytes of the answer that wait here."""
        return 0

    # ---- the client's end of a tunnel; those of a sub-request never have one

    cdef bint may_tunnel(self, Request r) noexcept:
        """Is the upstream's 101 what this client asked for?"""
        return False

    cdef void open_tunnel(self, Request r, UpstreamH1 u) noexcept:
        """The head of the 101 is on its way: bytes from here on. Held ones go to u now or soon."""

    cdef int write_tunnel(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        """p, then q. 0; 1: taken, but wait until the upstream is unpaused; -1: it is gone."""
        return -1

    cdef void want_tunnel(self, bint is_wanted) noexcept:
        """Have bytes of the client room at the upstream?"""

    cdef void shut_tunnel(self) noexcept:
        """Nothing more goes to the client behind what was written."""

    cdef void end_tunnel(self) noexcept:
        """Both sides said all, or the upstream is lost: the request is over."""

    cdef void part_tunnel(self) noexcept:
        """The upstream is lost while the client has its Close still to read."""

    cdef void give_up_tunnel(self) noexcept:
        """It was silent for too long."""

    cdef bint is_tunnel_ended(self) noexcept:
        """Did the client say all?"""
        return True

    cdef bint has_tunnel_moved(self) noexcept:
        """Was something taken of what waits, since this was asked last?"""
        return False

    cdef bint is_ahead(self, Request r) noexcept:
        """Was more sent than is due? Then the pacer goes on when it is: the head of an answer
        counts too, even of one without a body."""
        cdef int64_t room
        if r.limit_rate == 0:
            return False
        if r.pacer is not None:
            return True
        room = rate_room(r)
        if room >= 0:
            return False
        self.hold_back(r, <uint64_t>(-room) * 1000 // r.limit_rate + 1)
        return True

    cdef int64_t allowance(self, Request r) noexcept:
        """nginx's limit_rate: rate times the seconds that have begun, and limit_rate_after."""
        cdef int64_t room
        if r.limit_rate == 0:
            return <int64_t>1 << 62
        if r.pacer is not None:
            return 0
        room = rate_room(r)
        if room > 0:
            return room
        self.hold_back(r, <uint64_t>(-room) * 1000 // r.limit_rate + 1)
        return 0

    cdef void hold_back(self, Request r, uint64_t wait_ms) noexcept:
        cdef Pacer pacer
        cdef Worker w = self.worker()
        if w is None:
            return
        pacer = Pacer.__new__(Pacer)
        pacer.w = w
        pacer.r = <PyObject*>r
        r.pacer = pacer
        set_deadline(w.wheel, pacer, clock.now_ms + wait_ms)


cdef void frame_on_stream(Request r, bint is_connect) noexcept:
    """How an answer's body goes on a stream of HTTP/2 or 3. is_connect: it answers one that asked
    for a WebSocket (RFC 8441, 9220)."""
    if r.is_upgraded:                            # what a tunnel begins with here
        r.status = 200
    elif is_connect and r.status < 300:
        # a success would begin one; what answers here speaks no WebSocket
        r.status = 501 if r.is_answer_ours else 502
        r.length = 0
        r.source = None
    frame_answer(r, r.head.version)
    if is_connect and not r.is_upgraded and r.length == 0:
        r.is_header_only = True
    if r.out_kind == BODY_UNTIL_CLOSE:           # chunked_transfer_encoding is of HTTP/1.1
        r.out_kind = BODY_CHUNKED


@final
cdef class H1Stream(ClientStream):
    """The Stream of a ClientH1; lives and is pooled together with its Request."""

    cdef void give_back(self, Worker w, Request r) noexcept:
        w.stats.waiting += 1
        self.conn = None
        if len(w.free_requests) < MAX_POOLED:
            w.free_requests.append(r)

    cdef int send_head(self, Request r) noexcept:
        cdef ClientH1 c = self.conn
        cdef Worker w = c.w
        cdef int n
        if r.keep_alive:
            r.keep_alive = may_keep(c, r)
        if r.location is not None and r.location.headers is not None:
            expect_trailers(r)
        frame_answer(r, r.head.version)
        w.own_out(self)
        n = write_answer_head(r, w.out + w.out_n, OUT_BYTES - w.out_n)
        if n < 0:
            return n
        w.out_n += <size_t>n
        r.sent_head = n
        r.is_head_sent = True
        return 0

    cdef int send_interim(self, Request r, int status) noexcept:
        """100 Continue, 103 with the fields in r.answer."""
        cdef Worker w = self.conn.w
        if r.head.version < 11:
            return 0
        w.own_out(self)
        if status == 103:
            if w.out_n and OUT_BYTES - w.out_n < r.answer.size + MAX_OWN_BYTES:
                w.write_out(self.conn, NULL, 0)
                w.out_of = self
            w.out_n += <size_t>write_hints(r, w.out + w.out_n, OUT_BYTES - w.out_n)
            return self.flush(r)
        if status == 100:
            memcpy(w.out + w.out_n, b"HTTP/1.1 100 Continue\r\n\r\n", 25)
            w.out_n += 25
            return self.flush(r)
        return 0

    cdef int send_body(self, Request r, const char* p, size_t n) noexcept:
        cdef Worker w = self.conn.w
        cdef int size
        if n == 0 or r.is_header_only:
            return 0
        r.sent_body += <int64_t>n
        w.own_out(self)
        if r.out_kind != BODY_CHUNKED:
            if n <= SMALL_BYTES and w.out_n + n <= OUT_BYTES:
                memcpy(w.out + w.out_n, p, n)
                w.out_n += n
                return self.conn.is_blocked
            return w.write_out(self.conn, p, n)
        if w.out_n + n + 32 > OUT_BYTES:
            if w.write_out(self.conn, NULL, 0) < 0:
                return CLIENT_GONE
        size = <int>chunk_prefix(w.out + w.out_n, n)
        w.out_n += <size_t>size
        if n <= SMALL_BYTES:
            memcpy(w.out + w.out_n, p, n)
            w.out_n += n
        elif w.write_out(self.conn, p, n) < 0:
            return CLIENT_GONE
        w.out[w.out_n] = c"\r"
        w.out[w.out_n + 1] = c"\n"
        w.out_n += 2
        w.out_of = self
        return self.conn.is_blocked

    cdef int send_file(self, Request r, int fd, int64_t* offset, int64_t n) noexcept:
        cdef ClientH1 c = self.conn
        cdef ssize_t got
        cdef int rc
        if c is None or not c.is_plain or c.is_blocked or c.fd < 0 or r.out_kind == BODY_CHUNKED:
            return NOT_IMPLEMENTED
        c.w.own_out(self)
        if c.w.out_n:
            rc = c.w.write_out(c, NULL, 0)
            if rc:
                return rc
        got = sendfile(c.fd, fd, offset, <size_t>n)
        if got > 0:
            r.sent_body += got
            if got == n:
                return 0
        elif got == 0:                           # the file became shorter
            return INTERNAL
        elif errno == EINTR:
            return 0
        elif errno != EAGAIN:
            return CLIENT_GONE if errno == EPIPE or errno == ECONNRESET else NOT_IMPLEMENTED
        c.await_room()
        c.time_sending(r)
        return BLOCKED

    cdef int send_end(self, Request r) noexcept:
        cdef Worker w = self.conn.w
        cdef int n
        if r.out_kind == BODY_CHUNKED and not r.is_header_only:
            w.own_out(self)
            n = write_trailers(r, w.out + w.out_n, OUT_BYTES - w.out_n)
            if n < 0 and w.out_n:                # behind what waits there is no room for them
                w.write_out(self.conn, NULL, 0)
                w.out_of = self
                n = write_trailers(r, w.out, OUT_BYTES)
            if n < 0:
                return n
            w.out_n += <size_t>n
        return 0

    cdef int flush(self, Request r) noexcept:
        cdef Worker w = self.conn.w
        if w.out_of is self and w.out_n:
            return w.write_out(self.conn, NULL, 0)
        return 0

    cdef void abort(self, Request r) noexcept:
        """The answer cannot be completed: cut it where the client sees it."""
        if self.conn is not None:
            self.conn.w.drop_out(self)
            r.keep_alive = False
            r.told_status = r.told_status or 0
            self.conn.cut()

    cdef void want_body(self, Request r, bint is_wanted) noexcept:
        if self.conn is None:
            return
        if is_wanted:
            self.conn.unpause()
        else:
            self.conn.pause()

    cdef bint is_blocked(self) noexcept:
        return self.conn.is_blocked

    cdef void ask_body(self, Request r) noexcept:
        self.conn.ask_body(r)

    cdef void go_on_reading(self, Request r) noexcept:
        self.conn.go_on_reading(r)

    cdef void time_body(self, Request r) noexcept:
        if self.conn.node.deadline_ms and not self.conn.is_blocked:
            self.conn.node.deadline_ms = clock.now_ms + r.location.body_timeout_ms

    cdef void stop_time(self) noexcept:
        self.conn.node.deadline_ms = 0

    cdef bint has_bad_chunk(self) noexcept:
        return self.conn.has_bad_chunk()

    cdef void on_answered(self, Request r) noexcept:
        self.conn.on_answered(r)

    cdef void forget(self, Request r) noexcept:
        self.conn.r = None

    cdef size_t unsent(self) noexcept:
        return self.conn.rest.n if self.conn.rest != NULL else 0

    # ---------------------------------------------------------------- tunnel

    cdef bint may_tunnel(self, Request r) noexcept:
        return True                              # the client checks its handshake itself

    cdef void open_tunnel(self, Request r, UpstreamH1 u) noexcept:
        cdef ClientH1 c = self.conn
        c.tunnel = u
        c.state = C_TUNNEL
        c.node.deadline_ms = 0
        if c.held_n:                             # sent before the switch was answered
            c.to_tunnel(c.held, c.held_n)
            free(c.held)
            c.held = NULL
            c.held_n = c.held_cap = 0
        if not u.is_blocked:
            c.unpause()

    cdef int write_tunnel(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        return self.conn.write(p, n, q, m)

    cdef void want_tunnel(self, bint is_wanted) noexcept:
        if is_wanted:
            self.conn.unpause()
        else:
            self.conn.pause()

    cdef void shut_tunnel(self) noexcept:
        self.conn.shut()

    cdef void end_tunnel(self) noexcept:
        self.conn.close()

    cdef void part_tunnel(self) noexcept:
        self.conn.tunnel = None
        self.conn.part_tunnel()

    cdef void give_up_tunnel(self) noexcept:
        self.conn.end_tunnel_timedout()

    cdef bint is_tunnel_ended(self) noexcept:
        return self.conn.is_ended

    cdef bint has_tunnel_moved(self) noexcept:
        return self.conn.is_blocked and self.conn.has_moved()
