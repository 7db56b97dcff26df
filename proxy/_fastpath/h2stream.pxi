# One request's side of HTTP/2: what is sent on its stream and what comes there, body or tunnel.
#
# What windows or the socket do not take yet of an answer waits here, and the stream in a queue by
# urgency (h2.pxi); what comes of a body that nobody takes waits here too, bounded by the window.

cdef enum:
    OUT_HIGH = 64 * 1024          # frames that wait: more are written before the turn is over
    HEAR_OUT_MS = 100             # a client answered early has to end its request by itself
    SMALL_PIECE = 4096            # of a body: those of one read go on as one


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
    cdef uint8_t is_heard_out     # told: only the rest of its request may come
    cdef uint8_t is_connect       # an extended CONNECT: what comes are bytes of a tunnel
    cdef uint8_t is_shut          # of the tunnel: our side of it is ended, or will be
    cdef uint8_t is_over          # … it is over when what waits went out
    cdef UpstreamH1 tunnel

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
        self.is_aborted = self.is_interim_sent = self.is_heard_out = False
        self.is_connect = self.is_shut = self.is_over = False
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
        self.detach()
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
        frame_on_stream(r, self.is_connect)
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
        cdef int n
        if h is None or h.is_over:
            return 0
        if status == 103:
            at = begin_headers(&h.c, room_for_hints(r))
            if at == NULL:
                return NO_MEMORY
            n = write_hint_block(r, at)
            if n:
                end_headers(&h.c, &self.s, <size_t>n, False)
                h.will_write()
            return 0
        if status != 100 or self.is_interim_sent:
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
        if self.rest_n == 0 and not (
                self.s.is_incremental and n > SHARE_BYTES and self.h2.first_waiting != NULL):
            sent = self.send_now(p, n)
            if sent < 0:
                return NO_MEMORY
        if <size_t>sent == n:
            return 0
        self.h2.will_write()                     # it may be its turn then
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
            if h.c.out_n >= OUT_HIGH:            # before more joins it: the end may go on the last
                h.write_now()
                continue
            part = n - done if n - done < OUT_HIGH else OUT_HIGH
            sent = put_data(&h.c, &self.s, p + done, part, self.r.location.h2_chunk)
            if sent < 0:
                return -1
            done += <size_t>sent
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

    cdef size_t send_part(self, size_t n) noexcept:
        """n bytes of the rest, which has more. How many went; a lack of memory is met later."""
        cdef Py_ssize_t sent = self.send_now(self.rest + self.rest_at, n)
        if sent <= 0:
            return 0
        self.rest_at += <size_t>sent
        self.rest_n -= <size_t>sent
        self.moved += <size_t>sent
        return <size_t>sent

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
        self.is_end_held = self.is_connect and self.s.is_ended
        if self.s.is_ended or r.head.content_length == 0 or self.is_connect:
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
        if self.is_heard_out and is_end:
            free_request(self.h2.w, r)
            return
        if self.is_heard_out or self.is_aborted or r.is_body_done and not self.is_connect:
            return
        if self.tunnel is not None and not self.is_paused and self.held_n == 0:
            self.to_tunnel(p, n, is_end)
            return
        if r.is_body_read and not self.is_paused and self.held_n == 0:
            if is_end or n >= SMALL_PIECE or not self.h2.has_more:
                self.give(p, n, is_end)
                return
            self.do_later()
        self.is_end_held = is_end
        if n and not self.hold(p, n):
            self.h2.w.fail(r, NO_MEMORY)

    cdef void on_wrong(self) noexcept:
        """Its body is not what its head said: 400 as long as that can be said (RFC 9113 §8.1.1)."""
        cdef Request r = self.r
        if r is None:
            return
        self.held_n = 0
        self.is_end_held = False
        if self.is_heard_out or self.is_aborted or self.is_connect or r.is_head_sent or (
                not r.is_body_read and r.call is None):  # parked by who would not hear of it
            reset_stream(&self.h2.c, &self.s, H2_PROTOCOL_ERROR)
            self.h2.will_write()
            self.leave()
            return
        r.is_body_done = True
        self.stop_time()
        self.h2.w.fail(r, BAD_REQUEST)

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
        if self.is_over:
            if self.rest_n == 0:
                self.h2.w.complete(r)
            return
        if self.is_paused or n == 0 and not self.is_end_held or self.tunnel is None and (
                not r.is_body_read or r.is_body_done):
            return
        self.held = NULL
        self.held_n = self.held_cap = 0
        if self.tunnel is not None:
            self.to_tunnel(held, n, self.is_end_held)
        else:
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
        if self.is_heard_out:
            reset_stream(&h.c, &self.s, H2_NO_ERROR)
            h.will_write()
            free_request(h.w, r)
        elif self.rest_n and self.moved:         # slowly, but it takes something
            self.time_sending(r)
        elif self.rest_n:
            r.fault = SEND_TIMEOUT
            reset_stream(&h.c, &self.s, H2_CANCEL)
            h.will_write()
            h.w.on_client_gone(r)
        elif not r.is_body_done and not r.is_head_sent:
            blame(&self.s)                       # its rest will not be waited for (nginx)
            h.w.fail(r, BODY_TIMEOUT)
        elif not r.is_body_done:
            reset_stream(&h.c, &self.s, H2_CANCEL)
            h.will_write()
            h.w.on_client_gone(r)
        h.w.settle()

    cdef void on_answered(self, Request r) noexcept:
        """Told. What is left of a body is not wanted (RFC 9113 §8.1): a client that does not end
        it by itself is asked to."""
        cdef ClientH2 h = self.h2
        if is_open(&h.c, &self.s) and self.s.is_answered and not h.is_over:
            self.is_heard_out = True
            set_deadline(h.w.wheel, self.timer, clock.now_ms + HEAR_OUT_MS)
            return
        if is_open(&h.c, &self.s):
            reset_stream(&h.c, &self.s, H2_CANCEL)
            h.will_write()
        free_request(h.w, r)

    cdef void leave(self) noexcept:
        """The client cancelled it, or is gone."""
        if self.r is None:
            return
        if self.is_heard_out:
            free_request(self.h2.w, self.r)
        elif not self.is_aborted:
            self.h2.w.on_client_gone(self.r)

    # ---------------------------------------------------------------- a tunnel (RFC 8441)

    cdef bint may_tunnel(self, Request r) noexcept:
        return self.is_connect and is_begun(&r.head, &r.answer)

    cdef void open_tunnel(self, Request r, UpstreamH1 u) noexcept:
        self.tunnel = u
        self.stop_time()
        if self.held_n or self.is_end_held:
            self.do_later()

    cdef void to_tunnel(self, const char* p, uint32_t n, bint is_end) noexcept:
        cdef UpstreamH1 u = self.tunnel
        cdef Request r = self.r
        if n and u.websocket is not None:
            u.websocket.on_client()
            u.websocket.carry(FROM_CLIENT, p, n)
        elif n:
            u.on_tunnel_traffic()
            if u.write(p, n, NULL, 0) == 1:
                self.is_paused = True
        if self.r is not r:                      # it ended there
            return
        if self.is_paused:
            self.owed += n
        else:
            give_window(&self.h2.c, &self.s, n)
            self.h2.will_write()
        if is_end and self.tunnel is not None:
            u.shut_after_client()
            if u.is_ended:
                self.end_tunnel()

    cdef int write_tunnel(self, const char* p, size_t n, const char* q, size_t m) noexcept:
        cdef Py_ssize_t sent = 0
        if self.h2 is None or self.h2.is_over or self.is_shut:
            return -1
        if self.rest_n == 0:
            sent = self.send_now(p, n)
            if sent < 0:
                return -1
        if <size_t>sent < n:
            if not self.keep_rest(p + sent, n - <size_t>sent):
                return -1
        if m and self.rest_n == 0:
            sent = self.send_now(q, m)
            if sent < 0:
                return -1
            q += sent
            m -= <size_t>sent
        if m and not self.keep_rest(q, m):
            return -1
        if self.rest_n == 0:
            return 0
        self.h2.queue(self)
        return 1

    cdef void want_tunnel(self, bint is_wanted) noexcept:
        self.want_body(self.r, is_wanted)

    cdef void shut_tunnel(self) noexcept:
        if not self.is_shut and self.r is not None:
            self.is_shut = True
            self.send_end(self.r)

    cdef void end_tunnel(self) noexcept:
        self.detach()
        if self.r is None or self.is_over:
            return
        self.is_over = True
        if self.rest_n:                          # it goes out first, if it is taken in time
            set_deadline(self.h2.w.wheel, self.timer, clock.now_ms + CLOSE_MS)
        else:
            self.do_later()                      # who ends it is still busy with it

    cdef void part_tunnel(self) noexcept:
        self.shut_tunnel()
        self.end_tunnel()

    cdef void give_up_tunnel(self) noexcept:
        self.detach()
        if self.r is not None:
            self.h2.w.on_client_gone(self.r)

    cdef bint is_tunnel_ended(self) noexcept:
        return self.s.is_ended or self.s.id == 0

    cdef bint has_tunnel_moved(self) noexcept:
        cdef bint has_moved = self.rest_n > 0 and self.moved > 0
        self.moved = 0
        return has_moved

    cdef void detach(self) noexcept:
        if self.tunnel is not None:
            self.tunnel.tunnel = None
            self.tunnel = None

    cdef void forget(self, Request r) noexcept:
        if self.h2 is not None and is_open(&self.h2.c, &self.s):
            reset_stream(&self.h2.c, &self.s, H2_CANCEL)
            self.h2.will_write()
