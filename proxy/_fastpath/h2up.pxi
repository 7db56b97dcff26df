# The upstream's side over HTTP/2: a connection that many requests share, and the stream of each.
#
# Frames wait in `c.out` until the turn of the loop is over: those of one turn leave in one write.
# What windows or the socket do not take yet of a request's body waits with its stream, and its
# client is not read meanwhile. A client that does not take its answer stops its stream alone:
# what was on its way is held, bounded by the stream's window, which is not given back.

cdef enum:
    ANSWER_HEAD_MOST = 64 * 1024  # bytes of a head where the conf allows less: metadata is large
    PARTS_MOST = 128              # CONTINUATION frames of one head
    CONTROL_MOST = 10000          # frames that ask for work and carry none, in COUNTED_MS
    STREAMS_MOST = 128            # on one connection, if the peer allows more: then a further one
    WIDE_WINDOW = 256 * 1024      # of an answer that is taken as it comes


cdef void write_asks(Worker w) noexcept:
    """Everything that waits for upstreams of HTTP/2 at the end of the turn."""
    cdef UpstreamH2 h
    while w.unwritten_asks != NULL:
        h = <UpstreamH2>w.unwritten_asks
        w.unwritten_asks = h.next_unwritten
        h.next_unwritten = NULL
        h.is_unwritten = False
        h.write_out()
        Py_DECREF(h)


@final
cdef class H2Call(UpstreamCall):
    """One stream of an UpstreamH2; used again for others when a turn of the loop is over."""
    cdef UpstreamH2 h2            # None: it is over
    cdef H2State stream
    cdef uint32_t number          # of the stream, which forgets it when it is over
    cdef char* held               # of the answer: came, and nobody took it
    cdef uint32_t held_n
    cdef uint32_t held_cap
    cdef uint32_t owed            # taken while paused: the window is given when it goes on
    cdef char* rest_body          # of the request's body: did not go out yet
    cdef size_t rest_at
    cdef size_t rest_n
    cdef size_t rest_cap
    cdef size_t moved             # bytes that went out since the deadline was set
    cdef PyObject* next_waiting   # of those whose rest waits, in the order that they came
    cdef PyObject* prev_waiting
    cdef uint8_t is_waiting
    cdef uint8_t is_end_due       # the request's end goes behind the rest
    cdef uint8_t is_end_held      # the answer's end came behind what is held
    cdef uint8_t is_later         # it is among those that go on when all others are done
    cdef uint8_t is_refused       # the peer did not look at it: it may be asked again

    def __dealloc__(self):
        free(self.held)
        free(self.rest_body)

    cdef void join(self, UpstreamH2 h, Request r) noexcept:
        self.w = h.w
        self.upstream = h.upstream
        self.peer = h.peer
        self.s = h.s
        self.h2 = h
        self.r = r
        self.is_tls = h.is_tls
        self.is_shared = True
        self.is_reused = h.requests > 0
        self.state = U_DIALING
        self.is_blocked = self.is_paused = self.is_closing = False
        self.is_end_due = self.is_end_held = self.is_refused = False
        self.is_ask_whole = False
        self.n_interim = 0
        self.interim_bytes = 0
        self.written = 0
        self.owed = self.held_n = 0
        self.rest_at = self.rest_n = 0
        self.most_bytes = FRAME_BYTES            # no piece of an answer is larger
        h.n_calls += 1

    # ---------------------------------------------------------------- the request goes out

    cdef int ask(self, Request r) noexcept:
        cdef Worker w = self.w
        cdef UpstreamH2 h = self.h2
        cdef int64_t length = 0
        cdef char* at
        cdef int n
        if h is None or h.is_over:
            return UPSTREAM_CLOSED
        w.own_ask(None)
        n = write_request_block(self.s, r, h.is_tls, w.ask, OUT_BYTES, &length)
        if n < 0:
            return n
        at = begin_headers(&h.c, <size_t>n)
        if at == NULL:
            return NO_MEMORY
        memcpy(at, w.ask, <size_t>n)
        ask_stream(&h.c, &self.stream, <void*>self)
        self.number = self.stream.id
        self.stream.is_bare = r.method == M_HEAD
        end_headers(&h.c, &self.stream, <size_t>n, False)
        h.requests += 1
        self.state = U_HEAD
        self.count_written(n + FRAME_HEAD_BYTES)
        self.ask_left = length
        set_deadline(w.wheel, self, due(self, self.read_ms))
        if length == 0 or not self.s.passes_body:
            self.ask_end()
        h.will_write()
        return 0

    cdef inline void count_written(self, int64_t n) noexcept:
        cdef Request r = self.r
        self.written += n
        if r is not None and r.n_attempts:
            r.attempts[r.n_attempts - 1].bytes_sent = self.written

    cdef int ask_body(self, const char* p, size_t n) noexcept:
        cdef Py_ssize_t sent = 0
        if n == 0:
            return self.is_blocked
        if self.h2 is None or self.h2.is_over:
            return CLIENT_GONE
        if self.rest_n == 0:
            sent = self.send_now(p, n)
            if sent < 0:
                return CLIENT_GONE
        if <size_t>sent == n:
            self.node.deadline_ms = due(self, self.read_ms)
            return 0
        if not self.keep_body(p + sent, n - <size_t>sent):
            return CLIENT_GONE
        self.h2.queue(self)
        self.is_blocked = True
        self.moved = 0
        set_deadline(self.w.wheel, self, due(self, self.s.send_ms))  # may be the shorter one
        return BLOCKED

    cdef Py_ssize_t send_now(self, const char* p, size_t n) noexcept:
        """As much as windows and the socket take now; -1: no memory."""
        cdef UpstreamH2 h = self.h2
        cdef size_t done = 0
        cdef size_t part
        cdef Py_ssize_t sent
        while done < n and not h.is_blocked and not h.is_over:
            part = n - done if n - done < OUT_HIGH else OUT_HIGH
            sent = put_data(&h.c, &self.stream, p + done, part, FRAME_BYTES)
            if sent < 0:
                return -1
            done += <size_t>sent
            if h.c.out_n >= OUT_HIGH:
                h.write_now()
            if <size_t>sent < part:
                break
        if done:
            self.count_written(<int64_t>done)
            h.will_write()
        return <Py_ssize_t>done

    cdef bint keep_body(self, const char* p, size_t n) noexcept:
        cdef char* larger
        if self.rest_at and self.rest_at + self.rest_n + n > self.rest_cap:
            memmove(self.rest_body, self.rest_body + self.rest_at, self.rest_n)
            self.rest_at = 0
        if self.rest_at + self.rest_n + n > self.rest_cap:
            larger = <char*>realloc(self.rest_body, self.rest_n + n)
            if larger == NULL:
                return False
            self.rest_body = larger
            self.rest_cap = self.rest_n + n
        memcpy(self.rest_body + self.rest_at + self.rest_n, p, n)
        self.rest_n += n
        return True

    cdef void send_body_rest(self) noexcept:
        """Windows opened, or the socket did."""
        cdef Request r = self.r
        cdef Py_ssize_t sent = self.send_now(self.rest_body + self.rest_at, self.rest_n)
        if sent < 0:
            self.lose(NO_MEMORY)
            return
        self.rest_at += <size_t>sent
        self.rest_n -= <size_t>sent
        self.moved += <size_t>sent
        if self.rest_n:
            return
        self.h2.unqueue(self)
        free(self.rest_body)
        self.rest_body = NULL
        self.rest_at = self.rest_cap = 0
        self.is_blocked = False
        self.node.deadline_ms = due(self, self.read_ms)
        if self.is_end_due:
            self.is_end_due = False
            end_stream(&self.h2.c, &self.stream)
            self.h2.will_write()
        elif r is not None:
            self.w.on_upstream_drained(r, self)

    cdef void ask_end(self) noexcept:
        if self.is_ask_whole or self.h2 is None:
            return
        self.is_ask_whole = True
        if self.rest_n:
            self.is_end_due = True
            return
        end_stream(&self.h2.c, &self.stream)
        self.h2.will_write()

    # ---------------------------------------------------------------- the answer comes

    cdef void take_answer(self, int fault, bint is_end) noexcept:
        """A head, interim ones too, in the worker's answer room."""
        cdef Worker w = self.w
        cdef Request r = self.r
        if r is None:
            self.drop()
            return
        r.attempts[r.n_attempts - 1].bytes_received += self.h2.c.block_bytes + FRAME_HEAD_BYTES
        if fault < 0:
            self.lose(fault)
            return
        self.node.deadline_ms = due(self, self.read_ms)
        r.answer = w.answer_head
        if r.answer.status < 200:
            if not self.take_interim(r):
                self.lose(UPSTREAM_BAD_HEAD)
            return
        if is_end:
            self.kind = BODY_NONE
        else:
            self.kind = BODY_LENGTH if r.answer.content_length >= 0 else BODY_CHUNKED
        self.state = U_BODY
        w.on_answer_head(r, self)
        if self.r is not r:                      # refused, retried, or answered otherwise
            return
        if is_end:
            self.end_answer()
        if self.r is r and not r.is_done and r.answer.fields != NULL and r.keep_answer() < 0:
            self.lose(NO_MEMORY)

    cdef void take_data(self, const char* p, uint32_t n, bint is_end) noexcept:
        cdef Request r = self.r
        if r is None:
            self.drop()
            return
        self.node.deadline_ms = due(self, self.read_ms)
        r.attempts[r.n_attempts - 1].bytes_received += n
        r.attempts[r.n_attempts - 1].length += n
        if self.is_paused or self.held_n:
            self.is_end_held = is_end
            if n and not self.hold(p, n):
                self.lose(NO_MEMORY)
            return
        self.give(r, p, n)
        if self.r is r and is_paced(self.s):
            self.pace(r)
        if is_end and self.r is r:
            self.end_answer()

    cdef void take_trailers(self) noexcept:
        """What came behind the body goes on behind ours."""
        cdef Request r = self.r
        if r is None:
            self.drop()
            return
        r.attempts[r.n_attempts - 1].bytes_received += self.h2.c.block_bytes + FRAME_HEAD_BYTES
        if (self.s.is_grpc or self.s.passes_trailers or r.asked != NULL) and not pass_trailers(
                r, &self.w.answer_head):
            self.lose(NO_MEMORY)
        elif self.is_paused or self.held_n:
            self.is_end_held = True
        else:
            self.end_answer()

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

    cdef inline void give(self, Request r, const char* p, uint32_t n) noexcept:
        if n == 0:
            return
        self.w.relay(r, self, p, n)
        if self.r is not r:
            return
        if self.is_paused:
            self.owed += n
            return
        if self.stream.window < WIDE_WINDOW and self.stream.due + n > self.stream.window // 4:
            widen_window(&self.h2.c, &self.stream, WIDE_WINDOW)
        give_window(&self.h2.c, &self.stream, n)
        self.h2.will_write()

    cdef void unpause(self) noexcept:
        if not self.is_paused:
            return
        self.is_paused = False
        if self.h2 is None:
            return
        if self.owed:
            give_window(&self.h2.c, &self.stream, self.owed)
            self.owed = 0
            self.h2.will_write()
        if (self.held_n or self.is_end_held) and not self.is_later:
            try:                                 # its doing may end what its caller still holds
                self.w.later_calls.append(self)
                self.is_later = True
            except MemoryError:
                self.h2.abort()

    cdef void go_on(self) noexcept:
        """What is held of the answer, until its client has enough."""
        cdef Request r = self.r
        cdef uint32_t done = 0
        cdef uint32_t n
        self.is_later = False
        if r is None or self.is_paused:
            return
        self.node.deadline_ms = due(self, self.read_ms)
        while done < self.held_n and not self.is_paused and self.r is r:
            n = self.held_n - done if self.held_n - done < FRAME_BYTES else FRAME_BYTES
            self.give(r, self.held + done, n)
            done += n
        if self.r is not r:
            return
        self.held_n -= done
        if self.held_n:
            memmove(self.held, self.held + done, self.held_n)
        elif not self.is_paused:
            free(self.held)
            self.held = NULL
            self.held_cap = 0
            if self.is_end_held:
                self.end_answer()

    cdef void end_answer(self) noexcept:
        self.part(self.r, False)

    # ---------------------------------------------------------------- the end

    cdef void drop(self) noexcept:
        """The stream is over, or is given up; the connection stays."""
        cdef UpstreamH2 h = self.h2
        cdef bint was_answered = self.stream.is_ended
        self.pacer = None
        self.r = None
        self.forget_deadline()
        if h is None:
            return
        self.h2 = None
        h.unqueue(self)
        if self.state == U_DIALING:
            h.forget_waiter(self)
        if is_open(&h.c, &self.stream):
            # an answer may be whole before its request is (RFC 9113 §8.1)
            reset_stream(&h.c, &self.stream, H2_NO_ERROR if was_answered else H2_CANCEL)
            h.will_write()
        self.state = U_OVER
        free(self.held)
        free(self.rest_body)
        self.held = self.rest_body = NULL
        self.held_n = self.held_cap = 0
        self.rest_n = self.rest_cap = 0
        h.on_closed_call()
        if h.w.n_spare_calls < MAX_POOLED:       # chained: a list would resize each time
            h.w.n_spare_calls += 1
            if h.w.spent_calls == NULL:
                h.w.last_spent = <PyObject*>self
            self.next_waiting = h.w.spent_calls
            h.w.spent_calls = <PyObject*>self
            Py_INCREF(self)

    cdef void fail(self, int fault, bint is_refused) noexcept:
        """Its stream, or its connection, is over. is_refused: the peer said that it did not look
        at it, so it may be asked again whatever its method is (RFC 9113 §8.7)."""
        if is_refused:
            self.written = 0
            self.is_refused = True
        if self.r is None:
            self.drop()
        else:
            self.lose(fault)

    cdef void on_deadline(self) noexcept:
        cdef Worker w = self.w
        cdef bint is_over = self.until_ms and clock.now_ms >= self.until_ms
        if self.r is None:
            return
        if self.state == U_DIALING:
            self.lose(self.timeout_fault() if is_over else UPSTREAM_CONNECT_TIMEOUT)
        elif is_over:
            self.lose(self.timeout_fault())
        elif self.is_paused or self.state == U_HEAD and (
                not self.is_ask_whole and not self.is_blocked):
            set_deadline(w.wheel, self, due(self, self.read_ms))  # it waits for the client
        elif self.is_blocked and self.moved:
            self.moved = 0
            set_deadline(w.wheel, self, due(self, self.s.send_ms))
        else:
            self.lose(UPSTREAM_SEND_TIMEOUT if self.is_blocked else UPSTREAM_READ_TIMEOUT)
        w.settle()

    cdef inline int timeout_fault(self) noexcept:
        return UPSTREAM_READ_TIMEOUT if self.r.asked == NULL else FUNCTION_TIMEOUT


@final
cdef class UpstreamH2(UpstreamLink):
    """A connection of HTTP/2 to a peer."""
    cdef Http2 c
    cdef PyObject* next_unwritten
    cdef bint is_unwritten
    cdef bint is_over             # broken, or gone: nothing goes out any more
    cdef bint is_parting          # the peer begins nothing more: over with its last stream
    cdef bint is_busy             # among those of its peer that have room
    cdef uint32_t n_calls
    cdef uint64_t counted_ms      # when control frames were last set back
    cdef PyObject* first_waiting
    cdef PyObject* last_waiting
    cdef list waiters             # calls that wait for the connection
    cdef char* held               # of a frame that did not come whole
    cdef uint32_t held_n

    def __dealloc__(self):
        free_h2(&self.c)
        free(self.held)

    cdef Request asker(self):
        return (<H2Call>self.waiters[0]).r if self.waiters else None

    # ---------------------------------------------------------------- who is on it

    cdef inline bint has_room(self) noexcept:
        cdef uint32_t most = STREAMS_MOST
        if self.c.peer_streams < most:
            most = self.c.peer_streams
        if self.upstream.keepalive_requests and self.requests >= self.upstream.keepalive_requests:
            return False
        return not self.is_parting and not self.is_over and self.n_calls < most and (
            self.c.last_id < MAX_WINDOW - 2)

    cdef void show(self) noexcept:
        """Among those of its peer that may be joined."""
        if self.is_busy:
            return
        self.is_busy = True
        self.peer_prev = NULL
        self.peer_next = <PyObject*>self.peer.busy
        if self.peer_next != NULL:
            (<UpstreamH2>self.peer_next).peer_prev = <PyObject*>self
        self.peer.busy = <void*>self
        Py_INCREF(self)

    cdef void hide(self) noexcept:
        if not self.is_busy:
            return
        self.is_busy = False
        if self.peer_next != NULL:
            (<UpstreamH2>self.peer_next).peer_prev = self.peer_prev
        if self.peer_prev != NULL:
            (<UpstreamH2>self.peer_prev).peer_next = self.peer_next
        else:
            self.peer.busy = <void*>self.peer_next
        self.peer_next = self.peer_prev = NULL
        Py_DECREF(self)

    cdef void forget_waiter(self, H2Call call) noexcept:
        if call in self.waiters:
            self.waiters.remove(call)

    cdef void on_closed_call(self) noexcept:
        self.n_calls -= 1
        if self.n_calls or self.is_over:
            return
        self.will_write()                        # it parts, or idles, once that is out

    # ---------------------------------------------------------------- the beginning

    cdef int open_call(self) noexcept:
        """Dial. 0, or a fault at once."""
        self.c.is_client = True
        self.c.window = FIRST_WINDOW
        self.c.max_block = head_most(self.s)
        self.c.max_parts = PARTS_MOST
        self.c.max_resets = self.c.max_control = CONTROL_MOST
        self.counted_ms = clock.now_ms
        if not self.w.make_answer_room(self.c.max_block):
            return NO_MEMORY
        return self.dial()

    cdef void begin(self) noexcept:
        cdef list waiters = self.waiters
        cdef H2Call call
        cdef Request r
        self.node.deadline_ms = 0
        self.waiters = []
        self.born_ms = clock.now_ms
        self.state = U_HEAD
        begin_h2(&self.c)
        self.will_write()
        for call in waiters:
            r = call.r
            if r is not None and call.state == U_DIALING and call.h2 is self:
                call.state = U_HEAD
                call.node.deadline_ms = 0
                r.attempts[r.n_attempts - 1].connect_ms = <int64_t>(
                    clock.now_ms - r.attempts[r.n_attempts - 1].start_ms)
                self.w.resume(r, GO)
        self.w.settle()

    # ---------------------------------------------------------------- in

    cdef void take(self, char* p, uint32_t n) noexcept:
        cdef Worker w = self.w
        cdef HeadRoom* room = &w.answer_room
        cdef char* all_of_it = NULL
        cdef uint32_t used = 0
        cdef H2Event event = H2_DONE
        if self.is_over or self.state == U_DIALING:
            return
        if self.held_n:
            all_of_it = <char*>realloc(self.held, self.held_n + n)
            if all_of_it == NULL:
                self.break_down(NO_MEMORY)
                return
            memcpy(all_of_it + self.held_n, p, n)
            p = all_of_it
            n += self.held_n
            self.held = NULL
            self.held_n = 0
        if clock.now_ms - self.counted_ms >= COUNTED_MS:
            self.counted_ms = clock.now_ms
            self.c.n_resets = self.c.n_control = 0
        room.lim.max_head = head_most(self.s)
        while not self.is_over:
            event = read_frames(&self.c, p, n, &used, room)
            p += used
            n -= used
            if event == H2_DONE or event == H2_MORE:
                break
            if n > FRAME_HEAD and p[3] == RST_STREAM and self.takes_back(event, p, n):
                continue
            self.act(event)
        if event == H2_MORE and n and not self.is_over:
            self.held = <char*>malloc(n)
            if self.held == NULL:
                self.break_down(NO_MEMORY)
            else:
                memcpy(self.held, p, n)
                self.held_n = n
        free(all_of_it)
        if self.c.out_n and not self.is_over:
            self.will_write()

    cdef bint takes_back(self, H2Event event, const char* p, uint32_t n) noexcept:
        """The answer's end came, and in the same breath that it does not hold (nginx fails such
        ones too): told before anything of that end goes out."""
        cdef H2Call call
        if not self.c.is_end or event != H2_TRAILERS and event != H2_HEAD and event != H2_BODY:
            return False
        call = <H2Call>self.c.s.owner
        if not is_taken_back(p, n, call.number):
            return False
        call.fail(UPSTREAM_CUT if call.r is not None and call.r.is_head_sent
                  else UPSTREAM_BAD_HEAD, False)
        return True

    cdef inline void act(self, H2Event event) noexcept:
        cdef H2Call call
        if event == H2_BODY:
            call = <H2Call>self.c.s.owner
            call.take_data(self.c.piece.p, self.c.piece.n, self.c.is_end)
        elif event == H2_HEAD:
            call = <H2Call>self.c.s.owner
            call.take_answer(self.c.fault, self.c.is_end)
        elif event == H2_TRAILERS:
            call = <H2Call>self.c.s.owner
            call.take_trailers()
        elif event == H2_ROOM:
            if self.first_waiting != NULL:
                self.send_waiting()
        elif event == H2_RESET:
            call = <H2Call>self.c.s.owner
            self.on_reset(call)
        elif event == H2_PARTING:
            self.on_parting(self.c.id, self.c.code)
        else:
            self.break_down(UPSTREAM_BAD_HEAD)

    cdef void on_reset(self, H2Call call) noexcept:
        """One stream is over, by the peer's word or because the peer broke a rule on it."""
        cdef Request r = call.r
        if call.stream.is_ended and call.is_end_held:
            return                               # all of its answer is here, and waits
        if r is not None and r.is_head_sent:
            call.fail(UPSTREAM_CUT, False)
        elif self.c.is_ours or self.c.code != H2_REFUSED_STREAM:
            call.fail(UPSTREAM_BAD_HEAD, False)  # nginx: no valid head
        else:
            call.fail(UPSTREAM_CLOSED, True)

    cdef void on_parting(self, uint32_t last_id, uint32_t code) noexcept:
        """GOAWAY: nothing more is asked here, and what the peer did not look at goes elsewhere. One
        that complains of us is no invitation to say the same again."""
        cdef H2Call call
        self.is_parting = True
        self.hide()
        while True:
            call = self.find_behind(last_id)
            if call is None:
                break
            call.fail(UPSTREAM_CLOSED, code == H2_NO_ERROR)
        if self.n_calls == 0:
            self.will_write()

    cdef H2Call find_behind(self, uint32_t last_id):
        cdef H2State* s
        cdef int i
        for i in range(BUCKETS):
            s = self.c.buckets[i]
            while s != NULL:
                if s.id > last_id:
                    return <H2Call>s.owner
                s = s.next
        return None

    # ---------------------------------------------------------------- out

    cdef inline void will_write(self) noexcept:
        """Frames wait in `out`: they leave when this turn of the loop is over."""
        if not self.is_unwritten:
            self.is_unwritten = True
            self.next_unwritten = self.w.unwritten_asks
            self.w.unwritten_asks = <PyObject*>self
            Py_INCREF(self)

    cdef int write_now(self) noexcept:
        """0, BLOCKED or CLIENT_GONE."""
        cdef int rc
        if self.is_over or self.is_closing:
            forget_out(&self.c)
            return CLIENT_GONE
        if self.c.out_n == 0:
            return self.is_blocked
        rc = self.write(self.c.out, self.c.out_n, NULL, 0)
        forget_out(&self.c)
        if rc < 0:
            self.is_over = True
        return rc

    cdef void write_out(self) noexcept:
        """The turn is over."""
        cdef int rc
        if self.state == U_OVER or self.state == U_DIALING:
            return
        rc = self.write_now()
        while rc == 0 and self.first_waiting != NULL and self.send_waiting():
            rc = self.write_now()
        if rc < 0:
            self.lose(UPSTREAM_CLOSED)
        elif self.n_calls == 0:
            if self.c.out_cap > LEAST_H2_ROOM:
                free(self.c.out)
                self.c.out = NULL
                self.c.out_cap = 0
            if self.is_parting:
                self.drop()
            elif self.state != U_IDLE:
                self.hide()
                give_idle(self.w, self)

    cdef void queue(self, H2Call call) noexcept:
        if call.is_waiting:
            return
        call.is_waiting = True
        call.next_waiting = NULL
        call.prev_waiting = self.last_waiting
        if self.last_waiting != NULL:
            (<H2Call>self.last_waiting).next_waiting = <PyObject*>call
        else:
            self.first_waiting = <PyObject*>call
        self.last_waiting = <PyObject*>call

    cdef void unqueue(self, H2Call call) noexcept:
        if not call.is_waiting:
            return
        call.is_waiting = False
        if call.next_waiting != NULL:
            (<H2Call>call.next_waiting).prev_waiting = call.prev_waiting
        else:
            self.last_waiting = call.prev_waiting
        if call.prev_waiting != NULL:
            (<H2Call>call.prev_waiting).next_waiting = call.next_waiting
        else:
            self.first_waiting = call.next_waiting

    cdef bint send_waiting(self) noexcept:
        """Windows or the socket have room: each that waits once, in order. Went anything?"""
        cdef PyObject* at
        cdef PyObject* last = self.last_waiting
        cdef H2Call call
        cdef size_t before
        cdef bint has_moved = False
        while self.first_waiting != NULL and self.c.send_window > 0 and not self.is_blocked and (
                not self.is_over):
            at = self.first_waiting
            call = <H2Call>at
            if call.stream.send_window > 0:
                before = call.rest_n
                call.send_body_rest()
                has_moved |= call.rest_n != before
            if call.is_waiting:                  # to the end of the queue: others come first
                self.unqueue(call)
                self.queue(call)
            if at == last:
                break
        return has_moved

    # ---------------------------------------------------------------- the end

    cdef void fail_calls(self, int fault) noexcept:
        """All that are on it, and all that wait for it."""
        cdef H2Call call
        cdef list waiters = self.waiters
        self.waiters = []
        for call in waiters:
            if call.h2 is self:
                call.fail(fault, False)
        while True:
            call = self.find_behind(0)
            if call is None:
                break
            if call.stream.is_ended:             # all of its answer is here, and waits
                reset_stream(&self.c, &call.stream, H2_NO_ERROR)
            elif call.r is not None and call.r.is_head_sent:
                call.fail(UPSTREAM_CUT, False)
            else:
                call.fail(fault, False)

    cdef void lose(self, int fault) noexcept:
        """It is gone, or never came to be."""
        self.is_over = True
        self.hide()
        self.fail_calls(fault)
        self.drop()

    cdef void break_down(self, int fault) noexcept:
        """The peer broke the rules: GOAWAY says which, all its requests fail."""
        self.write_now()
        self.lose(fault)

    cdef void drop(self) noexcept:
        self.is_over = True
        self.hide()
        self.uncount()
        forget_idle(self.w, self)
        self.state = U_OVER
        self.forget_deadline()
        if self.is_blocked:
            self.abort()
        else:
            self.close()

    cdef void on_ended(self) noexcept:
        """FIN from the peer: what it did not answer by now it will not."""
        tick()
        self.lose(UPSTREAM_CLOSED)
        self.w.settle()

    cdef void on_lost(self) noexcept:
        tick()
        if self.state != U_OVER:
            self.lose(UPSTREAM_CLOSED)
        self.w.settle()

    cdef void on_drained(self) noexcept:
        tick()
        if self.first_waiting != NULL:
            self.send_waiting()
        self.will_write()
        self.w.settle()

    cdef void on_deadline(self) noexcept:
        if self.state == U_DIALING:
            self.lose(UPSTREAM_CONNECT_TIMEOUT)
        elif self.state == U_IDLE:
            self.drop()
        self.w.settle()


cdef inline uint32_t head_most(ProxySettings s) noexcept:
    return s.head_bytes if s.head_bytes > ANSWER_HEAD_MOST else ANSWER_HEAD_MOST


cdef bint pass_trailers(Request r, const Head* h) noexcept:
    """False: no memory."""
    cdef Str all_of_it = copy(&r.arena, text(h.base, h.size))
    cdef uint16_t i
    cdef Field* f
    if h.size and all_of_it.n == 0:
        return False
    for i in range(h.n_fields):
        f = &h.fields[i]
        if not f.flags and r.add_trailer(
                text(all_of_it.p + f.name, f.name_n),
                text(all_of_it.p + f.value, f.value_n)) == NULL:
            return False
    return True
