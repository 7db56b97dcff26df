# The worker: what all its connections share, the loop over the stages, and every event
# that moves a request on.

ctypedef int (*StageFunction)(Worker, Request) noexcept

cdef StageFunction[8] STAGES
STAGES[<int>S_READ] = NULL
STAGES[<int>S_ROUTE] = route
STAGES[<int>S_ADMIT] = admit
STAGES[<int>S_SHAPE] = shape
STAGES[<int>S_PICK] = choose
STAGES[<int>S_SEND] = send
STAGES[<int>S_RELAY] = relay_stage
STAGES[<int>S_TELL] = NULL


@final
cdef class Worker(Conductor):
    cdef public object loop
    cdef public Wheel wheel
    cdef char* spilled            # a piece of a body from its file: read_buffer may be in use
    cdef char* out                # towards clients: what out_of has not written yet
    cdef size_t out_n
    cdef H1Stream out_of
    cdef char* ask                # towards upstreams
    cdef size_t ask_n
    cdef UpstreamH1 ask_of
    cdef ClientH1 held_of         # what it holds of a body was asked for
    cdef Field* fields
    cdef Field* answer_fields
    cdef uint16_t cap_fields
    cdef list free_requests
    cdef list free_requests_h2
    cdef list free_requests_h3
    cdef set clients_h3
    cdef list later               # ClientStreams that have something to do when all others are done
    cdef list lines               # of upstreams that have room again
    cdef list later_calls         # the same of H2Calls
    cdef PyObject* free_calls     # H2Calls for the next ones …
    cdef PyObject* spent_calls    # … and those that join them when the turn is over
    cdef PyObject* last_spent
    cdef uint32_t n_spare_calls   # of both
    cdef PyObject* unwritten_asks  # UpstreamH2s whose frames wait for the end of the turn
    cdef HeadRoom answer_room     # where their answers' heads are read to
    cdef Head answer_head
    cdef PyObject* unwritten      # ClientH2s whose frames wait for the end of the turn
    cdef HeadRoom head_room       # where requests of HTTP/2 are read to
    cdef Head head
    cdef set copies               # of requests, for shadows
    cdef PyObject* clients        # all of them, newest first
    cdef PyObject* oldest
    cdef readonly uint32_t n_clients
    cdef uint64_t serial
    cdef readonly uint64_t n_accepted
    cdef Counters counters        # None: nothing is counted
    cdef Block* stats
    cdef readonly uint64_t n_requests
    cdef public bint is_quitting
    cdef public object on_empty   # called when quitting and the last client left
    cdef readonly uint32_t n_upstreams  # connections to upstreams, idle ones included
    cdef readonly uint32_t n_guests  # connections of stream { }, both sides
    cdef public uint32_t max_connections  # worker_connections: both sides together
    cdef public object on_full    # called when no connection more may come …
    cdef public object on_room    # … and when there is room again
    cdef bint is_full
    cdef readonly Waiting waiting  # who waits for a function; None: there are none

    def __cinit__(self):
        self.spilled = <char*>malloc(READ_BYTES)
        self.out = <char*>malloc(OUT_BYTES + 64)
        self.ask = <char*>malloc(OUT_BYTES + 64)
        self.cap_fields = 1024
        self.fields = <Field*>malloc(self.cap_fields * sizeof(Field))
        self.answer_fields = <Field*>malloc(self.cap_fields * sizeof(Field))
        self.free_requests, self.free_requests_h2, self.free_requests_h3 = [], [], []
        self.copies, self.clients_h3 = set(), set()
        self.later, self.later_calls = [], []
        self.lines = []
        self.stats = &nobody_counts
        if (self.spilled == NULL or self.out == NULL or self.ask == NULL
                or self.fields == NULL or self.answer_fields == NULL):
            raise MemoryError

    def __init__(self, loop):
        self.loop = loop
        self.wheel = Wheel(loop)
        at_turn_end(write_frames, <void*>self)

    def __dealloc__(self):
        at_turn_end(NULL, <void*>self)
        free(self.head_room.bytes)
        free(self.answer_room.bytes)
        free(self.spilled)
        free(self.out)
        free(self.ask)
        free(self.fields)
        free(self.answer_fields)

    def accept(self, Listener listener not None, int fd):
        """Accept on `fd`, which is ours from now on. Raises OSError."""
        listener.w = self
        listener.open(fd, self.wheel)

    def count_in(self, Counters counters):
        """From now on requests are counted there."""
        if counters is not None:
            self.counters = counters
            self.stats = counters.block

    def attend(self, Functions functions not None):
        """From now on functions are asked: who waits is resumed by bell, table and time."""
        cdef Bell bell = Bell.__new__(Bell)
        bell.w = self
        self.waiting = Waiting(functions, bell.sleep)
        functions.on_told = bell.on_told
        functions.on_failed = bell.on_failed
        if functions.counts is not None:
            bell.fd = functions.counts.bell
            self.loop.add_reader(bell.fd, bell.on_ring)

    cdef bint make_answer_room(self, uint32_t most) noexcept:
        """Room for answers' heads of so many bytes, over HTTP/2. False: no memory."""
        cdef HeadRoom* room = &self.answer_room
        cdef size_t need = room_for(most, most)
        cdef char* larger
        if room.n < need:
            larger = <char*>realloc(room.bytes, need)
            if larger == NULL:
                return False
            room.bytes = larger
            room.n = need
            room.fields = self.answer_fields
            room.cap_fields = self.cap_fields
            room.head = &self.answer_head
            room.lim.max_line = 0
            room.lim.max_fields = 0
            room.lim.ignore_invalid = False      # that is for requests; metadata has dots in names
        return True

    cdef inline void begin_writing(self, Request r) noexcept:
        r.is_counted = True
        self.stats.reading -= 1
        self.stats.writing += 1

    # ---------------------------------------------------------------- who is here

    cdef uint64_t next_serial(self) noexcept:
        self.serial += 1
        return self.serial

    cdef void add_client(self, ClientH1 c) noexcept:
        c.prev = NULL
        c.next = self.clients
        if self.clients != NULL:
            (<ClientH1>self.clients).prev = <PyObject*>c
        else:
            self.oldest = <PyObject*>c
        self.clients = <PyObject*>c
        self.n_clients += 1
        Py_INCREF(c)
        look_at_room(self)

    cdef void remove_client(self, ClientH1 c) noexcept:
        if c.prev == NULL and self.clients != <PyObject*>c:
            return
        if c.next != NULL:
            (<ClientH1>c.next).prev = c.prev
        else:
            self.oldest = c.prev
        if c.prev != NULL:
            (<ClientH1>c.prev).next = c.next
        else:
            self.clients = c.next
        c.next = c.prev = NULL
        self.n_clients -= 1
        self.stats.active -= 1
        self.stats.waiting -= 1
        Py_DECREF(c)
        if self.is_full:
            look_at_room(self)
        self.look_at_end()

    cdef void look_at_end(self) noexcept:
        """When leaving, whoever is last."""
        if self.is_quitting and self.n_clients == 0 and self.n_guests == 0 and (
                self.on_empty is not None):
            self.on_empty()

    def count_guests(self, int change):
        """Connections of stream { } came (1) or went (-1): they count among worker_connections,
        and a worker does not leave before them. Gives a serial for one that came."""
        self.n_guests = <uint32_t>(<int>self.n_guests + change)
        self.stats.active += change
        if change > 0 or self.is_full:
            look_at_room(self)
        if change < 0:
            self.look_at_end()
            return 0
        self.stats.accepted += 1
        self.stats.handled += 1
        return self.next_serial()

    def quit(self, uint16_t leave_code=GOING_AWAY):
        """Finish what is under way, take nothing new. A connection that was busy a moment ago may
        have its next request on the way: that one is answered with Connection: close.
        leave_code: what WebSockets hear whose frames are read."""
        cdef PyObject* at = self.clients
        cdef ClientH1 c
        self.is_quitting = True
        tick()
        while at != NULL:
            c = <ClientH1>at
            at = c.next
            if c.state == C_IDLE and c.held_n == 0 and c.client.requests:
                c.idle_until(PARTING_MS)
            elif c.state == C_H2:
                c.h2.warn()
                c.h2.leave_tunnels(leave_code)
            elif c.state == C_TUNNEL:
                leave_tunnel(c.tunnel, leave_code)
        for h3 in list(self.clients_h3):
            (<ClientH3>h3).warn()
            (<ClientH3>h3).leave_tunnels(leave_code)
        self.settle()
        self.look_at_end()

    def give_up(self):
        """worker_shutdown_timeout: clients that are still here are cut, their requests told."""
        cut_all(self)

    # ---------------------------------------------------------------- scratch on its way out

    cdef inline void own_out(self, H1Stream s) noexcept:
        if self.out_of is not s:
            if self.out_of is not None and self.out_n:
                self.write_out(self.out_of.conn, NULL, 0)
            self.out_of = s

    cdef void drop_out(self, ClientStream s) noexcept:
        if self.out_of is s:
            self.out_n = 0
            self.out_of = None

    cdef int write_out(self, ClientH1 c, const char* p, size_t n) noexcept:
        """What waits in `out`, then p. 0, BLOCKED or CLIENT_GONE."""
        cdef size_t waiting = self.out_n
        cdef Request r
        cdef int rc
        self.out_n = 0
        if c is None:
            return CLIENT_GONE
        if waiting:
            rc = c.write(self.out, waiting, p, n)
        elif n:
            rc = c.write(p, n, NULL, 0)
        else:
            return c.is_blocked
        if rc == 1:
            r = c.r
            if r is not None and r.location is not None:
                c.time_sending(r)
            return BLOCKED
        return CLIENT_GONE if rc < 0 else 0

    cdef inline void own_ask(self, UpstreamH1 u) noexcept:
        if self.ask_of is not u:
            if self.ask_of is not None and self.ask_n:
                self.write_ask(self.ask_of, NULL, 0)
            self.ask_of = u

    cdef void drop_ask(self, UpstreamCall u) noexcept:
        if self.ask_of is u:
            self.ask_n = 0
            self.ask_of = None

    cdef int write_ask(self, UpstreamH1 u, const char* p, size_t n) noexcept:
        cdef size_t waiting = self.ask_n
        cdef Request r = u.r
        cdef int rc
        self.ask_n = 0
        if waiting:
            rc = u.write(self.ask, waiting, p, n)
        elif n:
            rc = u.write(p, n, NULL, 0)
        else:
            return u.is_blocked
        u.written += <int64_t>(waiting + n)
        if r is not None and r.n_attempts:
            r.attempts[r.n_attempts - 1].bytes_sent = u.written
        return CLIENT_GONE if rc < 0 else rc

    cdef inline void settle(self) noexcept:
        """The end of every entry from the loop: nothing stays in the scratch."""
        cdef UpstreamH1 u
        cdef H1Stream s
        cdef ClientH1 c
        while self.held_of is not None or self.ask_n or self.out_n or len(self.later) or (
                len(self.lines) or len(self.later_calls)):
            c = self.held_of
            self.held_of = None
            if c is not None and not c.is_closing:
                c.run_held()
            while len(self.later):
                (<ClientStream>self.later.pop()).go_on()
            while len(self.later_calls):
                (<H2Call>self.later_calls.pop()).go_on()
            while len(self.lines):
                (<Line>self.lines.pop()).go_on()
            if self.ask_n:
                u = self.ask_of
                self.ask_of = None
                if self.write_ask(u, NULL, 0) == CLIENT_GONE:
                    u.lose(UPSTREAM_CLOSED)
            if self.out_n:
                s = self.out_of
                self.out_of = None
                if s is not None:
                    c = s.conn
                    # a paused connection is not told of its reset: whoever writes must see it
                    if self.write_out(c, NULL, 0) == CLIENT_GONE and c is not None and (
                            c.r is not None and c.state == C_BUSY and not c.is_closing):
                        self.on_client_gone(c.r)
                        c.abort()
                self.out_n = 0
        if (self.unwritten != NULL or self.unwritten_asks != NULL) and not is_in_turn():
            write_frames(<void*>self)

    # ---------------------------------------------------------------- the loop over the stages

    cdef void resume(self, Request r, int verdict) noexcept:
        self.drive(r, verdict)

    cdef void go_on(self, Request r) noexcept:
        self.on_client_drained(r)

    cdef int ask_sub(self, Request parent, Str uri, Str args, SubWaiter waiter,
                     object tag) noexcept:
        return ask_request(self, parent, uri, args, waiter, tag)

    cdef void drive(self, Request r, int verdict) noexcept:
        while True:
            if verdict == GO:
                r.stage += 1
                verdict = STAGES[<int>r.stage](self, r)
            elif verdict == PARK:
                return
            elif verdict == DONE:
                find_type(r)
                self.answer(r)
                return
            elif verdict == STATUS:
                self.answer_status(r, r.status)
                return
            elif verdict == REROUTE or verdict == REENTER:
                r.redirects += 1
                if r.redirects > MAX_REDIRECTS:
                    verdict = REDIRECT_LOOP
                    continue
                r.is_internal = True
                r.captures.n = 0
                r.checked = r.access_status = 0
                forget_choice(r)
                if verdict == REROUTE:
                    r.stage = S_READ
                    verdict = GO
                else:
                    r.stage = S_ROUTE
                    verdict = enter(self, r)
                    if verdict == REWRITE_AGAIN:
                        verdict = search(self, r)
            else:
                self.fail(r, verdict)
                return

    cdef void fail(self, Request r, int fault) noexcept:
        """Answer with the status of a fault, or cut what cannot be answered any more."""
        cdef UpstreamCall u
        r.fault = fault
        if r.asked != NULL:
            leave(self.waiting, r)
        report_fault(r, fault)
        if r.call is not None:
            u = <UpstreamCall>r.call
            r.call = None
            u.leave()
        if r.is_head_sent:
            if not end_grpc(self, r, fault):
                r.stream.flush(r)
                r.stream.abort(r)
            return
        r.reason.n = 0
        r.n_out = 0
        r.last_modified = -1
        self.answer_status(r, r.status if fault == LIMITED else status_of(fault))

    cdef void refuse(self, Request r, Server s, int fault) noexcept:
        r.server = s
        r.location = <Location>s.settings
        self.fail(r, fault)

    cdef void answer_status(self, Request r, int status) noexcept:
        """A status without an answer yet: what error_page says, else its default page."""
        cdef int rc
        if status in (400, 413, 414, 494, 495, 496, 497, 500, 501, 408) and not r.is_body_done:
            r.keep_alive = False
        if status in (400, 414, 494, 497, 505):
            r.keep_alive = False
        rc = stand_in(r, status) if not is_copy(r) else GO
        if rc == REROUTE or rc == REENTER:
            self.drive(r, rc)
            return
        if rc != GO:
            status = r.status
        if r.asked != NULL and (<Asked*>r.asked).refusal and answer_refusal(r, status) == DONE:
            count_refusal(self, r)
            if (<ProxySettings>r.location.proxy).tells_timing:
                add_timing(r)
            if not answer_grpc(self, r, status):
                self.answer(r)
            return
        if answer_grpc(self, r, status):
            return
        r.told_status = 0 if status < 494 or status > 499 else <uint16_t>status
        r.text = error_page(status, r.location is None or r.location.server_tokens)
        r.status = 400 if 494 <= status <= 498 else <uint16_t>status
        if r.fault == UPSTREAM_BAD_HEAD and r.answer.status == 101:
            r.text.n = 0                         # a switch that was not asked for: no body (nginx)
        if r.text.n:
            r.content_type = text(b"text/html", 9)
        self.answer(r)

    cdef void answer(self, Request r) noexcept:
        """An answer of ours: head, then its text or its source."""
        cdef int rc
        if r.body_kind == BODY_CHUNKED and r.status < 300 and not r.is_body_done and (
                not r.is_body_read and r.parent is None
                and (<ClientStream>r.stream).has_bad_chunk()):
            r.is_body_done = True
            r.keep_alive = False
            self.fail(r, BAD_CHUNK)
            return
        r.is_answer_ours = True
        if r.error_status:
            r.status = r.error_status
        if r.status == 444:                      # nginx: close without a word
            r.keep_alive = False
            r.is_done = True
            self.complete(r)
            return
        if r.location is not None:
            take_rate(r)
        if r.source is None:
            r.length = r.text.n
        rc = complete_location(r)
        if rc == 0:
            rc = add_charset(r)
        if rc == 0:
            rc = dress(r)
        if rc == 0:                              # last of all: it asks what the head says by now
            rc = cut_ranges(r)
        if rc == STATUS:
            self.answer_status(r, r.status)
            return
        if rc == 0:
            rc = r.stream.send_head(r)
        if rc < 0:
            r.stream.abort(r)
            return
        if r.source is not None and r.head.method != M_HEAD:
            rc = feed_source(self, r)
            if rc == BLOCKED:
                return
            if rc < 0:
                r.stream.flush(r)
                r.stream.abort(r)
                return
        elif r.text.n and r.limit_rate and not r.is_header_only:
            rc = self.send_paced(r)
            if rc == BLOCKED:
                return
            if rc < 0:
                r.stream.abort(r)
                return
        elif r.text.n:
            put_body(r, r.text.p, r.text.n)
        self.finish(r)

    cdef int send_paced(self, Request r) noexcept:
        """A text at limit_rate: what is not due yet waits. 0, BLOCKED or a fault."""
        cdef Spool q = new_spool(r.text.n, 0, None, False)
        cdef int rc = q.put(r.text.p, r.text.n)
        if rc < 0:
            return rc
        r.waiting = q
        r.is_answer_read = True                  # once it is sent, the answer is whole
        return self.send_waiting(r)

    cdef void finish(self, Request r) noexcept:
        """The answer is whole on our side; it is told when the client's side took it."""
        cdef int rc
        if r.limit_rate and not r.is_done and r.parent is None and (
                (<ClientStream>r.stream).is_ahead(r)):
            r.is_answer_read = True              # the pacer comes back here
            return
        if not r.is_done:
            if r.filters is not None and not r.is_header_only:
                rc = (<BodyFilter>r.filters).end(r)
                if rc < 0:
                    self.fail(r, rc)
                if rc:
                    return
            if r.out_kind == BODY_CHUNKED and not r.is_header_only and add_trailers(r) < 0:
                self.fail(r, NO_MEMORY)
                return
            r.is_done = True
            if r.stream.send_end(r) < 0:
                r.stream.abort(r)
                return
        r.stream.flush(r)
        if r.stream.is_blocked():
            return
        self.complete(r)

    cdef void complete(self, Request r) noexcept:
        cdef UpstreamCall u
        if r.call is not None:                   # an early answer: the upstream's part is over
            u = <UpstreamCall>r.call
            r.call = None
            u.leave()
        if r.parent is not None:
            end_sub(self, r)
            return
        self.tell(r)
        (<ClientStream>r.stream).on_answered(r)

    cdef void tell(self, Request r) noexcept:
        """Count, log; give back what was taken."""
        r.stage = S_TELL
        if r.conn_limits is not None:
            give_conns(r)
        self.n_requests += 1
        tell_request(self, r)

    # ---------------------------------------------------------------- the client's events

    cdef void on_body(self, Request r, const char* p, uint32_t n) noexcept:
        cdef ClientStream s = <ClientStream>r.stream
        cdef UpstreamCall u
        cdef Location here = r.location
        cdef int rc
        cdef bint is_copied = False
        if r.body_kind == BODY_NONE:             # dropped: an error_page answers
            return
        if is_web(r):
            n = take_text(r, &p, n)
            if n == WEB_BROKEN:
                self.fail(r, BAD_REQUEST)
                return
        r.body_n += n
        if here is not None and here.max_body and r.body_n > here.max_body and not r.is_done:
            r.keep_alive = False
            self.fail(r, BODY_TOO_LARGE)
            return
        s.time_body(r)
        if r.body is not None and (<Spool>r.body).is_copy:
            is_copied = copy_body(r, p, n)
        if r.call is not None and not holds_body(r):
            u = <UpstreamCall>r.call
            if is_copied:
                (<Spool>r.body).skip(n)
            rc = u.ask_body(p, n)
            if rc == BLOCKED:
                s.stop_time()
                s.want_body(r, False)
            elif rc < 0:
                u.lose(UPSTREAM_CLOSED)
        elif holds_body(r):
            rc = (<Spool>r.body).put(p, n)
            if rc < 0:
                self.fail(r, rc)

    cdef void on_body_end(self, Request r) noexcept:
        if r.body_kind == BODY_NONE:
            return
        if is_web(r) and not text_is_whole(r):
            self.fail(r, BAD_REQUEST)
            return
        if r.call is not None and not holds_body(r):
            if (<UpstreamCall>r.call).state != U_DIALING:  # asked again: `send` ends it
                (<UpstreamCall>r.call).ask_end()
        elif r.stage == S_PICK and holds_body(r):
            if (<Spool>r.body).is_file_only and (<Spool>r.body).to_file() < 0:
                self.fail(r, DISK_FULL)
                return
            r.stage = S_PICK - 1
            self.drive(r, GO)

    cdef void on_client_drained(self, Request r) noexcept:
        cdef int rc
        if r.parent is None:
            (<ClientStream>r.stream).stop_time()
        if r.filters is not None:
            rc = (<BodyFilter>r.filters).pump(r)
            if rc < 0:
                self.fail(r, rc)
            elif rc == 0 and (<BodyFilter>r.filters).is_ended:
                self.finish(r)
                return
            if rc:
                return
        if r.waiting is not None:
            rc = self.send_waiting(r)
            if rc == BLOCKED:
                return
            if rc < 0:
                self.fail(r, rc)
                return
        if r.is_answer_read:
            self.finish(r)
        elif r.call is not None:
            (<UpstreamCall>r.call).unpause()
        elif r.source is not None and not r.is_done:
            rc = feed_source(self, r)
            if rc == DONE:
                self.finish(r)
            elif rc < 0:
                self.fail(r, rc)
        elif r.is_done:
            self.finish(r)

    cdef void on_client_gone(self, Request r) noexcept:
        cdef UpstreamCall u
        if r.call is not None:
            u = <UpstreamCall>r.call
            r.call = None
            u.leave()
        if r.fault == SEND_TIMEOUT:
            report_text(R_INFO, r, "client timed out (110: Connection timed out) "
                                   "while sending to client")
        elif not r.is_done and r.told_status == 0 and not r.is_upgraded:
            if not r.is_head_sent:               # else the status that was sent stands (nginx)
                r.told_status = 499
            report_text(R_INFO, r, "client prematurely closed connection")
        if r.asked != NULL:
            leave(self.waiting, r)
        if r.location is not None:
            self.tell(r)
        (<ClientStream>r.stream).forget(r)
        free_request(self, r)

    # ---------------------------------------------------------------- the upstream's events

    cdef int send_spool(self, Request r, UpstreamCall u) noexcept:
        """What is held of the body goes to the upstream. 0, BLOCKED or a fault."""
        cdef Spool q = <Spool>r.body
        cdef const char* p = NULL
        cdef Py_ssize_t n
        cdef int rc
        while True:
            n = q.peek(&p, self.spilled, READ_BYTES)
            if n < 0:
                return DISK_FULL
            if n == 0:
                break
            rc = u.ask_body(p, <size_t>n)
            q.skip(<size_t>n)
            if rc:
                return rc
        if r.is_body_done:
            u.ask_end()
        return 0

    cdef void on_upstream_drained(self, Request r, UpstreamCall u) noexcept:
        cdef int rc
        if r.body is not None and not u.is_ask_whole:
            rc = self.send_spool(r, u)
            if rc < 0:
                u.lose(rc)
            elif rc == 0 and not r.is_body_done and not holds_body(r):
                (<ClientStream>r.stream).go_on_reading(r)
        elif not r.is_body_done:
            (<ClientStream>r.stream).go_on_reading(r)

    cdef void on_answer_head(self, Request r, UpstreamCall u) noexcept:
        cdef int rc
        cdef Str redirect
        cdef Attempt* a = &r.attempts[r.n_attempts - 1]
        a.status = r.answer.status
        a.header_ms = <int64_t>(clock.now_ms - a.start_ms)
        if condition_of(UPSTREAM_STATUS, r.answer.status) & u.s.next_conditions:
            if self.try_next(r, u, UPSTREAM_STATUS):
                return
        r.status = r.answer.status
        r.reason = span(&r.answer, r.answer.reason, r.answer.reason_n)
        r.length = r.answer.content_length if not r.answer.flags & H_CHUNKED else -1
        if u.kind == BODY_NONE and r.length < 0 and r.method != M_HEAD:
            r.length = 0
        if u.s.intercepts and r.status >= 300 and not is_copy(r) and has_error_page(r, r.status):
            intercept(self, r, u)
            return
        if u.s.obeyed and not is_copy(r):
            redirect = obey_accel(u.s, r)
            if redirect.n:
                self.drive(r, accel_redirect(self, r, u, redirect))
                return
        rc = shape_answer(u.s, r) or complete_location(r)  # one that proxy_redirect wrote
        if rc == 0 and r.asked != NULL:
            rc = on_function_head(r, u)
        if rc < 0:
            self.fail(r, rc)
            return
        if r.status == 101:
            upgrade(self, r, <UpstreamH1>u)      # HTTP/2 has no 101
            return
        r.stage = S_RELAY
        take_rate(r)
        if r.error_status:
            r.status = r.error_status
            r.reason.n = 0
        rc = add_charset(r)
        if rc == 0:
            rc = dress(r)
        if rc == 0:
            rc = r.stream.send_head(r)
        if rc < 0:
            self.fail(r, rc)

    cdef void relay(self, Request r, UpstreamCall u, const char* p, size_t n) noexcept:
        """A piece of the answer's body goes to the client, or waits for it."""
        cdef int rc
        cdef Spool q
        if n == 0 or r.is_header_only:
            return
        if r.limit_rate and r.waiting is None:
            r.waiting = answer_spool(u, 0)
        if r.limit_rate and r.pacer is None and not r.stream.is_blocked():
            rc = (<Spool>r.waiting).put(p, n)
            if rc < 0 or self.send_waiting(r) < 0:
                self.fail(r, rc if rc < 0 else INTERNAL)
            elif r.waiting is not None and (<Spool>r.waiting).room() < next_read(u):
                u.pause()
            return
        if r.waiting is not None:
            q = <Spool>r.waiting
            rc = q.put(p, n)
            if rc < 0:
                self.fail(r, rc)
            elif q.room() < next_read(u):
                u.pause()
            return
        rc = put_body(r, p, n)
        if rc == BLOCKED:
            if u.s.is_buffered and r.buffer_answer != 1:
                r.waiting = answer_spool(u, (<ClientStream>r.stream).unsent())
            else:
                u.pause()
        elif rc < 0 and (r.parent is not None or r.filters is not None):
            self.fail(r, rc)
        elif rc < 0:
            self.lose_client(r)

    cdef void lose_client(self, Request r) noexcept:
        """The client's socket refuses bytes: its reset will be told; stop here."""
        cdef ClientStream s = <ClientStream>r.stream
        cdef ClientH1 c = s.conn
        self.drop_out(s)
        self.on_client_gone(r)
        if c is not None and not s.is_multiplexed:
            c.abort()

    cdef int send_waiting(self, Request r) noexcept:
        """What waits goes to the client. 0: all, BLOCKED, or a fault."""
        cdef Spool q = <Spool>r.waiting
        cdef const char* p = NULL
        cdef Py_ssize_t n
        cdef int64_t room
        cdef int rc
        while True:
            room = r.stream.allowance(r)
            if room == 0:
                return BLOCKED
            n = q.peek(&p, self.spilled, PIECE_BYTES if room > PIECE_BYTES else <size_t>room)
            if n < 0:
                return DISK_FULL
            if n == 0:
                break
            rc = put_body(r, p, <size_t>n)
            if rc == 0:
                rc = r.stream.flush(r)
            q.skip(<size_t>n)
            if r.call is not None and (<UpstreamCall>r.call).is_paused and (
                    q.room() >= next_read(<UpstreamCall>r.call)):
                (<UpstreamCall>r.call).unpause()
            if rc:
                return rc
        r.waiting = None
        if r.call is not None:
            (<UpstreamCall>r.call).most_bytes = piece_bytes((<UpstreamCall>r.call).s)
        return 0

    cdef void on_answer_end(self, Request r) noexcept:
        if r.waiting is None:
            self.finish(r)

    cdef int release_failed(self, Request r, UpstreamCall u, int fault) noexcept:
        """A peer could not be reached. GO: choose again; else the fault."""
        cdef Tried* t = <Tried*>r.tried
        give_peer(u, t, PEER_FAILED)
        count_failed(self, u.peer)
        r.attempts[r.n_attempts - 1].response_ms = <int64_t>(
            clock.now_ms - r.attempts[r.n_attempts - 1].start_ms)
        if asks_again(r, fault):
            return GO
        if may_retry(u.s.next_conditions, condition_of(fault, 0), t.tries, r.method, 0,
                     True, r.is_head_sent, clock.now_ms,
                     r.start_ms + u.s.next_timeout_ms if u.s.next_timeout_ms else 0):
            r.stage = S_PICK - 1
            return GO
        return fault

    cdef bint try_next(self, Request r, UpstreamCall u, int fault) noexcept:
        """Ask another peer, if that is safe and allowed. The connection is given up."""
        cdef Tried* t = <Tried*>r.tried
        cdef Attempt* a = &r.attempts[r.n_attempts - 1]
        cdef int64_t written = u.written
        cdef bint is_held = r.body is not None or r.body_n == 0 and not r.is_body_read or (
            r.body_kind == BODY_NONE) or u.s.body is not None
        cdef bint is_status = fault == UPSTREAM_STATUS
        cdef bint is_race
        cdef uint32_t condition = condition_of(fault, r.answer.status if is_status else 0)
        cdef uint64_t until_ms = r.start_ms + u.s.next_timeout_ms if u.s.next_timeout_ms else 0
        if is_status:                            # the answer stands unless there is a next peer
            if t.tries < 2 or not may_retry(
                    u.s.next_conditions, condition, t.tries - 1, r.method, <uint64_t>written,
                    is_held, r.is_head_sent, clock.now_ms, until_ms):
                return False
            give_peer(u, t, PEER_NEXT if condition & (NEXT_403 | NEXT_404) else PEER_FAILED)
            if not condition & (NEXT_403 | NEXT_404):
                count_failed(self, u.peer)
            a.response_ms = <int64_t>(clock.now_ms - a.start_ms)
        else:
            a.response_ms = <int64_t>(clock.now_ms - a.start_ms)
            is_race = closed_idle(r, u, a, fault)
            if not is_race or not forgive(r, u, t):
                give_peer(u, t, PEER_FAILED)
                count_failed(self, u.peer)
            if is_race:
                refund_try(t)
            if t.tries == 0 and asks_again(r, fault):
                refund_try(t)                    # it may wait for another replica
            if not may_retry(u.s.next_conditions, condition, t.tries, r.method,
                             <uint64_t>written, is_held, r.is_head_sent, clock.now_ms, until_ms):
                return False
        u.r = None
        self.drop_ask(u)
        u.drop()
        r.call = None
        r.answer.fields = NULL
        if r.body is not None and not r.is_body_done and not holds_body(r):
            r.stream.want_body(r, False)         # `send` goes on with it
        r.stage = S_PICK - 1
        self.drive(r, GO)
        return True

    cdef void on_upstream_fault(self, Request r, UpstreamCall u, int fault) noexcept:
        r.call = None
        if fault == FUNCTION_TIMEOUT and r.asked != NULL:
            (<Asked*>r.asked).refusal = R_TIMEOUT
        report_upstream(r, fault)
        r.answer.fields = NULL if not r.is_head_sent else r.answer.fields
        if r.is_head_sent:
            r.attempts[r.n_attempts - 1].response_ms = <int64_t>(
                clock.now_ms - r.attempts[r.n_attempts - 1].start_ms)
            give_peer(u, NULL, PEER_FAILED)
            count_failed(self, u.peer)
            self.fail(r, fault)
        elif not self.try_next(r, u, fault):
            self.fail(r, fault)
