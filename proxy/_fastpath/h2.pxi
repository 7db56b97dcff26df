# The client's side over HTTP/2: many requests on one connection, each with a Stream of its own.
#
# ClientH1 is the Link; what comes on it is read here, frame by frame, and frames wait in `c.out`
# until the turn of the loop is over: those of one turn leave in one write. What windows or the
# socket do not take yet of an answer waits with its stream, in a queue by urgency; what comes of
# a body that nobody takes waits there too, bounded by the stream's window.

cdef enum:
    OUT_HIGH = 64 * 1024          # frames that wait: more are written before the turn is over
    COUNTED_MS = 10000            # resets and control frames are counted in so many ms
    LEAST_H2_ROOM = 1024          # memory that an idle connection keeps for frames


cdef void write_frames(void* worker) noexcept:
    """Everything that waits for the end of the turn."""
    cdef Worker w = <Worker><PyObject*>worker
    cdef ClientH2 h
    while w.unwritten != NULL or w.unwritten_asks != NULL:
        if w.unwritten_asks != NULL:
            write_asks(w)
            continue
        h = <ClientH2>w.unwritten
        w.unwritten = h.next_unwritten
        h.next_unwritten = NULL
        h.is_unwritten = False
        h.write_out()
        Py_DECREF(h)
    if w.ask_n or w.out_n or len(w.later) or len(w.later_calls):
        w.settle()
    if len(w.spent_calls):                       # nobody holds one any more
        w.free_calls += w.spent_calls
        w.spent_calls.clear()


cdef inline void set_head_limits(HeadRoom* room, Server s) noexcept:
    room.lim.max_line = s.line_bytes
    room.lim.max_head = s.head_bytes
    room.lim.max_fields = <uint16_t>s.max_fields
    room.lim.ignore_invalid = s.ignore_invalid
    room.lim.underscores_allowed = s.underscores


cdef bint open_head_room(Worker w, Server s, size_t block_n) noexcept:
    """Where a head of block_n bytes can be read to, by the rules of s. False: no memory."""
    cdef HeadRoom* room = &w.head_room
    cdef size_t need = room_for(s.head_bytes, block_n)
    cdef char* larger
    if room.n < need:
        larger = <char*>realloc(room.bytes, need)
        if larger == NULL:
            return False
        room.bytes = larger
        room.n = need
        room.fields = w.fields
        room.cap_fields = w.cap_fields
        room.head = &w.head
    set_head_limits(room, s)
    return True


@final
cdef class StreamTimer(Timed):
    """The time limit of one stream: that of the side that is waited for."""
    cdef PyObject* stream         # borrowed: the stream holds us

    cdef void on_deadline(self) noexcept:
        cdef H2Stream s = <H2Stream>self.stream
        s.on_deadline()


@final
cdef class H2Stream(ClientStream):
    """The Stream of one request of a ClientH2; lives and is pooled together with its Request."""
    cdef ClientH2 h2
    cdef Request r                # while it is open
    cdef Client client            # its own: realip may put another address there
    cdef StreamTimer timer
    cdef H2State s
    cdef char* held               # of the body: came, and nobody took it
    cdef uint32_t held_n
    cdef uint32_t held_cap
    cdef uint32_t owed            # taken while paused: the window is given when it goes on
    cdef char* rest               # of the answer: did not go out yet
    cdef size_t rest_at
    cdef size_t rest_n
    cdef size_t rest_cap
    cdef size_t moved             # bytes that went out since the timer was set
    cdef PyObject* next_waiting   # of those whose rest waits, in the order that they came
    cdef PyObject* prev_waiting
    cdef uint8_t is_paused
    cdef uint8_t is_end_held      # the body's end came behind what is held
    cdef uint8_t is_end_due       # the answer's end goes behind the rest
    cdef uint8_t is_waiting
    cdef uint8_t is_aborted
    cdef uint8_t is_interim_sent

    def __dealloc__(self):
        free(self.held)
        free(self.rest)

    cdef void begin(self, ClientH2 h, Request r) noexcept:
        cdef Client c = self.client
        cdef Client from_ = h.conn.client
        self.is_multiplexed = True
        self.h2 = h
        self.conn = h.conn
        self.r = r
        self.is_paused = self.is_end_held = self.is_end_due = self.is_waiting = False
        self.is_aborted = self.is_interim_sent = False
        self.held_n = self.owed = 0
        self.rest_at = self.rest_n = 0
        c.fd = from_.fd
        c.address = c.peer = from_.peer
        c.local = from_.local
        c.has_local = from_.has_local
        c.is_tls = from_.is_tls
        c.serial = from_.serial
        c.requests = from_.requests
        c.accepted_ms = from_.accepted_ms
        c.proxy_address = from_.proxy_address
        c.proxy_server_address = from_.proxy_server_address
        c.proxy_port = from_.proxy_port
        c.proxy_server_port = from_.proxy_server_port
        c.proxy_header = from_.proxy_header
        c.tls = from_.tls

    cdef void end(self) noexcept:
        """Its request was freed: let go of everything."""
        cdef ClientH2 h = self.h2
        cdef Request r = self.r
        self.timer.forget_deadline()
        free(self.held)
        free(self.rest)
        self.held = self.rest = NULL
        self.held_n = self.held_cap = 0
        self.rest_n = self.rest_cap = 0
        self.client.tls = self.client.proxy_header = None
        self.h2 = None
        self.conn = None
        self.r = None
        if h is not None:
            h.on_closed_stream(self)
        if r is not None:
            Py_DECREF(r)

    cdef void give_back(self, Worker w, Request r) noexcept:
        self.end()
        if len(w.free_requests_h2) < MAX_POOLED:
            w.free_requests_h2.append(r)

    cdef uint32_t held_bytes(self) noexcept:
        return self.held_n

    # ---------------------------------------------------------------- the answer goes out

    cdef int send_head(self, Request r) noexcept:
        cdef ClientH2 h = self.h2
        cdef char* at
        cdef int n
        if h is None or h.is_over:
            return CLIENT_GONE
        if r.location is not None and r.location.headers is not None:
            expect_trailers(r)
        frame_answer(r, r.head.version)
        if r.out_kind == BODY_UNTIL_CLOSE:       # chunked_transfer_encoding is of HTTP/1.1
            r.out_kind = BODY_CHUNKED
        at = begin_headers(&h.c, room_for_answer(r))
        if at == NULL:
            return NO_MEMORY
        n = write_answer_block(r, at)
        end_headers(&h.c, &self.s, <size_t>n, False)
        r.sent_head = n + FRAME_HEAD_BYTES
        r.is_head_sent = True
        h.will_write()
        return 0

    cdef int send_interim(self, Request r, int status) noexcept:
        cdef ClientH2 h = self.h2
        cdef char* at
        if h is None or h.is_over or status != 100 or self.is_interim_sent:
            return 0
        self.is_interim_sent = True
        at = begin_headers(&h.c, 16)
        if at == NULL:
            return NO_MEMORY
        end_headers(&h.c, &self.s, <size_t>(put_status(at, 100) - at), False)
        h.will_write()
        return 0

    cdef int send_body(self, Request r, const char* p, size_t n) noexcept:
        cdef Py_ssize_t sent = 0
        if n == 0 or r.is_header_only:
            return 0
        if self.h2 is None or self.h2.is_over:
            return CLIENT_GONE
        r.sent_body += <int64_t>n
        if self.rest_n == 0:
            sent = self.send_now(p, n)
            if sent < 0:
                return NO_MEMORY
        if <size_t>sent == n:
            return 0
        if not self.keep_rest(p + sent, n - <size_t>sent):
            return NO_MEMORY
        self.h2.queue(self)
        self.time_sending(r)
        return BLOCKED

    cdef Py_ssize_t send_now(self, const char* p, size_t n) noexcept:
        """As much as windows and the socket take now; -1: no memory."""
        cdef ClientH2 h = self.h2
        cdef size_t done = 0
        cdef size_t part
        cdef Py_ssize_t sent
        while done < n and not h.conn.is_blocked and not h.conn.is_closing:
            part = n - done if n - done < OUT_HIGH else OUT_HIGH
            sent = put_data(&h.c, &self.s, p + done, part, self.r.location.h2_chunk)
            if sent < 0:
                return -1
            done += <size_t>sent
            if h.c.out_n >= OUT_HIGH:
                h.write_now()
            if <size_t>sent < part:
                break
        if done:
            h.will_write()
        return <Py_ssize_t>done

    cdef bint keep_rest(self, const char* p, size_t n) noexcept:
        cdef char* larger
        if self.rest_at and self.rest_at + self.rest_n + n > self.rest_cap:
            memmove(self.rest, self.rest + self.rest_at, self.rest_n)
            self.rest_at = 0
        if self.rest_at + self.rest_n + n > self.rest_cap:
            larger = <char*>realloc(self.rest, self.rest_n + n)
            if larger == NULL:
                return False
            self.rest = larger
            self.rest_cap = self.rest_n + n
        memcpy(self.rest + self.rest_at + self.rest_n, p, n)
        self.rest_n += n
        return True

    cdef bint send_rest(self) noexcept:
        """Windows opened, or the socket did. True: nothing is left, and the end was said too."""
        cdef Py_ssize_t sent
        if self.rest_n:
            sent = self.send_now(self.rest + self.rest_at, self.rest_n)
            if sent > 0:
                self.rest_at += <size_t>sent
                self.rest_n -= <size_t>sent
                self.moved += <size_t>sent
        if self.rest_n:
            return False
        free(self.rest)
        self.rest = NULL
        self.rest_at = self.rest_cap = 0
        if self.is_end_due:
            self.is_end_due = False
            self.say_end(self.r)
        return True

    cdef int send_end(self, Request r) noexcept:
        if self.h2 is None or self.h2.is_over:
            return CLIENT_GONE
        if self.rest_n:
            self.is_end_due = True
            return 0
        return self.say_end(r)

    cdef int say_end(self, Request r) noexcept:
        cdef ClientH2 h = self.h2
        cdef char* at
        if r.n_trailers and not r.is_header_only:
            at = begin_headers(&h.c, room_for_trailers(r))
            if at == NULL:
                return NO_MEMORY
            end_headers(&h.c, &self.s, <size_t>write_trailer_block(r, at), True)
        elif end_stream(&h.c, &self.s) < 0:
            return NO_MEMORY
        h.will_write()
        return 0

    cdef bint is_blocked(self) noexcept:
        return self.rest_n > 0 or self.is_end_due

    cdef size_t unsent(self) noexcept:
        return self.rest_n

    cdef void abort(self, Request r) noexcept:
        """The answer cannot be completed; its caller is still busy with the request."""
        if self.h2 is None or self.is_aborted:
            return
        reset_stream(&self.h2.c, &self.s, H2_INTERNAL_ERROR)
        self.h2.will_write()
        self.is_aborted = True
        self.do_later()

    # ---------------------------------------------------------------- the body comes

    cdef void start(self, Request r, int fault) noexcept:
        cdef Worker w = self.h2.w
        r.method = r.head.method
        r.keep_alive = True
        if self.s.is_ended or r.head.content_length == 0:
            r.body_kind = BODY_NONE
        else:
            r.body_kind = BODY_LENGTH if r.head.content_length > 0 else BODY_CHUNKED
        r.is_body_done = r.body_kind == BODY_NONE
        w.begin_writing(r)
        if fault < 0:
            r.is_body_done = True
            if r.keep_head() < 0:
                r.head.n_fields = 0
            w.refuse(r, self.conn.listener.default_server, fault)
            return
        w.drive(r, GO)
        if self.r is r and r.location is not None and not r.is_head_kept and r.keep_head() < 0:
            w.fail(r, NO_MEMORY)

    cdef void take_body(self, const char* p, uint32_t n, bint is_end) noexcept:
        """A piece came. Bytes that nobody wants are dropped, and give no window back."""
        cdef Request r = self.r
        if r.is_body_done or self.is_aborted:
            return
        if r.is_body_read and not self.is_paused and self.held_n == 0:
            self.give(p, n, is_end)
            return
        self.is_end_held = is_end
        if n and not self.hold(p, n):
            self.h2.w.fail(r, NO_MEMORY)

    cdef bint hold(self, const char* p, uint32_t n) noexcept:
        cdef char* larger
        if self.held_n + n > self.held_cap:
            larger = <char*>realloc(self.held, self.held_n + n)
            if larger == NULL:
                return False
            self.held = larger
            self.held_cap = self.held_n + n
        memcpy(self.held + self.held_n, p, n)
        self.held_n += n
        return True

    cdef void give(self, const char* p, uint32_t n, bint is_end) noexcept:
        cdef Request r = self.r
        if n:
            self.h2.w.on_body(r, p, n)
            if self.r is not r:
                return
            if self.is_paused:
                self.owed += n
            else:
                give_window(&self.h2.c, &self.s, n)
                self.h2.will_write()
        if is_end and not r.is_body_done:
            r.is_body_done = True
            if not self.rest_n:
                self.stop_time()
            self.h2.w.on_body_end(r)

    cdef void do_later(self) noexcept:
        """When all others are done: what its doing ends is no surprise to anybody then."""
        try:
            self.h2.w.later.append(self)
        except MemoryError:
            self.conn.abort()

    cdef void go_on(self) noexcept:
        """Its body was asked for, or its answer was cut."""
        cdef Request r = self.r
        cdef char* held = self.held
        cdef uint32_t n = self.held_n
        if r is None:
            return
        if self.is_aborted:
            self.end_aborted(r)
            return
        if self.is_paused or not r.is_body_read or r.is_body_done or (
                n == 0 and not self.is_end_held):
            return
        self.held = NULL
        self.held_n = self.held_cap = 0
        self.give(held, n, self.is_end_held)
        free(held)

    cdef void end_aborted(self, Request r) noexcept:
        cdef Worker w = self.h2.w
        cdef UpstreamCall u
        if r.call is not None:
            u = <UpstreamCall>r.call
            r.call = None
            u.leave()
        if r.asked != NULL:
            leave(w.waiting, r)
        if r.stage != S_TELL and r.location is not None:
            w.tell(r)
        free_request(w, r)

    cdef void ask_body(self, Request r) noexcept:
        if r.is_body_read:
            return
        r.is_body_read = True
        if r.head.flags & H_EXPECT_CONTINUE and self.held_n == 0 and not self.is_end_held:
            self.send_interim(r, 100)
        if not 0 <= r.head.content_length <= <int64_t>self.s.window:
            # a body that is held is taken at once, as much as comes
            widen_window(&self.h2.c, &self.s, READ_BYTES if holds_body(r) else FIRST_WINDOW)
            self.h2.will_write()
        set_deadline(self.h2.w.wheel, self.timer, clock.now_ms + r.location.body_timeout_ms)
        self.want_body(r, True)

    cdef void want_body(self, Request r, bint is_wanted) noexcept:
        self.is_paused = not is_wanted
        if not is_wanted or self.h2 is None:
            return
        if self.owed:
            give_window(&self.h2.c, &self.s, self.owed)
            self.owed = 0
            self.h2.will_write()
        if self.held_n or self.is_end_held:
            self.do_later()

    cdef void go_on_reading(self, Request r) noexcept:
        self.want_body(r, True)
        if not self.rest_n and not r.is_body_done:
            set_deadline(self.h2.w.wheel, self.timer, clock.now_ms + r.location.body_timeout_ms)

    # ---------------------------------------------------------------- time, and the end

    cdef void time_body(self, Request r) noexcept:
        if self.timer.node.deadline_ms and not self.rest_n:
            self.timer.node.deadline_ms = clock.now_ms + r.location.body_timeout_ms

    cdef void stop_time(self) noexcept:
        self.timer.node.deadline_ms = 0

    cdef void time_sending(self, Request r) noexcept:
        self.moved = 0
        set_deadline(self.h2.w.wheel, self.timer, clock.now_ms + (
            r.location.send_timeout_ms if r.location is not None else CLOSE_MS))

    cdef void on_deadline(self) noexcept:
        cdef Request r = self.r
        cdef ClientH2 h = self.h2
        if r is None:
            return
        if self.rest_n and self.moved:           # slowly, but it takes something
            self.time_sending(r)
        elif self.rest_n:
            r.fault = SEND_TIMEOUT
            reset_stream(&h.c, &self.s, H2_CANCEL)
            h.will_write()
            h.w.on_client_gone(r)
        elif not r.is_body_done and not r.is_head_sent:
            h.w.fail(r, BODY_TIMEOUT)
        elif not r.is_body_done:
            reset_stream(&h.c, &self.s, H2_CANCEL)
            h.will_write()
            h.w.on_client_gone(r)
        h.w.settle()

    cdef void on_answered(self, Request r) noexcept:
        """Told. What is left of a body is not wanted (RFC 9113 §8.1)."""
        cdef ClientH2 h = self.h2
        if is_open(&h.c, &self.s):
            reset_stream(&h.c, &self.s, H2_NO_ERROR if self.s.is_answered else H2_CANCEL)
            h.will_write()
        free_request(h.w, r)

    cdef void forget(self, Request r) noexcept:
        if self.h2 is not None and is_open(&self.h2.c, &self.s):
            reset_stream(&self.h2.c, &self.s, H2_CANCEL)
            self.h2.will_write()


@final
cdef class ClientH2:
    """HTTP/2 on a client's connection."""
    cdef ClientH1 conn
    cdef Worker w
    cdef Http2 c
    cdef PyObject* next_unwritten
    cdef bint is_unwritten
    cdef bint is_over             # broken, or gone: nothing goes out any more
    cdef bint is_parting          # nothing more is begun: close when the last stream is over
    cdef bint is_awaited          # the rest of a frame, or of a head
    cdef bint is_warned           # GOAWAY was sent that still takes what is on its way
    cdef uint64_t counted_ms      # when resets and control frames were last set back
    cdef uint32_t n_live          # requests, those included whose stream is over already
    cdef PyObject* first_waiting
    cdef PyObject* last_waiting

    def __dealloc__(self):
        free_h2(&self.c)

    cdef void begin(self, ClientH1 conn) noexcept:
        cdef Listener at = conn.listener
        cdef Server s = at.default_server
        self.conn = conn
        self.w = conn.w
        self.counted_ms = conn.idle_since_ms = clock.now_ms
        self.c.max_streams = at.h2_streams
        self.c.window = at.h2_preread
        self.c.max_block = s.head_bytes if s.head_bytes > FRAME_BYTES else FRAME_BYTES
        self.c.max_parts = at.h2_parts
        self.c.max_resets = at.h2_resets
        self.c.max_control = at.h2_control
        if not open_head_room(conn.w, s, self.c.max_block):
            conn.abort()
            return
        begin_h2(&self.c)
        self.will_write()

    # ---------------------------------------------------------------- in

    cdef void take(self, char* p, uint32_t n) noexcept:
        cdef ClientH1 conn = self.conn
        cdef HeadRoom* room = &self.w.head_room
        cdef char* all_of_it = NULL
        cdef uint32_t used = 0
        cdef H2Event event = H2_DONE
        if self.is_over:
            return
        if conn.held_n:
            if not conn.hold(p, n):
                conn.cut()
                return
            p = all_of_it = conn.held
            n = conn.held_n
            conn.held = NULL
            conn.held_n = conn.held_cap = 0
        if clock.now_ms - self.counted_ms >= COUNTED_MS:
            self.counted_ms = clock.now_ms
            self.c.n_resets = self.c.n_control = 0
        set_head_limits(room, conn.listener.default_server)
        while not self.is_over:
            event = read_frames(&self.c, p, n, &used, room)
            p += used
            n -= used
            if event == H2_DONE or event == H2_MORE:
                break
            self.act(event)
        if event == H2_MORE and n and not self.is_over and not conn.hold(p, n):
            conn.cut()
        free(all_of_it)
        if self.is_over:
            return
        if conn.held_n or self.c.block_id:
            if not self.is_awaited:              # its time limit begins once
                self.is_awaited = True
                set_deadline(self.w.wheel, conn, clock.now_ms + (
                    conn.listener.default_server.head_timeout_ms))
        elif self.is_awaited:
            self.is_awaited = False
            self.time_idle()
        if self.c.out_n:
            self.will_write()

    cdef inline void act(self, H2Event event) noexcept:
        cdef H2Stream st
        if event == H2_HEAD:
            self.begin_request()
        elif event == H2_BODY:
            st = <H2Stream>self.c.s.owner
            st.take_body(self.c.piece.p, self.c.piece.n, self.c.is_end)
        elif event == H2_ROOM:
            if self.first_waiting != NULL:
                self.send_waiting()
        elif event == H2_RESET:
            st = <H2Stream>self.c.s.owner
            if st.r is not None and not st.is_aborted:
                self.w.on_client_gone(st.r)
        elif event == H2_PARTING:
            self.is_parting = True
            if self.n_live == 0:
                self.part()
        else:
            self.break_down()

    cdef void begin_request(self) noexcept:
        cdef Worker w = self.w
        cdef ClientH1 conn = self.conn
        cdef Request r = new_request_h2(w)
        cdef H2Stream st = <H2Stream>r.stream
        cdef int fault = self.c.fault
        conn.client.requests += 1
        st.begin(self, r)
        Py_INCREF(r)
        self.n_live += 1
        if self.n_live == 1:
            w.stats.waiting -= 1
            if not conn.is_blocked and not self.is_awaited:
                conn.node.deadline_ms = 0
        open_stream(&self.c, &st.s, <void*>st, w.head.content_length if fault == 0 else -1)
        st.s.urgency = w.head_room.urgency
        r.head = w.head
        r.received_head = self.c.block_bytes
        r.client = st.client
        r.id = conn.client.serial
        w.stats.requests += 1
        w.stats.reading += 1
        if not self.is_parting and self.is_worn():
            self.is_parting = True
            go_away(&self.c, self.c.last_id, H2_NO_ERROR)
        st.start(r, fault)

    cdef inline bint is_worn(self) noexcept:
        """keepalive_requests, keepalive_time: is this request the connection's last?"""
        cdef Location here = <Location>self.conn.listener.default_server.settings
        return self.conn.client.requests >= here.keepalive_requests or (
            clock.now_ms - self.conn.client.accepted_ms > here.keepalive_time_ms)

    # ---------------------------------------------------------------- out

    cdef inline void will_write(self) noexcept:
        """Frames wait in `out`: they leave when this turn of the loop is over."""
        if not self.is_unwritten:
            self.is_unwritten = True
            self.next_unwritten = self.w.unwritten
            self.w.unwritten = <PyObject*>self
            Py_INCREF(self)

    cdef int write_now(self) noexcept:
        """0, BLOCKED or CLIENT_GONE."""
        cdef ClientH1 conn = self.conn
        cdef size_t n = self.c.out_n
        cdef bint was_blocked = conn is not None and conn.is_blocked
        cdef int rc
        if conn is None or conn.is_closing:
            forget_out(&self.c)
            return CLIENT_GONE
        if n == 0:
            return conn.is_blocked
        rc = conn.write(self.c.out, n, NULL, 0)
        forget_out(&self.c)
        if rc == 1 and not was_blocked:          # not anew for each frame that waits behind it
            set_deadline(self.w.wheel, conn, clock.now_ms + (
                <Location>conn.listener.default_server.settings).send_timeout_ms)
        elif rc < 0:
            self.is_over = True
            conn.abort()
        return rc

    cdef void write_out(self) noexcept:
        """The turn is over."""
        cdef int rc = self.write_now()
        while rc == 0 and self.first_waiting != NULL and self.send_waiting():
            rc = self.write_now()
        if self.n_live == 0:
            if self.c.out_cap > LEAST_H2_ROOM:
                free(self.c.out)
                self.c.out = NULL
                self.c.out_cap = 0
            if self.is_parting and self.conn is not None and self.conn.state == C_H2:
                self.conn.part()

    cdef void queue(self, H2Stream st) noexcept:
        if st.is_waiting:
            return
        st.is_waiting = True
        st.next_waiting = NULL
        st.prev_waiting = self.last_waiting
        if self.last_waiting != NULL:
            (<H2Stream>self.last_waiting).next_waiting = <PyObject*>st
        else:
            self.first_waiting = <PyObject*>st
        self.last_waiting = <PyObject*>st

    cdef void unqueue(self, H2Stream st) noexcept:
        if not st.is_waiting:
            return
        st.is_waiting = False
        if st.next_waiting != NULL:
            (<H2Stream>st.next_waiting).prev_waiting = st.prev_waiting
        else:
            self.last_waiting = st.prev_waiting
        if st.prev_waiting != NULL:
            (<H2Stream>st.prev_waiting).next_waiting = st.next_waiting
        else:
            self.first_waiting = st.next_waiting

    cdef bint send_waiting(self) noexcept:
        """Windows or the socket have room: the most urgent go first, each once. Went anything?"""
        cdef PyObject* at
        cdef PyObject* next
        cdef H2Stream st
        cdef uint8_t urgency
        cdef bint has_moved = False
        for urgency in range(8):
            at = self.first_waiting
            while at != NULL and self.c.send_window > 0 and not self.conn.is_blocked and (
                    not self.is_over):
                st = <H2Stream>at
                next = st.next_waiting
                if st.s.urgency == urgency and st.s.send_window > 0:
                    if next == NULL:             # it may be queued again, behind itself
                        next = at
                        at = NULL
                    if self.send_some(st):
                        has_moved = True
                    if at == NULL:
                        break
                at = next
        return has_moved

    cdef bint send_some(self, H2Stream st) noexcept:
        cdef Request r = st.r
        cdef size_t before = st.rest_n
        if st.send_rest():
            self.unqueue(st)
            st.stop_time()
            self.w.on_client_drained(r)
            return True
        return st.rest_n < before

    # ---------------------------------------------------------------- the end

    cdef void on_closed_stream(self, H2Stream st) noexcept:
        """A request is over."""
        self.unqueue(st)
        if is_open(&self.c, &st.s):              # it left without a word
            reset_stream(&self.c, &st.s, H2_CANCEL)
            self.will_write()
        self.n_live -= 1
        if self.n_live:
            return
        self.w.stats.waiting += 1
        if self.is_over or self.conn is None or self.conn.state != C_H2:
            return
        self.conn.idle_since_ms = clock.now_ms
        if self.is_parting:
            self.will_write()
        elif not self.is_awaited:
            self.time_idle()

    cdef void time_idle(self) noexcept:
        """Nobody waits for bytes of the client but those of its next request: keepalive_timeout,
        since the last one was answered."""
        cdef ClientH1 conn = self.conn
        if conn.is_blocked:
            return
        if self.n_live:
            conn.node.deadline_ms = 0
            return
        set_deadline(self.w.wheel, conn, conn.idle_since_ms + (
            PARTING_MS if self.w.is_quitting
            else (<Location>conn.listener.default_server.settings).keepalive_timeout_ms))

    cdef void drop_streams(self) noexcept:
        """Nobody is there to be answered."""
        cdef H2State* s
        cdef H2Stream st
        cdef int i
        for i in range(BUCKETS):
            while True:
                s = self.c.buckets[i]
                if s == NULL:
                    break
                st = <H2Stream>s.owner
                reset_stream(&self.c, s, H2_CANCEL)
                if st.r is not None:
                    self.w.on_client_gone(st.r)

    cdef void break_down(self) noexcept:
        """The client broke the rules: GOAWAY says which, all its requests are over."""
        self.write_now()
        self.is_over = True
        self.drop_streams()
        forget_out(&self.c)
        if self.conn is not None and not self.conn.is_closing:
            self.conn.part()

    cdef void warn(self) noexcept:
        """A leaving worker: nothing new, but what is on its way is still taken (RFC 9113 §6.8)."""
        if self.is_over or self.is_parting or self.is_warned:
            return
        if self.n_live == 0:                     # what crosses it is refused, and asked again
            self.part()
            return
        self.is_warned = True
        go_away(&self.c, MAX_WINDOW, H2_NO_ERROR)
        self.will_write()
        set_deadline(self.w.wheel, self.conn, clock.now_ms + PARTING_MS)

    cdef void part(self) noexcept:
        """Nothing is begun from now on; the connection ends with its last stream."""
        if self.is_over:
            return
        self.is_parting = True
        go_away(&self.c, self.c.last_id, H2_NO_ERROR)
        self.will_write()

    cdef void on_drained(self) noexcept:
        if self.is_over:
            return
        self.is_awaited = False                  # what is awaited is timed from here on
        self.time_idle()
        if self.first_waiting != NULL:
            self.send_waiting()
        self.will_write()

    cdef void on_deadline(self) noexcept:
        cdef ClientH1 conn = self.conn
        if conn.is_blocked:
            if conn.has_moved():
                set_deadline(self.w.wheel, conn, clock.now_ms + (
                    <Location>conn.listener.default_server.settings).send_timeout_ms)
            else:
                conn.abort()
        elif self.is_warned and not self.is_parting or self.n_live == 0:
            self.part()
        elif conn.held_n or self.c.block_id:     # a frame that does not come whole
            conn.cut()

    cdef void on_lost(self) noexcept:
        self.is_over = True
        self.drop_streams()
        free_h2(&self.c)
        self.first_waiting = self.last_waiting = NULL
        self.conn.h2 = None
        self.conn = None
