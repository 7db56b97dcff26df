# Tunnels begin here; in some the frames of a WebSocket are read on their way (websocket_inspect).
#
# Bytes pass as they came and are kept by nobody. Only a head waits until it is whole, so that no
# frame of which it is wrong, too large or too early is begun at the other side, and so that a
# Ping or a Close of ours always finds its place between two frames.

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void*, size_t, unsigned int)

cdef enum:
    FROM_CLIENT = 0
    FROM_UPSTREAM = 1
    GOING_AWAY = 1001         # RFC 6455 §7.4.1, and the registry behind it
    NO_CLOSE = 1006           # never sent: it ended without a Close
    AGAINST_POLICY = 1008


@final
cdef class WebSocket(Timed):
    cdef Worker w
    cdef PyObject* u              # UpstreamH1, borrowed: it holds us
    cdef WebSocketSettings s
    cdef Frames[2] frames
    cdef Tokens tokens
    cdef uint64_t heard_ms        # when the client was heard last
    cdef uint16_t leave_code      # a Close to be sent once no frame is under way, 0: none
    cdef uint8_t is_pinged
    cdef uint8_t is_ending        # we took leave: what comes is dropped
    cdef uint8_t is_told          # its code was counted

    cdef void carry(self, int way, const char* p, uint32_t n) noexcept:
        """Bytes of one side go to the other, as far as their frames may."""
        cdef Frames* f = &self.frames[way]
        cdef char early[HEAD_MOST]               # what was held back of a head
        cdef uint32_t early_n = f.head_n
        cdef const char* at = p
        cdef const char* whole = p               # behind the last frame that ended
        cdef bint is_between = f.state == IN_HEAD
        cdef bint is_head_passed = False
        cdef uint64_t n_messages = 0
        cdef uint64_t n_bytes = 0
        cdef uint32_t used = 0
        cdef uint32_t good
        cdef int rc
        if self.is_ending or f.state == FRAMES_OVER:
            return
        memcpy(early, f.head, early_n)
        (<UpstreamH1>self.u).on_tunnel_traffic()
        while True:
            rc = read_websocket(f, at, n - <uint32_t>(at - p), &used)
            if rc <= FRAME_MORE:
                break
            at += used
            if rc == FRAME_HEAD:
                if way == FROM_CLIENT and self.s.rate and costs_token(f) and not take_token(
                        self.s, &self.tokens, clock.now_ms):
                    rc = -<int>AGAINST_POLICY
                    break
                is_head_passed = True
                if f.opcode <= WS_BINARY:
                    n_bytes += f.length
                continue
            whole = at
            is_between = True
            if f.opcode <= WS_BINARY:
                n_messages += f.is_final
            elif f.state == FRAMES_OVER:
                self.tell_close(f.close_code)
        if rc < 0 or f.state == FRAMES_OVER:     # what is not sound stays here
            good = <uint32_t>(whole - p)
            is_head_passed = whole != p
        elif early_n and not is_head_passed:     # it is still not whole
            good = 0
        else:
            good = n - f.head_n
        if good:
            self.send(way, early, early_n if is_head_passed else 0, p, good)
        self.count_passed(way, n_messages, n_bytes)
        if rc < 0:
            f.state = IN_HEAD if is_between else IN_PAYLOAD
            self.fail(way, <uint16_t>-rc)
        elif self.frames[FROM_CLIENT].state == self.frames[FROM_UPSTREAM].state == FRAMES_OVER:
            self.forget_deadline()               # both said it: the connections have to end
            set_deadline(self.w.wheel, <UpstreamH1>self.u, clock.now_ms + CLOSE_MS)
        elif self.leave_code:
            self.leave(self.leave_code)

    cdef void send(self, int way, const char* early, uint32_t early_n, const char* p,
                   uint32_t n) noexcept:
        cdef UpstreamH1 u = <UpstreamH1>self.u
        cdef ClientStream c = u.tunnel
        cdef const char* q = p if early_n else NULL
        cdef uint32_t m = n if early_n else 0
        if early_n:
            p = early
            n = early_n
        if way == FROM_UPSTREAM:
            if c.write_tunnel(p, n, q, m) == 1:
                u.pause()
        elif u.write(p, n, q, m) == 1:
            c.want_tunnel(False)

    # ---------------------------------------------------------------- the end

    cdef void fail(self, int way, uint16_t code) noexcept:
        """One side did what it must not: it hears the code, the other that it is gone."""
        self.tell_close(code)
        if way == FROM_CLIENT:
            self.end(code, GOING_AWAY)
        else:
            self.end(GOING_AWAY, code)

    cdef void leave(self, uint16_t code) noexcept:
        """The worker leaves: say so to both sides as soon as no frame is under way."""
        self.leave_code = code
        if self.is_ending:
            return
        if self.frames[FROM_CLIENT].state != IN_PAYLOAD and (
                self.frames[FROM_UPSTREAM].state != IN_PAYLOAD):
            self.tell_close(code)
            self.end(code, GOING_AWAY)
        elif self.node.deadline_ms == 0 or self.node.deadline_ms > clock.now_ms + CLOSE_MS:
            set_deadline(self.w.wheel, self, clock.now_ms + CLOSE_MS)

    cdef void end(self, uint16_t to_client, uint16_t to_upstream) noexcept:
        """A Close to both sides, where one can stand; then FIN, and their ends are waited for."""
        cdef UpstreamH1 u = <UpstreamH1>self.u
        cdef ClientStream c = u.tunnel
        cdef char frame[CLOSE_MOST]
        cdef uint32_t key = <uint32_t>clock.now_ms
        self.is_ending = True
        self.forget_deadline()
        if c is None:
            return
        if self.frames[FROM_UPSTREAM].state == IN_HEAD:
            c.write_tunnel(frame, put_close(frame, to_client, False, 0), NULL, 0)
        if self.frames[FROM_CLIENT].state == IN_HEAD:
            getrandom(&key, sizeof(key), 0)      # RFC 6455 §5.3: not to be foretold
            u.write(frame, put_close(frame, to_upstream, True, key), NULL, 0)
        c.shut_tunnel()
        u.shut()
        c.want_tunnel(True)
        u.unpause()
        set_deadline(self.w.wheel, u, clock.now_ms + PARTING_MS)
        if c.is_tunnel_ended() and u.is_ended:
            c.end_tunnel()

    # ---------------------------------------------------------------- silence

    cdef void on_client(self) noexcept:
        """The client was heard."""
        self.heard_ms = clock.now_ms
        self.is_pinged = False

    cdef void on_deadline(self) noexcept:
        cdef UpstreamH1 u = <UpstreamH1>self.u   # it may let go of us
        cdef ClientStream c = u.tunnel
        cdef char frame[PING_MOST]
        cdef uint64_t wait_ms = self.s.ping_ms
        if self.is_ending or c is None:
            return
        if self.leave_code:
            self.tell_close(self.leave_code)
            self.end(self.leave_code, GOING_AWAY)
        elif clock.now_ms < self.heard_ms + wait_ms:
            set_deadline(self.w.wheel, self, self.heard_ms + wait_ms)
        elif self.is_pinged:
            self.tell_close(NO_CLOSE)
            self.end(GOING_AWAY, GOING_AWAY)
        else:
            # one that does not read what waits for it is timed by that
            if self.frames[FROM_UPSTREAM].state == IN_HEAD and not c.is_blocked():
                c.write_tunnel(frame, put_ping(frame), NULL, 0)
                self.is_pinged = True
            set_deadline(self.w.wheel, self, clock.now_ms + wait_ms)
        self.w.settle()

    # ---------------------------------------------------------------- numbers

    cdef void count_passed(self, int way, uint64_t n_messages, uint64_t n_bytes) noexcept:
        cdef Counters counters = self.w.counters
        if counters is not None and self.s.open_counter:
            count(counters, self.s.message_counters[way], n_messages)
            count(counters, self.s.byte_counters[way], n_bytes)

    cdef void tell_close(self, uint16_t code) noexcept:
        """How it ends, once: the first Close that passed or was sent."""
        cdef Counters counters = self.w.counters
        if not self.is_told and counters is not None and self.s.open_counter:
            count(counters, close_counter(counters, self.s, code), 1)
        self.is_told = True

    cdef void finish(self) noexcept:
        """The tunnel is over."""
        self.is_ending = True
        self.forget_deadline()
        self.tell_close(NO_CLOSE)
        if self.w.counters is not None and self.s.open_counter:
            count(self.w.counters, self.s.open_counter, <uint64_t>-1)


cdef inline bint costs_token(Frames* f) noexcept:
    """Each message and each control frame; a fragment only if it carries nothing."""
    return f.opcode != WS_CONTINUATION or f.length == 0


cdef void upgrade(Worker w, Request r, UpstreamH1 u) noexcept:
    """101: from here on the two connections are a tunnel."""
    cdef ClientStream c = <ClientStream>r.stream
    if not c.may_tunnel(r):
        r.answer.fields = NULL
        report_upstream(r, UPSTREAM_BAD_HEAD)
        w.fail(r, UPSTREAM_BAD_HEAD)
        return
    r.is_upgraded = True
    r.keep_alive = False
    r.is_done = True                             # what follows is no answer any more
    if dress(r) < 0 or r.stream.send_head(r) < 0:
        w.fail(r, NO_MEMORY)
        return
    r.stream.flush(r)
    if u.s.websocket is not None and is_websocket(&r.answer):
        u.websocket = new_websocket(w, u, r)
    u.on_tunnel_traffic()
    u.begin_tunnel(c, r)
    if w.is_quitting:
        leave_tunnel(u, GOING_AWAY)
    if u.r is r:
        r.keep_answer()


cdef void leave_tunnel(UpstreamH1 u, uint16_t code) noexcept:
    """The worker leaves: an opaque tunnel stays until its sides end it."""
    if u is not None and u.websocket is not None:
        u.websocket.leave(code)


cdef WebSocket new_websocket(Worker w, UpstreamH1 u, Request r):
    """Read the frames of a tunnel that begins now; r has the upstream's head still."""
    cdef WebSocket it = WebSocket.__new__(WebSocket)
    cdef bint deflates = is_deflate(&r.answer)
    it.w = w
    it.u = <PyObject*>u
    it.s = u.s.websocket
    begin_frames(&it.frames[FROM_CLIENT], True, deflates, it.s.most_bytes)
    begin_frames(&it.frames[FROM_UPSTREAM], False, deflates, 0)
    it.tokens.at_ms = it.heard_ms = clock.now_ms
    if it.s.ping_ms:
        set_deadline(w.wheel, it, clock.now_ms + it.s.ping_ms)
    if w.counters is not None:
        if it.s.open_counter == 0:
            name_counters(w.counters, it.s, r)
        count(w.counters, it.s.open_counter, 1)
    return it


cdef void name_counters(Counters counters, WebSocketSettings s, Request r) noexcept:
    try:
        labels = {"server": r.location.server.name.decode("latin-1"),
                  "location": r.location.name.decode("latin-1")}
        for way, side in enumerate(("client", "upstream")):
            sent = {**labels, "from": side}
            s.message_counters[way] = counters.counter("headrace_websocket_messages_total", sent)
            s.byte_counters[way] = counters.counter("headrace_websocket_bytes_total", sent)
        s.close_labels = labels
        s.open_counter = counters.counter("headrace_websockets", labels, True)
    except Exception as error:
        tell_error(R_ALERT, None, "counting WebSockets", error)


cdef uint32_t close_counter(Counters counters, WebSocketSettings s, uint16_t code) noexcept:
    """The counter of a code, named when it is met first; codes of applications by their class."""
    cdef int number = close_number(code)
    if s.close_counters[number] == 0:
        word = "3xxx" if number == 16 else "4xxx" if number == 17 else str(code)
        try:
            s.close_counters[number] = counters.counter(
                "headrace_websocket_closes_total", {**s.close_labels, "code": word})
        except Exception as error:
            tell_error(R_ALERT, None, "counting the ends of WebSockets", error)
    return s.close_counters[number]
