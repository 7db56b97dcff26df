# Functions, as far as the stages see them: asked if ready, parked if not, and their deadlines.

cdef enum:
    MOST_ROUNDS = 16          # attempts of one request at replicas that refuse it


cdef int ask_version(Worker w, Request r, Version v) noexcept:
    """All that comes after "which version": a ready replica of it, or wait for one."""
    if r.asked == NULL:
        if asked_of(r, v) == NULL:
            return NO_MEMORY
        if len(v.prefix) and put_prefix(r, v.prefix) < 0:
            return NO_MEMORY
        if v.upstream.primary.n == 0 and wakes_nobody(r):
            return answer_asleep(r)
    r.upstream = v.upstream
    return choose_peer(w, r, <ProxySettings>r.location.proxy)


cdef int wait_for_replica(Worker w, Request r) noexcept:
    """PARK, or the fault that says which limit stands against it."""
    cdef ClientStream s = <ClientStream>r.stream
    cdef ClientH1 c = s.conn
    cdef uint32_t n_bytes = r.head.size
    cdef int fd = -1
    if s.is_multiplexed:                         # its connection is read on: it tells of its end
        n_bytes += s.held_bytes()
    elif c is not None:
        fd = c.fd
        n_bytes += c.held_n
        if not c.is_feeding and c.held_n == 0 and c.is_ended:
            return CLIENT_GONE
    if (<Version>r.version).is_h2:
        (<Asked*>r.asked).given_up_ms = grpc_deadline(r)
    return park(w.waiting, r, <Version>r.version, <Asked*>r.asked, fd, n_bytes)


cdef void begin_call(UpstreamCall u, Request r) noexcept:
    """A connection is about to serve r: how long it may be silent, how long it may take."""
    cdef Version v
    cdef Asked* a
    u.read_ms = u.s.read_ms
    u.until_ms = grpc_deadline(r) if u.s.is_grpc or u.is_shared and r.asked != NULL else 0
    if r.asked == NULL:
        return
    v = <Version>r.version
    a = <Asked*>r.asked
    u.taken = TAKEN_SLOT
    a.replica = of_bytes((<Replica>u.peer.replica).name)
    if v.timeout_ms:
        if u.until_ms == 0 or a.asked_ms + v.timeout_ms < u.until_ms:
            u.until_ms = a.asked_ms + v.timeout_ms
    if u.read_ms == 0:                           # derived
        u.read_ms = v.timeout_ms or LONG_MS


cdef bint asks_again(Request r, int fault) noexcept:
    """A replica refused the connection, or broke before it said a word: perhaps another, perhaps
    the next one that wakes. Whether it may be asked is not said here."""
    cdef Version v = <Version>r.version
    if r.asked == NULL or v is None or fault != UPSTREAM_REFUSED and fault != UPSTREAM_CLOSED:
        return False
    v.refused_ms = clock.now_ms
    r.stage = S_PICK - 1
    return r.n_attempts < MOST_ROUNDS


cdef inline bint is_refused(UpstreamCall u) noexcept:
    return u.is_shared and (<H2Call>u).is_refused


cdef inline bint closed_idle(Request r, UpstreamCall u, Attempt* a, int fault) noexcept:
    """The keep-alive race: it closed as we wrote (RFC 9112 §9.3.1); or it refused one stream."""
    if is_refused(u):
        return r.n_attempts < MOST_ROUNDS        # one that refuses all is no race
    return u.is_reused and u.n_interim == 0 and fault == UPSTREAM_CLOSED and a.bytes_received == 0


cdef bint forgive(Request r, UpstreamCall u, Tried* t) noexcept:
    """A replica closed what was idle: no fault of it, and it may be asked again. Of a peer of an
    upstream it is one, as in nginx: False; but for a stream that it refused."""
    if r.asked == NULL and not is_refused(u) or r.n_attempts >= MOST_ROUNDS:
        return False
    unmark_tried(t, u.peer.core.slot)
    give_peer(u, t, PEER_OK)
    return True


cdef int on_function_head(Request r, UpstreamCall u) noexcept:
    """Streams and upgrades have no total time limit, and need not count. 0 or a fault."""
    cdef Version v = <Version>r.version
    cdef bint is_stream = r.status == 101 or is_stream_type(r)
    if is_stream or r.length < 0 and r.method != M_HEAD:
        u.until_ms = grpc_deadline(r) if u.is_shared else 0
    if is_stream and not v.count_streams:
        begin_stream(<Replica>u.peer.replica, &u.taken)
    if u.s.tells_timing:
        return add_timing(r)
    return 0


cdef bint is_stream_type(Request r) noexcept:
    """Server-sent events, or JSON by lines."""
    cdef const Field* f = find_field(&r.answer, F_CONTENT_TYPE)
    cdef Str type
    if f == NULL:
        return False
    type = value_of(&r.answer, f)
    return starts_with(type, b"text/event-stream", 17) or (
        starts_with(type, b"application/x-ndjson", 20)
        or starts_with(type, b"application/jsonl", 17)
        or starts_with(type, b"application/stream+json", 23))


cdef bint starts_with(Str s, const char* word, uint32_t n) noexcept:
    cdef Str head = s
    if s.n < n:
        return False
    head.n = n
    return is_word(head, word, n)


cdef void count_refusal(Worker w, Request r) noexcept:
    """The metric has the word of the log and of the answer."""
    cdef Version v = <Version>r.version
    cdef Asked* a = <Asked*>r.asked
    if w.counters is None or v is None:
        return
    try:
        labels = {"function": v.function.key.decode(), "version": v.name.decode(),
                  "limit": refusal_word(a.refusal).decode()}
        count(w.counters, w.counters.counter("headrace_function_refused_total", labels), 1)
    except Exception as error:
        tell_error(R_ALERT, r, "counting a refusal", error)


@final
cdef class Bell:
    """The loop's door to what is parked: an eventfd, the table, the time."""
    cdef Worker w
    cdef readonly int fd
    cdef object timer

    def on_ring(self):
        cdef uint64_t n
        c_read(self.fd, &n, 8)
        self.on_told()

    def on_told(self):
        """The table said something, or another worker gave us a slot."""
        if self.w.waiting.n:
            tick()
            self.w.waiting.go_on()
            self.w.settle()

    def on_failed(self, Version v):
        tick()
        self.w.waiting.fail(v)
        self.w.settle()

    def sleep(self, int64_t ms):
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.w.loop.call_later(ms / 1000, self.look)

    def look(self):
        cdef Waiting waiting = self.w.waiting
        cdef uint32_t n
        cdef uint32_t i
        cdef list gone
        tick()
        self.timer = None
        waiting.look_ms = 0
        n = find_gone(waiting)
        gone = [<Request>waiting.requests[waiting.due[i]] for i in range(n)]
        for r in gone:
            on_client_hung_up(self.w, <Request>r)
        waiting.go_on()
        self.w.settle()


cdef void on_client_hung_up(Worker w, Request r) noexcept:
    """A connection that is not read notices no end: it was found by poll(2)."""
    cdef ClientH1 c
    if r.asked == NULL or (<Asked*>r.asked).ticket == 0:
        return
    c = (<ClientStream>r.stream).conn
    if c is None or (<ClientStream>r.stream).is_multiplexed or not c.is_paused or c.is_ended:
        return                                   # the loop tells it
    c.is_ended = True
    r.keep_alive = False
    w.on_client_gone(r)
    c.close()
