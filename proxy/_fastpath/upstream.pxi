# The upstream's side over HTTP/1.1: one connection to a peer, one request at a time.

@final
cdef class UpstreamH1(UpstreamCall):
    cdef ClientStream tunnel      # the other end of one that goes through here
    cdef WebSocket websocket      # reads the frames of the tunnel; None: it is opaque
    cdef uint8_t is_last          # close after this answer
    cdef uint8_t is_shut_held     # the client of the tunnel says no more; the peer is told later
    cdef Chunked chunked
    cdef char* held
    cdef uint32_t held_n

    def __dealloc__(self):
        free(self.held)

    cdef void begin(self) noexcept:
        """Connected, and known to be the right one: the request may go."""
        cdef Request r = self.r
        self.node.deadline_ms = 0
        if r is None:                            # whoever wanted it has left
            self.state = U_OVER
            self.close()
            return
        self.born_ms = clock.now_ms
        r.attempts[r.n_attempts - 1].connect_ms = <int64_t>(
            clock.now_ms - r.attempts[r.n_attempts - 1].start_ms)
        self.state = U_HEAD
        self.w.resume(r, GO)
        self.w.settle()

    # ---------------------------------------------------------------- the request goes out

    cdef int ask(self, Request r) noexcept:
        """Write head and what is there of the body. 0 or a fault."""
        cdef Worker w = self.w
        cdef int64_t length = 0
        cdef int n
        w.own_ask(self)
        self.state = U_HEAD
        self.n_interim = 0
        self.interim_bytes = 0
        self.written = 0
        self.is_last = self.s.version == 10
        self.is_ask_whole = False
        # nginx paces by its buffers; and what a client does not take of a read waits in them
        self.most_bytes = piece_bytes(self.s)
        n = write_request_head(self.s, r, w.ask + w.ask_n, OUT_BYTES - w.ask_n, &length)
        if n < 0:
            return n
        w.ask_n += <size_t>n
        w.ask_of = self
        self.ask_left = length
        self.requests += 1
        set_deadline(w.wheel, self, due(self, self.read_ms))
        if length == 0 or not self.s.passes_body:
            self.is_ask_whole = True
        return 0

    cdef int ask_body(self, const char* p, size_t n) noexcept:
        """A piece of the request's body. 0, BLOCKED, or CLIENT_GONE when it cannot be sent."""
        cdef Worker w = self.w
        cdef int rc
        if n == 0:
            return self.is_blocked
        w.own_ask(self)
        if self.ask_left < 0:
            w.ask_n += chunk_prefix(w.ask + w.ask_n, n)
            if n <= SMALL_BYTES and w.ask_n + n + 64 <= OUT_BYTES:
                memcpy(w.ask + w.ask_n, p, n)    # one write with what is around it
                memcpy(w.ask + w.ask_n + n, b"\r\n", 2)
                w.ask_n += n + 2
                self.node.deadline_ms = due(self, self.read_ms)
                return self.is_blocked
        rc = w.write_ask(self, p, n)
        if self.ask_left < 0:
            w.ask[w.ask_n] = c"\r"
            w.ask[w.ask_n + 1] = c"\n"
            w.ask_n += 2
            w.ask_of = self
        if rc == BLOCKED:                        # may be the shorter one
            set_deadline(w.wheel, self, due(self, self.s.send_ms))
        else:
            self.node.deadline_ms = due(self, self.read_ms)
        return rc

    cdef void ask_end(self) noexcept:
        cdef Worker w = self.w
        if self.ask_left < 0 and not self.is_ask_whole:
            w.own_ask(self)
            memcpy(w.ask + w.ask_n, b"0\r\n\r\n", 5)
            w.ask_n += 5
            w.ask_of = self
        self.is_ask_whole = True

    # ---------------------------------------------------------------- the answer comes

    cdef void take(self, char* p, uint32_t n) noexcept:
        cdef Request r = self.r
        cdef char* all_of_it
        cdef uint32_t size
        cdef int used
        if self.state == U_TUNNEL:
            self.from_tunnel(p, n)
            return
        if r is None:                            # bytes that nobody asked for
            self.drop()
            return
        self.node.deadline_ms = due(self, self.read_ms)
        if r.n_attempts:
            r.attempts[r.n_attempts - 1].bytes_received += n
        if self.state == U_HEAD:
            if self.held_n:
                size = self.held_n + n
                all_of_it = <char*>realloc(self.held, size)
                if all_of_it == NULL:
                    self.lose(NO_MEMORY)
                    return
                memcpy(all_of_it + self.held_n, p, n)
                self.held = NULL
                self.held_n = 0
                self.take_head(r, all_of_it, size)
                free(all_of_it)
            else:
                self.take_head(r, p, n)
        elif self.state == U_BODY:
            self.take_body(r, p, n)
        if self.r is r and self.state == U_BODY and is_paced(self.s):
            self.pace(r)

    cdef void take_head(self, Request r, char* p, uint32_t n) noexcept:
        cdef Worker w = self.w
        cdef Limits lim
        cdef int size
        cdef bint is_head = r.method == M_HEAD
        lim.max_line = lim.max_head = self.s.head_bytes
        lim.max_fields = 0
        lim.ignore_invalid = True
        lim.underscores_allowed = True
        while True:
            begin_head(&r.answer, w.answer_fields, w.cap_fields)
            size = read_response_head(&r.answer, p, n, &lim, is_head)
            if size < 0:
                r.answer.fields = NULL
                self.lose(size)
                return
            if size == 0:
                r.answer.fields = NULL
                if n >= self.s.head_bytes:
                    self.lose(UPSTREAM_HEAD_TOO_LARGE)
                    return
                self.held = <char*>malloc(n)
                if self.held == NULL:
                    self.lose(NO_MEMORY)
                    return
                memcpy(self.held, p, n)
                self.held_n = n
                return
            r.answer.base = p
            if r.answer.status >= 200 or r.answer.status == 101:
                break
            if not self.take_interim(r):
                self.lose(UPSTREAM_BAD_HEAD)
                return
            p += size
            n -= <uint32_t>size
            if n == 0:
                return
        if r.answer.status == 101 and not (
                r.head.flags & H_UPGRADE and r.answer.flags & H_UPGRADE):
            r.answer.fields = NULL
            self.lose(UPSTREAM_BAD_HEAD)
            return
        self.kind = body_kind(&r.answer, is_head)
        self.left = r.answer.content_length
        if self.kind == BODY_CHUNKED:
            begin_chunked(&self.chunked, <char*>take(&r.arena, TRAILER_BYTES)
                          if self.s.passes_trailers else NULL, TRAILER_BYTES)
        if self.kind == BODY_UNTIL_CLOSE or not r.answer.flags & H_KEEP_ALIVE:
            self.is_last = True
        self.state = U_BODY
        p += size
        n -= <uint32_t>size
        w.on_answer_head(r, self)
        if self.r is not r:                      # refused, retried, or answered otherwise
            return
        if self.state == U_TUNNEL:
            if n:
                self.from_tunnel(p, n)
            return
        if self.kind == BODY_NONE:
            self.end_answer(r, n)
        elif n:
            self.take_body(r, p, n)
        if self.r is r and not r.is_done and r.answer.fields != NULL and r.keep_answer() < 0:
            self.lose(NO_MEMORY)

    cdef void take_body(self, Request r, char* p, uint32_t n) noexcept:
        cdef Worker w = self.w
        cdef uint32_t got
        cdef Str piece
        cdef int found
        cdef Attempt* a = &r.attempts[r.n_attempts - 1]
        if self.kind == BODY_LENGTH:
            got = n if <int64_t>n <= self.left else <uint32_t>self.left
            self.left -= got
            a.length += got
            w.relay(r, self, p, got)
            if self.r is r:
                if self.left == 0:
                    self.end_answer(r, n - got)
                elif self.left >= SPLICE_LEAST and n - got == 0:
                    splice_answer(w, r, self)
        elif self.kind == BODY_UNTIL_CLOSE:
            a.length += n
            w.relay(r, self, p, n)
        else:
            while n and self.r is r:
                found = read_chunked(&self.chunked, p, n, &got, &piece)
                p += got
                n -= got
                if found == CHUNK_PIECE:
                    a.length += piece.n
                    w.relay(r, self, piece.p, piece.n)
                elif found == CHUNK_END:
                    if self.chunked.trailer_n and self.chunked.trailer != NULL:
                        keep_trailers(r, &self.chunked)
                    self.end_answer(r, n)
                    return
                elif found < 0:
                    self.lose(UPSTREAM_BAD_CHUNK)
                    return

    cdef void end_answer(self, Request r, uint32_t extra) noexcept:
        """The answer is whole; extra bytes behind it cost the connection its place."""
        self.part(r, (
            not self.is_last and extra == 0 and not self.is_ended and self.is_ask_whole
            and not self.is_blocked and not self.is_closing))

    # ---------------------------------------------------------------- the end

    cdef void drop(self) noexcept:
        """Close it; nobody waits for it."""
        self.pacer = None
        self.uncount()
        if self.splice is not None:
            self.splice.close()
            self.splice = None
        if self.websocket is not None:
            self.websocket.finish()
            self.websocket = None
        forget_idle(self.w, self)
        self.state = U_OVER
        self.r = None
        self.forget_deadline()
        if self.is_blocked:                      # nobody would wait until it is taken
            self.abort()
        else:
            self.close()

    cdef void on_ended(self) noexcept:
        """FIN from the peer."""
        cdef Request r = self.r
        tick()
        if self.state == U_TUNNEL:
            if self.tunnel is not None:
                self.tunnel.shut_tunnel()
                if self.tunnel.is_tunnel_ended():
                    self.tunnel.end_tunnel()
        elif self.state == U_BODY and self.kind == BODY_UNTIL_CLOSE and r is not None:
            self.end_answer(r, 0)
        elif r is not None:
            self.lose(UPSTREAM_CUT if r.is_head_sent else UPSTREAM_CLOSED)
        else:
            self.drop()
        self.w.settle()

    cdef void on_lost(self) noexcept:
        cdef ClientStream c = self.tunnel
        tick()
        if self.state == U_TUNNEL:
            self.tunnel = None
            self.state = U_OVER
            if c is not None:
                if self.websocket is not None and self.websocket.is_ending:
                    c.part_tunnel()
                else:
                    c.end_tunnel()
        elif self.state == U_BODY and self.kind == BODY_UNTIL_CLOSE and self.r is not None:
            self.lose(UPSTREAM_CUT)
        elif self.r is not None:
            self.lose(UPSTREAM_CUT if self.r.is_head_sent else UPSTREAM_CLOSED)
        elif self.state == U_IDLE:
            self.drop()
        self.w.settle()

    cdef void on_drained(self) noexcept:
        cdef Request r = self.r
        tick()
        if self.state == U_TUNNEL:
            if self.tunnel is not None:
                self.tunnel.want_tunnel(True)
        elif r is not None:
            self.node.deadline_ms = due(self, self.read_ms)
            self.w.on_upstream_drained(r, self)
        self.w.settle()

    cdef void on_deadline(self) noexcept:
        if self.state == U_DIALING:
            self.lose(FUNCTION_TIMEOUT if self.until_ms and clock.now_ms >= self.until_ms
                      else UPSTREAM_CONNECT_TIMEOUT)
        elif self.state == U_IDLE:
            self.drop()
        elif self.state == U_TUNNEL:
            if self.is_shut_held:
                self.is_shut_held = False
                self.shut()
                self.on_tunnel_traffic()
            elif (self.is_blocked and self.has_moved()
                    or self.tunnel is not None and self.tunnel.has_tunnel_moved()):
                self.on_tunnel_traffic()         # slowly, but something is taken
            else:
                if self.tunnel is not None:
                    self.tunnel.give_up_tunnel()
                self.close()
        elif self.r is not None:
            # it waits for the client, whose time limit runs: no fault of the peer
            if self.splice is None and (self.is_paused or self.state == U_HEAD and (
                    not self.is_ask_whole and not self.is_blocked)) or (
                    self.splice is not None and self.splice.is_answer == self.splice.is_full):
                self.until_ms = 0
                set_deadline(self.w.wheel, self, due(self, self.read_ms))
            elif self.until_ms and clock.now_ms >= self.until_ms:
                self.lose(FUNCTION_TIMEOUT)
            elif self.is_blocked and self.has_moved():
                set_deadline(self.w.wheel, self, due(self, self.s.send_ms))
            else:
                self.lose(UPSTREAM_SEND_TIMEOUT if self.is_blocked or (
                    self.splice is not None and self.splice.is_full) else UPSTREAM_READ_TIMEOUT)
        self.w.settle()

    # ---------------------------------------------------------------- tunnel

    cdef void begin_tunnel(self, ClientStream c, Request r) noexcept:
        self.state = U_TUNNEL
        self.tunnel = c
        c.open_tunnel(r, self)

    cdef void from_tunnel(self, const char* p, uint32_t n) noexcept:
        cdef ClientStream c = self.tunnel
        if c is None:
            return
        if self.r is not None:
            self.r.sent_body += n
        if self.websocket is not None:
            self.websocket.carry(FROM_UPSTREAM, p, n)
            return
        self.on_tunnel_traffic()
        if c.write_tunnel(p, n, NULL, 0) == 1:
            self.pause()

    cdef void on_tunnel_traffic(self) noexcept:
        if not self.is_shut_held:
            set_deadline(self.w.wheel, self, due(self, self.read_ms))

    cdef void shut_after_client(self) noexcept:
        """The client says no more. Many a peer takes close_notify for the end of both ways, and
        drops its answer to a Close: over TLS it has a while to end by itself."""
        if self.tls is None:
            self.shut()
        elif not self.is_ended:
            self.is_shut_held = True
            set_deadline(self.w.wheel, self, clock.now_ms + CLOSE_MS)

    cdef void end_tunnel(self) noexcept:
        self.tunnel = None
        if self.r is not None:
            give_peer(self, NULL, PEER_OK)
        self.drop()


cdef void keep_trailers(Request r, Chunked* c) noexcept:
    """proxy_pass_trailers: what came behind the body goes on behind ours."""
    cdef Head h
    cdef Field[64] fields
    cdef uint16_t i
    begin_head(&h, fields, 64)
    h.base = c.trailer
    if read_trailers(&h, c.trailer, c.trailer_n) < 0:
        return
    for i in range(h.n_fields):
        r.add_trailer(name_of(&h, &fields[i]), value_of(&h, &fields[i]))
