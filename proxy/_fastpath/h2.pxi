# The client's side over HTTP/2: many requests on one connection, each with a Stream of its own.
#
# ClientH1 is the Link; what comes on it is read here, frame by frame, and frames wait in `c.out`
# until the turn of the loop is over: those of one turn leave in one write. Streams whose answers
# wait for windows or the socket are queued here by urgency; h2stream.pxi has what each one does.

cdef enum:
    COUNTED_MS = 10000            # resets and control frames are counted in so many ms
    SHARE_BYTES = 16 * 1024       # of an incremental answer, then others of its urgency go
    LATE_TIMES = 3                # client_header_timeout so often for what is left of a late head
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
    if w.spent_calls != NULL:                    # nobody holds one any more
        (<H2Call>w.last_spent).next_waiting = w.free_calls
        w.free_calls = w.spent_calls
        w.spent_calls = NULL


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


cdef inline bint is_ordered(H2Stream a, H2Stream b) noexcept:
    """RFC 9218 §10: of one urgency, what is of no use in pieces goes in the order of asking."""
    return a.s.urgency == b.s.urgency and not b.s.is_incremental


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
    cdef bint is_awaited          # the rest of a frame, or of a head …
    cdef bint is_late             # … whose stream was refused for it
    cdef bint has_more            # bytes that were read with those that are looked at
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
        self.c.max_block = at.h2_head if at.h2_head > FRAME_BYTES else FRAME_BYTES
        self.c.max_frame = at.h2_frame
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
        room.lim.max_line = conn.listener.h2_field
        room.lim.max_head = conn.listener.h2_head
        while not self.is_over:
            event = read_frames(&self.c, p, n, &used, room)
            p += used
            n -= used
            self.has_more = n > 0
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
            self.is_awaited = self.is_late = False
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
            st.leave()
        elif event == H2_WRONG:
            st = <H2Stream>self.c.s.owner
            st.on_wrong()
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
        st.s.is_incremental = w.head_room.is_incremental
        st.is_connect = w.head_room.is_connect
        if st.is_connect and fault == 0 and put_key(w.head.base + w.head_room.key) < 0:
            fault = INTERNAL
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
        """Last; but one that is not incremental comes before later ones of its urgency."""
        cdef PyObject* before = NULL
        cdef PyObject* at = self.last_waiting
        if st.is_waiting:
            return
        st.is_waiting = True
        while not st.s.is_incremental and at != NULL:        # from the end: most are the latest
            if is_ordered(st, <H2Stream>at):
                if (<H2Stream>at).s.id < st.s.id:
                    break
                before = at
            at = (<H2Stream>at).prev_waiting
        st.next_waiting = before
        st.prev_waiting = self.last_waiting if before == NULL else (<H2Stream>before).prev_waiting
        if st.prev_waiting != NULL:
            (<H2Stream>st.prev_waiting).next_waiting = <PyObject*>st
        else:
            self.first_waiting = <PyObject*>st
        if before != NULL:
            (<H2Stream>before).prev_waiting = <PyObject*>st
        else:
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
        """Windows or the socket have room: the most urgent go, each once; less urgent ones only if
        none of those could. Went anything?"""
        cdef PyObject* at
        cdef PyObject* next
        cdef PyObject* last
        cdef H2Stream st
        cdef uint8_t urgency
        cdef bint has_moved = False
        for urgency in range(8):
            at = self.first_waiting
            last = self.last_waiting             # what is queued again comes behind it
            while at != NULL and self.c.send_window > 0 and not self.conn.is_blocked and (
                    not self.is_over):
                st = <H2Stream>at
                next = st.next_waiting if at != last else NULL
                if st.s.urgency == urgency and st.s.send_window > 0 and self.send_some(st):
                    has_moved = True
                at = next
            if has_moved:
                break
        return has_moved

    cdef bint send_some(self, H2Stream st) noexcept:
        cdef Request r = st.r
        cdef size_t before = st.rest_n
        if st.s.is_incremental and before > SHARE_BYTES:
            if st.send_part(SHARE_BYTES) == 0:
                return False
            self.unqueue(st)
            self.queue(st)                       # the others' turn
            return True
        if st.send_rest():
            self.unqueue(st)
            st.stop_time()
            if st.is_over:
                self.w.complete(r)
            elif st.tunnel is not None:
                st.tunnel.unpause()
            else:
                self.w.on_client_drained(r)
            return True
        return st.rest_n < before

    # ---------------------------------------------------------------- the end

    cdef void on_closed_stream(self, H2Stream st) noexcept:
        """A request is over."""
        self.unqueue(st)
        if is_open(&self.c, &st.s):
            # it left without a word, or both sides said all: its answer must not look taken back
            reset_stream(&self.c, &st.s,
                         H2_NO_ERROR if st.s.is_ended and st.s.is_answered else H2_CANCEL)
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
                st.leave()

    cdef void leave_tunnels(self, uint16_t code) noexcept:
        """The worker leaves: see leave_tunnel."""
        cdef H2State* s
        cdef H2State* next
        cdef int i
        for i in range(BUCKETS):
            s = self.c.buckets[i]
            while s != NULL:
                next = s.next
                leave_tunnel((<H2Stream>s.owner).tunnel, code)
                s = next

    cdef void break_down(self) noexcept:
        """The client broke the rules: GOAWAY says which, all its requests are over."""
        self.write_now()
        self.is_over = True
        self.drop_streams()
        forget_out(&self.c)
        if self.conn is not None and not self.conn.is_closing:
            self.conn.part()

    cdef void warn(self) noexcept:
        """A leaving worker: nothing new, but what is on its way is still taken (RFC 9113 §6.8).
        Not of a client that asks nothing, or takes nothing: what crosses it is refused, so that
        it is asked again elsewhere, and holds nobody who leaves by an answer that cannot go."""
        if self.is_over or self.is_parting or self.is_warned:
            return
        if self.n_live == 0 or self.c.send_window <= 0:
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
        elif self.is_awaited and not self.is_late and refuse_late(&self.c, conn.held, conn.held_n):
            self.is_late = True                  # the others go on, if the rest comes at all
            self.will_write()
            set_deadline(self.w.wheel, conn, clock.now_ms + LATE_TIMES * <uint64_t>(
                conn.listener.default_server.head_timeout_ms))
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
