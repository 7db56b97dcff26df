# What serves a request at a peer, whatever is spoken to it: a connection that is dialed, and the
# call that a request holds – the connection itself over HTTP/1.1, one of its streams over HTTP/2.
#
# Idle connections wait in two chains: by peer (newest first, taking one is a pop) and by
# upstream (oldest last, so that `keepalive` can drop it).

cdef enum UpstreamState:
    U_DIALING = 0
    U_IDLE = 1
    U_HEAD = 2            # the request went out, or is going; no head came yet
    U_BODY = 3
    U_TUNNEL = 4
    U_OVER = 5            # nothing more to do with it

cdef enum:
    MAX_INTERIM = 32      # 1xx heads before the final one


cdef struct Pool:         # idle connections of one Upstream in this worker
    PyObject* newest
    PyObject* oldest


cdef inline uint64_t due(UpstreamLink u, uint64_t ms) noexcept:
    """The moment in so many ms, or the end of the function's timeout if that comes first."""
    cdef uint64_t at = clock.now_ms + ms
    return u.until_ms if u.until_ms and u.until_ms < at else at


cdef inline void give_peer(UpstreamCall u, Tried* t, Outcome outcome) noexcept:
    """The request is over at this peer; once for each that was picked."""
    if u.peer.replica is None:
        on_released(u.upstream, u.peer, t, outcome, clock.now_ms)
        call_line(u.w, u.upstream)
    else:
        give_replica(<Replica>u.peer.replica, t, outcome, &u.taken)


cdef class UpstreamLink(Link):
    """A connection to a peer: dialed, with TLS or without. What comes of it is `take`n."""
    cdef Worker w
    cdef Upstream upstream
    cdef Peer peer
    cdef Request r                # that it was dialed for, or that it serves
    cdef ProxySettings s
    cdef PyObject* peer_next      # idle chain of the peer; of those in use, over HTTP/2
    cdef PyObject* peer_prev
    cdef PyObject* lru_newer      # idle chain of the upstream
    cdef PyObject* lru_older
    cdef uint8_t state
    cdef uint8_t is_tls
    cdef uint8_t is_shared        # HTTP/2: streams of many requests are on it
    cdef bytes tls_name           # whom its certificate must name
    cdef KeyPair pair             # what variables say that we are, None: what the conf says
    cdef uint8_t is_counted       # among the worker's connections
    cdef uint8_t is_reused        # it answered a request before this one
    cdef uint32_t requests
    cdef uint64_t born_ms
    cdef uint64_t until_ms        # the end of the request's own time, 0: none

    cdef Request asker(self):
        """The request that the log names while it is dialed; None: it left."""
        return self.r

    # ---------------------------------------------------------------- dialing

    cdef int dial(self) noexcept:
        """Begin to connect. 0, or a fault at once."""
        cdef int fd
        cdef int on = 1
        cdef bytes address = self.peer.sockaddr
        self.w.n_upstreams += 1
        self.is_counted = True
        fd = c_socket(self.peer.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            report_connect(self.asker(), errno)
            return UPSTREAM_REFUSED
        if self.peer.family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
        if self.s.so_keepalive:
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(int))
        if self.s.receive_bytes:                 # both before connect: they bound TCP's window
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &self.s.receive_bytes, sizeof(int))
        if self.s.send_bytes:
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &self.s.send_bytes, sizeof(int))
        if self.s.bind is not None:
            try:
                bind_to(fd, self.s.bind, self.asker())
            except OSError:
                c_close(fd)
                return UPSTREAM_REFUSED
        # EAGAIN: a Unix socket with a full backlog
        if connect(fd, <const sockaddr*><const char*>address, <unsigned int>len(address)) != 0 and (
                errno != EINPROGRESS):
            report_connect(self.asker(), errno)
            c_close(fd)
            return UPSTREAM_REFUSED
        if self.open_dialing(fd) != 0:
            return UPSTREAM_REFUSED
        set_deadline(self.w.wheel, self, due(self, self.s.connect_ms))
        return 0

    cdef void on_dialed(self, int error) noexcept:
        tick()
        if error:
            report_connect(self.asker(), error)
            self.lose(UPSTREAM_REFUSED)
        elif not self.is_tls:
            self.begin()
        elif self.r is None and not self.is_shared:
            self.drop()
        else:
            try:
                self.begin_tls(self.asker())
            except Exception as problem:
                self.report_tls(str(problem).encode())
                self.lose(UPSTREAM_REFUSED)
            else:
                self.is_plain = False
                set_deadline(self.w.wheel, self, due(self, self.s.connect_ms))
                self.unseal(NULL, 0)             # ClientHello
        self.w.settle()

    cdef void begin(self) noexcept:
        """Connected, and known to be the right one: what waits for it may go."""

    cdef void take(self, char* p, uint32_t n) noexcept:
        """Plain bytes came."""

    cdef void lose(self, int fault) noexcept:
        """It failed whoever waits for it."""

    cdef void drop(self) noexcept:
        """Close it; nobody waits for it."""

    cdef begin_tls(self, Request r):
        """A TLS of our side: the name that is verified and sent, the session that is resumed."""
        cdef ProxySettings s = self.s
        cdef Session session = None
        name = template_text(s.tls_name, r)
        sni = s.sent_name(s.tls, name) if s.tls_sni else None
        self.tls_name = s.bare_name(name).encode("latin-1")
        if s.tls.reuses:
            session = self.peer.tls_session
        self.tls = begin_client(s.tls.context, sni.encode("latin-1") if sni else None, session)
        if self.pair is not None:
            put_pair(self.tls.ssl, self.pair)

    cdef report_tls(self, bytes what):
        cdef bytes words = what + b" while SSL handshaking to upstream"
        cdef Request r = self.asker()
        if r is not None:
            report(R_ERROR, r, of_bytes(words))

    cdef void take_sealed(self, char* p, uint32_t n) noexcept:
        cdef Py_ssize_t got = self.unseal(p, n)
        cdef bytes wrong
        if self.tls.session is not None:
            self.peer.tls_session = self.tls.session
            self.tls.session = None
        if self.state == U_DIALING and got >= 0 and self.tls.is_ready and (
                self.r is not None or self.is_shared):
            if self.s.tls_verify:
                wrong = self.tls.check_peer(self.tls_name)
                if wrong is not None:
                    self.report_tls(wrong)
                    self.lose(UPSTREAM_REFUSED)
                    return
            self.begin()
        if got > 0 and not self.is_closing:
            self.take(plain, <uint32_t>got)
        if self.is_closing:
            return
        if self.tls.is_broken:
            if self.state == U_DIALING:
                self.peer.tls_session = None
                if self.tls.reason is not None:
                    self.report_tls(b"SSL_do_handshake() failed (" + self.tls.reason + b")")
                self.lose(UPSTREAM_REFUSED)
            else:
                self.on_lost()
                self.close()
        elif self.tls.is_ended and not self.is_ended:
            self.is_ended = True
            self.on_ended()

    cdef void on_bytes(self, uint32_t n) noexcept:
        tick()
        if self.tls is None:
            self.take(read_buffer, n)
        else:
            self.take_sealed(read_buffer, n)
        self.w.settle()
        poison(read_buffer, n)

    cdef void uncount(self) noexcept:
        """It is among the worker's connections no more."""
        if self.is_counted:
            self.is_counted = False
            self.w.n_upstreams -= 1
            if self.w.is_full:
                look_at_room(self.w)


cdef class UpstreamCall(UpstreamLink):
    """What serves one request at a peer: Request.call. A stream of HTTP/2 is one that has no
    descriptor: its bytes go over the connection's."""
    cdef Splice splice            # moves a body at the moment, either way
    cdef uint8_t taken            # functions: what it holds of its replica
    cdef uint32_t read_ms         # the longest silence of the peer
    cdef uint8_t is_ask_whole     # the request went out whole
    cdef uint8_t n_interim
    cdef uint32_t interim_bytes
    cdef uint8_t kind             # BodyKind of the answer
    cdef int64_t left             # of the answer's body, where its length is known
    cdef int64_t ask_left         # bytes of the request's body still announced, -1: chunked
    cdef int64_t written          # of this request
    cdef object pacer             # holds reading back while it is ahead of proxy_limit_rate

    cdef int ask(self, Request r) noexcept:
        """Write the request's head. 0 or a fault."""
        return INTERNAL

    cdef bint take_interim(self, Request r) noexcept:
        """A head before the final one, in r.answer: hints are passed on where early_hints says so,
        as many as one head may have bytes (nginx). False: there were too many."""
        self.n_interim += 1
        self.interim_bytes += r.answer.size
        if r.answer.status == 103 and self.s.hints is not None and r.parent is None and (
                self.interim_bytes <= self.s.head_bytes and not is_copy(r)
                and wants_hints(self.s, r)):
            r.stream.send_interim(r, 103)
        r.answer.fields = NULL
        return self.n_interim <= MAX_INTERIM

    cdef int ask_body(self, const char* p, size_t n) noexcept:
        """A piece of the request's body. 0, BLOCKED, or CLIENT_GONE when it cannot be sent."""
        return CLIENT_GONE

    cdef void ask_end(self) noexcept:
        """The request's body is whole."""

    cdef void part(self, Request r, bint keep) noexcept:
        """The answer is whole: the request is done here, the connection may serve another."""
        cdef Worker w = self.w
        r.attempts[r.n_attempts - 1].response_ms = <int64_t>(
            clock.now_ms - r.attempts[r.n_attempts - 1].start_ms)
        give_peer(self, NULL, PEER_OK)
        self.r = None
        r.call = None
        r.is_answer_read = True
        if keep:
            give_idle(w, self)
        else:
            self.drop()
        w.on_answer_end(r)
        # it waits for its client: its head must not stay in the read buffer (a request that
        # is over has none)
        if r.answer.fields == w.answer_fields and r.keep_answer() < 0:
            r.answer.fields = NULL

    cdef void pace(self, Request r) noexcept:
        """proxy_limit_rate: rest until the bytes read so far were due."""
        cdef uint64_t rate = self.s.limit_rate
        cdef uint64_t due_ms
        cdef UpstreamPacer pacer
        if self.s.limit_rate_text is not None:
            rate = size_of(self.s.limit_rate_text, r)
        if rate == 0 or self.pacer is not None:
            return
        due_ms = r.attempts[r.n_attempts - 1].start_ms + (
            <uint64_t>r.attempts[r.n_attempts - 1].bytes_received * 1000 // rate)
        if due_ms > clock.now_ms:
            pacer = UpstreamPacer.__new__(UpstreamPacer)
            pacer.u = <PyObject*>self
            self.pacer = pacer
            self.pause()
            set_deadline(self.w.wheel, pacer, due_ms)

    cdef void lose(self, int fault) noexcept:
        """It failed its request."""
        cdef Request r = self.r
        self.w.drop_ask(self)
        self.r = None
        self.drop()
        if r is not None:
            self.w.on_upstream_fault(r, self, fault)

    cdef void leave(self) noexcept:
        """The request wants it no more (client gone, answered otherwise)."""
        cdef Attempt* a
        if self.r is not None:
            give_peer(self, NULL, PEER_OK)
            if self.r.n_attempts:
                a = &self.r.attempts[self.r.n_attempts - 1]
                a.response_ms = <int64_t>(clock.now_ms - a.start_ms)
        self.w.drop_ask(self)
        self.drop()


cdef str template_text(Template t, Request r):
    cdef Str value
    if r is None or evaluate(t, r, &value) < 0:
        return ""
    return to_bytes(value).decode("latin-1")


cdef bind_to(int fd, Template address, Request r):
    """proxy_bind: ADDRESS or ADDRESS:PORT. Raises OSError."""
    sock = borrow_socket(fileno=fd)
    host, _, port = template_text(address, r).rpartition(":") if (
        template_text(address, r).count(":") == 1) else (template_text(address, r), "", "0")
    try:
        if host:
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            sock.bind((host.strip("[]"), int(port or 0)))
    finally:
        sock.detach()
